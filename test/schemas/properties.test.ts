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
