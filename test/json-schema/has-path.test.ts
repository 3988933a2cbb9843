import t from 'tap'
import { eachItem } from '../../src/defaults/fill-defaults.js'
import { hasPath } from '../../src/json-schema/has-path.js'

t.test('a reference that leads nowhere or in a circle has no properties of its own', async t => {
  const schemas: Record<string, unknown> = { a: { $ref: 'b#', properties: { x: {} } }, b: { $ref: 'a#', properties: { y: {} } } }
  const has = (schema: unknown, name: string) => hasPath(schema, [name], id => schemas[id])
  t.ok(has({ $ref: 'a#' }, 'x'))
  t.ok(has({ $ref: 'a#' }, 'y'))
  t.notOk(has({ $ref: 'a#' }, 'z'))
  t.notOk(has({ $ref: 'missing#' }, 'x'))
  t.notOk(has({ $ref: 'missing#/definitions/x' }, 'x'))
  t.ok(has({ $ref: '#/definitions/a~1b/c%20d', definitions: { 'a/b': { 'c d': { properties: { z: {} } } } } }, 'z'))
  t.ok(has({ $ref: '#/definitions/m', definitions: { m: { content: { 'application/json': { schema: { $ref: '#/definitions/n' } } } }, n: { properties: { x: {} } } } }, 'x'), 'behind a media type as well')
  t.notOk(has(undefined, 'x'))
  t.notOk(has({ properties: {} }, 'toString'), 'what every object has is no property')
})

t.test('a reference may name a schema in the document by its id or its anchor', async t => {
  const schemas: Record<string, unknown> = { shared: { $id: 'shared', definitions: { a: { $anchor: 'a', properties: { x: {} } } } } }
  const has = (schema: unknown, ...path: string[]) => hasPath(schema, path, id => schemas[id])
  const x = { properties: { x: {} } }
  t.ok(has({ $ref: 'in', $defs: { in: { $id: 'in', ...x } } }, 'x'))
  t.ok(has({ $ref: 'in#/definitions/b', $defs: [{ $id: 'in#', definitions: { b: x } }] }, 'x'))
  t.ok(has({ $ref: 'one', $defs: { one: { $id: 'one', properties: { o: { $ref: 'two' } } }, two: { $id: 'two', ...x } } }, 'o', 'x'), 'also from within another')
  t.ok(has({ $ref: '#t', definitions: { t: { $id: '#t', ...x } } }, 'x'))
  t.ok(has({ $ref: '#t%20u', definitions: { t: { $anchor: 't u', ...x } } }, 'x'))
  t.ok(has({ $ref: 'shared#a' }, 'x'))
  t.ok(has({ properties: { o: { $id: 'in', $ref: '#/definitions/b', definitions: { b: x } } } }, 'o', 'x'), 'what has an id is the root of what is in it')
  t.notOk(has({ $ref: '#u', definitions: { t: { $anchor: 't', ...x } } }, 'x'))
  t.notOk(has({ $ref: 'missing#u' }, 'x'))
})

t.test('a path leads through properties and items, wherever they are described', async t => {
  const schemas: Record<string, unknown> = { item: { anyOf: [{ properties: { chain: true } }, { type: 'null' }] } }
  const has = (schema: unknown, ...path: (string | typeof eachItem)[]) => hasPath(schema, path, id => schemas[id])
  const schema = { allOf: [{ properties: { list: { items: { $ref: 'item#' } }, options: { $ref: '#/definitions/options' } } }], definitions: { options: { properties: { level: {} } } } }
  t.ok(has(schema, 'list', eachItem, 'chain'))
  t.ok(has(schema, 'options', 'level'))
  t.notOk(has(schema, 'options', 'chain'))
  t.notOk(has(schema, 'list', 'chain'))
  t.notOk(has(schema, 'options', eachItem, 'level'))
  t.ok(has({ items: { properties: { chain: {} } } }, eachItem, 'chain'))
})

t.test('a dynamic or recursive reference leads to all that it may mean', async t => {
  const has = (schema: unknown, ...path: (string | typeof eachItem)[]) => hasPath(schema, path, () => undefined)
  const node = { $dynamicAnchor: 'node', properties: { chain: {} } }
  t.ok(has({ $dynamicRef: '#node', $defs: { node } }, 'chain'))
  t.ok(has({ $dynamicRef: '#node', $defs: { other: { $dynamicAnchor: 'node' }, node, last: { $dynamicAnchor: 'node' } } }, 'chain'))
  t.ok(has({ $dynamicRef: '#/$defs/plain', $defs: { plain: { properties: { chain: {} } } } }, 'chain'))
  t.ok(has({ $ref: '#node', $defs: { node } }, 'chain'), 'which a plain one names as well')
  t.notOk(has({ $dynamicRef: '#other', $defs: { node } }, 'chain'))
  t.ok(has({ properties: { chain: {}, steps: { items: { $recursiveRef: '#' } } } }, 'steps', eachItem, 'steps', eachItem, 'chain'))
  t.ok(has({ properties: { chain: {}, part: { $id: 'part', properties: { whole: { $recursiveRef: '#' } } } } }, 'part', 'whole', 'chain'))
})

