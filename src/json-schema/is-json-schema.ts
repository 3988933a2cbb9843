import { isObject } from '../is-object.js'

/** The keywords of JSON Schema, OpenAPI and JTD, and Fastify's `content`: a schema that has none of them is another library's. */
const keywords = new Set([
  '$id', '$ref', '$schema', '$anchor', '$dynamicAnchor', '$dynamicRef', '$recursiveRef', '$vocabulary', '$defs', 'definitions', '$comment',
  'type', 'enum', 'const', 'nullable', 'allOf', 'anyOf', 'oneOf', 'not', 'if', 'then', 'else', 'discriminator', 'content',
  'properties', 'patternProperties', 'additionalProperties', 'unevaluatedProperties', 'propertyNames', 'required', 'minProperties', 'maxProperties',
  'dependencies', 'dependentSchemas', 'dependentRequired',
  'items', 'prefixItems', 'additionalItems', 'unevaluatedItems', 'contains', 'minContains', 'maxContains', 'minItems', 'maxItems', 'uniqueItems',
  'minLength', 'maxLength', 'pattern', 'format', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf',
  'contentEncoding', 'contentMediaType', 'contentSchema',
  'title', 'description', 'default', 'examples', 'example', 'deprecated', 'readOnly', 'writeOnly', 'xml', 'externalDocs',
  'optionalProperties', 'elements', 'values', 'ref', 'metadata'
])

/**
 * Whether a value can be read as JSON Schema, as against a schema of another library: those are functions or instances of a class, have
 * such in them, or say by `~standard` that they are one.
 */
export function isJsonSchema (schema: unknown): boolean {
  if (schema === undefined || typeof schema === 'boolean') return true
  if (!isPlain(schema) || '~standard' in schema || isOfAnotherKind(schema)) return false
  if (isObject(schema.content)) return Object.values(schema.content).every(media => !isObject(media) || isJsonSchema(media.schema))
  return Object.values(schema).every(value => typeof value !== 'function' && (!isObject(value) || Array.isArray(value) || isPlain(value)))
}

/** Whether none of its keywords says what there may be, or one of a dialect does that is not followed. */
function isOfAnotherKind (schema: Record<string, unknown>): boolean {
  const keys = Object.keys(schema)
  return keys.some(key => key === '$merge' || key === '$patch') || (keys.length > 0 && !keys.some(key => keywords.has(key) || key.startsWith('x-')))
}

function isPlain (value: unknown): value is Record<string, unknown> {
  return isObject(value) && [Object.prototype, null].includes(Object.getPrototypeOf(value) as object | null)
}
