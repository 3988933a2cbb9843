import { eachItem, type PathStep } from '../defaults/fill-defaults.js'
import { isObject, isRecord } from '../is-object.js'
import { heirsOf, mapped, namedIn, resolveReference, type GetSchema, type SchemaNode } from './references.js'

/**
 * Whether a JSON Schema speaks of the property at a path: in its own properties and items, in those of schemas that
 * it refers to (shared ones and its document's own), and in the parts of `allOf`, `anyOf` and `oneOf`, in `then` and
 * `else`, and in what depends on other properties. Of a route's body that is declared by media type, each schema counts. What is
 * only answered (`readOnly`) is not spoken of.
 * What `if` asks about, and what a pattern of names allows, is not spoken of: a map of any names takes no defaults, unless somebody
 * has given them a place within it, as in `variables.chain`.
 *
 * @param root the document that holds the schema, where that is not the schema itself
 */
export function hasPath (schema: unknown, path: readonly PathStep[], getSchema: GetSchema, root: unknown = schema): boolean {
  let nodes: SchemaNode[] = [{ schema, root, document: root }]
  path.forEach((step, depth) => { nodes = nodes.flatMap(node => follow(node, step, getSchema, depth > 0)) })
  return nodes.some(node => !isForbidden(node, getSchema))
}

/** Whether requests are not to have it: it is only answered, or nothing is valid. */
function isForbidden ({ schema, root, document }: SchemaNode, getSchema: GetSchema, visited = new Set<unknown>()): boolean {
  if (!isObject(schema)) return schema === false
  if (visited.has(schema)) return false
  visited.add(schema)
  const { readOnly, not, $ref, allOf } = schema
  if (readOnly === true || not === true || (isObject(not) && Object.keys(not).length === 0)) return true
  if (typeof $ref === 'string' && isForbidden(resolveReference($ref, { root, document }, getSchema), getSchema, visited)) return true
  return Array.isArray(allOf) && allOf.some(part => isForbidden({ schema: part, root, document }, getSchema, visited))
}

/** What is in a map of any names, and a list of anything. */
const anything = { type: ['object', 'array'] }

/** Keywords by which a schema says what there may be in it; the last line is JTD's. */
const describing = [
  'properties', 'patternProperties', 'propertyNames', 'maxProperties', 'dependencies', 'dependentSchemas', 'unevaluatedProperties',
  'items', 'prefixItems', 'contains', 'maxItems', 'unevaluatedItems', 'const', 'enum',
  '$ref', '$dynamicRef', '$recursiveRef', 'allOf', 'anyOf', 'oneOf', 'not', 'if',
  'format', 'pattern', 'minLength', 'maxLength', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf',
  'optionalProperties', 'elements', 'values', 'ref', 'discriminator'
]

/** Whether it is a map of any names, or a list of anything, or may be one. */
function isOpen (schema: Record<string, unknown>, step: PathStep): boolean {
  const { patternProperties, additionalProperties = true, ...rest } = schema
  const type = step === eachItem ? 'array' : 'object'
  const others = withAnyName(patternProperties) ?? additionalProperties
  const isAnything = others === true || (isObject(others) && Object.keys(others).length === 0)
  // What needs other properties is not made for one that it has room for.
  const isMap = isAnything && patternProperties === undefined && schema.type !== undefined
  const isFree = schema.required === undefined && schema.minProperties === undefined
  return isUndescribed(rest) && isOf(schema, type) && (isMap || (isFree && (isAnything || (isObject(others) && isOf(others, 'string') && isUndescribed(others)))))
}

/** What properties are that may have any name: TypeBox has a pattern for these in its records. */
function withAnyName (patternProperties: unknown): unknown {
  if (!isObject(patternProperties)) return patternProperties
  const [[pattern, schema] = [], ...others] = Object.entries(patternProperties)
  return others.length === 0 && /^\^(?:\.\*|\(\.\*\))\$$/.test(String(pattern)) ? schema : false
}

function isOf ({ type = [] }: Record<string, unknown>, wanted: string): boolean {
  const types = [type].flat()
  return types.length === 0 || types.includes(wanted)
}

function isUndescribed (schema: Record<string, unknown>): boolean {
  return describing.every(keyword => schema[keyword] === undefined)
}

/** @param isWithin whether the path has led into something */
function follow (node: SchemaNode, step: PathStep, getSchema: GetSchema, isWithin: boolean): SchemaNode[] {
  const found: SchemaNode[] = []
  const visited = new Set<unknown>()

  /** @param isPart whether others say what there may be as well */
  function visit ({ schema, root: outer, document }: SchemaNode, isPart = false): void {
    if (!isObject(schema) || visited.has(schema)) return
    visited.add(schema)
    const root = typeof schema.$id === 'string' && !schema.$id.startsWith('#') ? schema : outer
    if (isWithin && !isPart && isOpen(schema, step)) found.push({ schema: anything, root, document })
    if (typeof schema.$ref === 'string') visit(resolveReference(schema.$ref, { root, document }, getSchema), isPart)
    if (typeof schema.$dynamicRef === 'string') {
      visit(resolveReference(schema.$dynamicRef, { root, document }, getSchema))
      // Which of them it is depends on the schemas that lead here.
      for (const target of namedIn(document).dynamic.get(schema.$dynamicRef) ?? []) visit({ schema: target, root, document })
    }
    if (typeof schema.$recursiveRef === 'string') for (const target of [root, document]) visit({ schema: target, root, document })
    // The references of JTD (RFC 8927), which Fastify's validator reads where it is told to.
    if (typeof schema.ref === 'string' && isObject(root) && isObject(root.definitions)) visit({ schema: root.definitions[schema.ref], root, document })
    if (step === eachItem) {
      const lists = [schema.items, schema.prefixItems].filter(Array.isArray).flat()
      for (const item of [...lists, ...[schema.items, schema.additionalItems, schema.unevaluatedItems, schema.contains, schema.elements].filter(isRecord)]) found.push({ schema: item, root, document })
    } else {
      // The second is JTD's.
      for (const properties of [schema.properties, schema.optionalProperties]) {
        if (isObject(properties) && Object.hasOwn(properties, step)) found.push({ schema: properties[step], root, document })
      }
    }
    for (const keyword of ['allOf', 'anyOf', 'oneOf']) {
      const parts = schema[keyword]
      if (Array.isArray(parts)) parts.forEach(part => visit({ schema: part, root, document }, true))
    }
    for (const keyword of ['then', 'else']) visit({ schema: schema[keyword], root, document }, true)
    for (const keyword of ['dependencies', 'dependentSchemas']) {
      const dependents = schema[keyword]
      if (isObject(dependents)) Object.values(dependents).forEach(part => visit({ schema: part, root, document }, true))
    }
    // Of OpenAPI: which of the schemas it is that refer to this one, or are mapped. Of JTD: one of these.
    if (isObject(schema.discriminator)) {
      const { mapping } = schema.discriminator
      for (const name of isObject(mapping) ? Object.values(mapping) : []) visit(resolveReference(mapped(String(name)), { root, document }, getSchema))
      for (const heir of heirsOf(schema, document as object)) visit({ schema: heir, root, document })
    } else if (typeof schema.discriminator === 'string' && isObject(schema.mapping)) {
      Object.values(schema.mapping).forEach(part => visit({ schema: part, root, document }))
    }
    if (isObject(schema.content)) {
      for (const media of Object.values(schema.content)) {
        if (isObject(media)) visit(root === schema ? { schema: media.schema, root: media.schema, document: media.schema } : { schema: media.schema, root, document })
      }
    }
  }

  visit(node)
  return found
}
