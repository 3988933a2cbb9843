import t from 'tap'
import { eachItem } from '../../src/fill-defaults.js'
import { hasPath } from '../../src/schemas/properties.js'

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