t.test('items are described in any of their ways', async t => {
  const item = { properties: { chain: {} } }
  for (const list of [{ items: [{}, item] }, { prefixItems: [item] }, { items: [{}], additionalItems: item }, { unevaluatedItems: item }, { contains: item }, { elements: item }]) {
    t.ok(hasPath(list, [eachItem, 'chain'], () => undefined), JSON.stringify(list))
  }
})

t.test('what JTD refers to, or tells apart, is followed', async t => {
  const has = (schema: unknown) => hasPath(schema, ['chain'], () => undefined)
  const form = { optionalProperties: { chain: {} } }
  t.ok(has({ ref: 'form', definitions: { form } }))
  t.ok(has({ discriminator: 'kind', mapping: { other: {}, form } }))
  t.notOk(has({ ref: 'other', definitions: { form } }))
})

t.test('what is only answered, or never valid, is no property of a request', async t => {
  const schemas = { shared: { readOnly: true } } as Record<string, unknown>
  const has = (schema: unknown) => hasPath(schema, ['x'], id => schemas[id])
  for (const x of [false, { readOnly: true }, { not: {} }, { not: true }, { $ref: 'shared#' }, { allOf: [{}, { readOnly: true }] }, { $ref: '#/definitions/x', definitions: {} }]) {
    t.notOk(has({ properties: { x }, definitions: { x: { $ref: 'shared#' } } }), JSON.stringify(x))
  }
  for (const x of [true, { readOnly: false }, { not: { type: 'null' } }, { $ref: '#/properties/x' }, { allOf: {} }]) t.ok(has({ properties: { x } }), JSON.stringify(x))
  t.ok(has({ anyOf: [{ properties: { x: { readOnly: true } } }, { properties: { x: {} } }] }), 'if only in one way')
})

t.test('a discriminator means all schemas that are made of its own', async t => {
  const components = {
    schemas: {
      Base: { discriminator: { propertyName: 'kind' }, properties: { kind: {} } },
      Plain: { properties: { kind: {} } },
      Child: { allOf: [{ $ref: '#/components/schemas/Base' }, { properties: { chain: {} } }] },
      Grandchild: { allOf: [null, { $ref: '#/components/schemas/Child' }, { properties: { amount: {} } }] },
      Other: { allOf: [{ $ref: '#/components/schemas/Plain' }, { $ref: '#/components/schemas/none' }, { properties: { other: {} } }] },
      Circle: { allOf: [{ $ref: '#/components/schemas/Circle' }, { $ref: '#/components/schemas/Base' }] }
    }
  }
  const document = { components }
  const has = (schema: unknown, name: string) => hasPath(schema, [name], () => undefined, document)
  t.ok(has({ $ref: '#/components/schemas/Base' }, 'chain'))
  t.ok(has(components.schemas.Base, 'amount'))
  t.notOk(has(components.schemas.Base, 'other'))
  t.notOk(has(components.schemas.Plain, 'other'))
  for (const elsewhere of [{}, { components: null }, { components: { schemas: null } }]) t.notOk(hasPath(components.schemas.Base, ['chain'], () => undefined, elsewhere), 'in the document')
})

t.test('a reference within the document that leads nowhere is told of', async t => {
  const asked: string[] = []
  const ask = (id: string) => { asked.push(id) }
  hasPath({ allOf: [{ $ref: '#/definitions/none' }, { $ref: '#none' }, { $ref: '#/definitions/x' }], definitions: { x: {} } }, ['x'], ask)
  t.strictSame(asked, ['#/definitions/none', '#none'])
})

t.test('a property that applies on a condition is one, and what a condition asks about or a pattern allows is none', t => {
  const has = (schema: unknown, name: string) => hasPath(schema, [name], () => undefined)
  const x = { properties: { x: {} } }
  for (const keyword of ['allOf', 'anyOf', 'oneOf']) t.ok(has({ [keyword]: [{}, x] }, 'x'), keyword)
  t.ok(has({ discriminator: { propertyName: 'kind', mapping: { a: '#/components/schemas/A' } }, components: { schemas: { A: x } } }, 'x'))
  t.ok(has({ discriminator: { mapping: { a: 'A' } }, components: { schemas: { A: x } } }, 'x'))
  t.notOk(has({ discriminator: { mapping: { a: 'B' } }, components: { schemas: { A: x } } }, 'x'))
  t.ok(has({ if: {}, then: x }, 'x'))
  t.ok(has({ if: {}, else: { allOf: [x] } }, 'x'))
  t.ok(has({ dependentSchemas: { y: x } }, 'x'))
  t.ok(has({ dependencies: { y: x, z: ['y'] } }, 'x'))
  t.notOk(has({ if: x, then: {} }, 'x'))
  t.notOk(has({ patternProperties: { '^.*$': {} } }, 'x'))
  t.notOk(has({ additionalProperties: {} }, 'x'))
  t.notOk(has({ not: x }, 'x'))
  t.end()
})
