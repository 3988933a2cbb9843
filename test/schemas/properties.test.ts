import t from 'tap'
import { propertyNames } from '../../src/schemas/properties.js'

t.test('a reference that leads nowhere or in a circle has no properties of its own', async t => {
  const schemas: Record<string, unknown> = { a: { $ref: 'b#', properties: { x: {} } }, b: { $ref: 'a#', properties: { y: {} } } }
  const names = (schema: unknown) => [...propertyNames(schema, id => schemas[id])]
  t.strictSame(names({ $ref: 'a#' }), ['y', 'x'])
  t.strictSame(names({ $ref: 'missing#' }), [])
  t.strictSame(names({ $ref: 'missing#/definitions/x' }), [])
  t.strictSame(names({ $ref: '#/definitions/a~1b/c%20d', definitions: { 'a/b': { 'c d': { properties: { z: {} } } } } }), ['z'])
  t.strictSame(names(undefined), [])
})
