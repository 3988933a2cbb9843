import t from 'tap'
import { createTemplateRouter, type Operation } from '../../src/gateway/template-router.js'

function operation (template: string): Operation {
  return { method: 'GET', template, plan: { body: [], query: [], undescribed: false, isReadable: true, lost: [], mediaTypes: null } }
}

function findIn (templates: string[], options?: { lenient: boolean }) {
  const find = createTemplateRouter(templates.map(operation), options)
  return (path: string) => find('GET', path)?.template
}

t.test('the root is a path as any other', async t => {
  for (const lenient of [false, true]) {
    const find = findIn(['/', '/{a}'], { lenient })
    t.equal(find('/'), '/')
    t.equal(find('/x'), '/{a}')
  }
})

t.test('templates that differ in what is around their parameters are told apart by all of them', async t => {
  const find = findIn(['/{a}:x/{b}:y', '/{a}:x/{b}', '/{a}/{b}:y'])
  t.equal(find('/1:x/2:y'), '/{a}:x/{b}:y')
  t.equal(find('/1:x/2'), '/{a}:x/{b}')
  t.equal(find('/1/2:y'), '/{a}/{b}:y')
  t.equal(find('/1/2'), undefined)
})

t.test('a slash at the end makes no difference to a lenient router alone', async t => {
  for (const template of ['/a', '/a/']) {
    for (const path of ['/a', '/a/', '//a', '/A//']) {
      t.equal(findIn([template], { lenient: true })(path), template, path)
      t.equal(findIn([template])(path), path === template ? template : undefined, path)
    }
  }
})
