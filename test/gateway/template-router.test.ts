import t from 'tap'
import { canonical, createTemplateRouter, type Operation } from '../../src/gateway/template-router.js'

function operation (template: string): Operation {
  return { method: 'GET', template, plan: { body: [], bodyByType: new Map(), query: [], undescribed: false, isReadable: true, lost: [], mediaTypes: null, unfillable: new Map() } }
}

function findIn (templates: string[], options?: { lenient: boolean }) {
  const { find, findWildcards } = createTemplateRouter(templates.map(operation), options)
  return (path: string) => {
    const found = find('GET', path, canonical(path))
    return (found.length > 0 ? found : findWildcards('GET', path, canonical(path))).map(({ template }) => template).join(' or ')
  }
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
  t.equal(find('/1/2'), '')
})

t.test('a slash at the end makes no difference to a lenient router alone', async t => {
  for (const template of ['/a', '/a/']) {
    for (const path of ['/a', '/a/', '//a', '/A//']) {
      t.equal(findIn([template], { lenient: true })(path), template, path)
      t.equal(findIn([template])(path), path === template ? template : '', path)
    }
  }
})

t.test('where templates overlap all are found that a path may be for', async t => {
  const find = findIn(['/{kind}/me', '/books/{id}', '/{any}/{id}', '/a/{x}/c', '/a/b/{y}', '/{kind}/me/{part}'])
  t.equal(find('/books/me'), '/books/{id} or /{kind}/me')
  t.equal(find('/books/1'), '/books/{id}', 'not those that are literal in no other place')
  t.equal(find('/x/me'), '/{kind}/me')
  t.equal(find('/x/y'), '/{any}/{id}')
  t.equal(find('/a/b/c'), '/a/b/{y} or /a/{x}/c')
  t.equal(find('/a/b/d'), '/a/b/{y}')
  t.equal(findIn(['/{kind}/me', '/Books/{id}'], { lenient: true })('/BOOKS//Me/'), '/Books/{id} or /{kind}/me')
  t.equal(findIn(['/{kind}/me', '/b%20c/{id}.json'])('/b%20c/me.json'), '/b%20c/{id}.json')
})

t.test('a parameter may have what the text after it begins with, and takes time that grows with its length alone', async t => {
  const find = findIn(['/compare/{base}...{head}', '/ohlc/{pair}-to-{quote}.csv', '/v/{a}v{b}'])
  for (const path of ['/compare/v1.0...v1.1', '/compare/....a', '/compare/a...b...c']) t.equal(find(path), '/compare/{base}...{head}', path)
  t.equal(find('/ohlc/wrapped-btc-to-usd-to-x.csv'), '/ohlc/{pair}-to-{quote}.csv')
  t.equal(find('/v/vv2'), '/v/{a}v{b}')
  for (const path of ['/compare/...a', '/compare/a...', '/ohlc/a-to-.csv', '/v/v2']) t.equal(find(path), '', path)
  t.equal(findIn(['/v/{a}VS{b}'], { lenient: true })('/v/avsb'), '/v/{a}VS{b}')
  const began = performance.now()
  t.equal(find(`/compare/${'..'.repeat(100_000)}`.replace(/\.{3}/, 'x')), '/compare/{base}...{head}')
  t.equal(find(`/ohlc/${'-to'.repeat(100_000)}`), '')
  t.ok(performance.now() - began < 1000)
})

t.test('a template that ends in a star is one among others where it is more literal, and what is left where there are none', async t => {
  const find = findIn(['/files/{*}', '/{bucket}/{key}', '/a/b/*', '/{x}/{y}/{z}', '/{x}/c/{*}', '/d/{y}/{*}', '/*'])
  t.equal(find('/files/x'), '/{bucket}/{key} or /files/{*}')
  t.equal(find('/other/x'), '/{bucket}/{key}')
  t.equal(find('/a/b/c'), '/{x}/{y}/{z} or /a/b/*')
  t.equal(find('/files/x/y/z'), '/files/{*}')
  t.equal(find('/d/c/1/2'), '/{x}/c/{*} or /d/{y}/{*}')
  t.equal(find('/x'), '/*')
})

t.test('what a server does not know again may be what is a parameter there', async t => {
  const find = findIn(['/@me/keys/{id}', '/@me/{kind}/{id}', '/{user}/keys/{id}', '/{a}/{b}/{c}'])
  t.equal(find('/@me/keys/1'), '/@me/keys/{id}')
  t.equal(find('/%40me/keys/1'), '/@me/keys/{id} or /{user}/keys/{id} or /{a}/{b}/{c}')
  t.equal(find('/%40me/%6beys/1'), '/@me/keys/{id} or /{a}/{b}/{c}')
  t.equal(find('/@me/keys/%40'), '/@me/keys/{id}')
})

t.test('long paths take time that grows with their length alone', async t => {
  const find = findIn([...Array.from({ length: 1000 }, (_, i) => `/{a}/t${i}/{*}`), '/x/{*}'])
  const began = performance.now()
  t.equal(find(`/x${'/%41'.repeat(50_000)}`), '/x/{*}')
  t.ok(performance.now() - began < 2000)
})
