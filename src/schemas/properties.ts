import { eachItem, type PathStep } from '../fill-defaults.js'

/** Finds a shared schema by its `$id`, as Fastify's `getSchema` does. */
export type GetSchema = (id: string) => unknown

/** A schema, what its local references (`#/…`) are resolved in, and the document of both, whose ids it may refer to. */
interface Node {
  schema: unknown
  root: unknown
  document: unknown
}

/**
 * Whether a JSON Schema speaks of the property at a path: in its own properties and items, in those of schemas that
 * it refers to (shared ones and its document's own), and in the parts of `allOf`, `anyOf` and `oneOf`, in `then` and
 * `else`, and in what depends on other properties. Of a route's body that is declared by media type, each schema counts.
 * What `if` asks about, and what a pattern of names allows, is not spoken of: a map of any names takes no defaults.
 *
 * @param root the document that holds the schema, where that is not the schema itself
 */
export function hasPath (schema: unknown, path: readonly PathStep[], getSchema: GetSchema, root: unknown = schema): boolean {
  let nodes: Node[] = [{ schema, root, document: root }]
  for (const step of path) nodes = nodes.flatMap(node => follow(node, step, getSchema))
  return nodes.length > 0
}

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

function follow (node: Node, step: PathStep, getSchema: GetSchema): Node[] {
  const found: Node[] = []
  const visited = new Set<unknown>()

  function visit ({ schema, root: outer, document }: Node): void {
    if (!isObject(schema) || visited.has(schema)) return
    visited.add(schema)
    const root = typeof schema.$id === 'string' && !schema.$id.startsWith('#') ? schema : outer
    if (typeof schema.$ref === 'string') visit(resolveReference(schema.$ref, { root, document }, getSchema))
    if (step === eachItem) {
      if (isObject(schema.items)) found.push({ schema: schema.items, root, document })
    } else {
      // The second is JTD's (RFC 8927), which Fastify's validator reads where it is told to.
      for (const properties of [schema.properties, schema.optionalProperties]) {
        if (isObject(properties) && Object.hasOwn(properties, step)) found.push({ schema: properties[step], root, document })
      }
    }
    for (const keyword of ['allOf', 'anyOf', 'oneOf']) {
      const parts = schema[keyword]
      if (Array.isArray(parts)) parts.forEach(part => visit({ schema: part, root, document }))
    }
    for (const keyword of ['then', 'else']) visit({ schema: schema[keyword], root, document })
    for (const keyword of ['dependencies', 'dependentSchemas']) {
      const dependents = schema[keyword]
      if (isObject(dependents)) Object.values(dependents).forEach(part => visit({ schema: part, root, document }))
    }
    // Of OpenAPI: which of the schemas it is that refer to this one.
    if (isObject(schema.discriminator) && isObject(schema.discriminator.mapping)) {
      for (const name of Object.values(schema.discriminator.mapping)) visit(resolveReference(mapped(String(name)), { root, document }, getSchema))
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

/** The reference that a discriminator's mapping means: it may be the name of a schema alone. */
function mapped (name: string): string {
  return /[#./]/.test(name) ? name : `#/components/schemas/${name}`
}

/**
 * What a reference leads to: a JSON pointer (`#/…`), an anchor (`#name`) or a whole schema, by the `$id` of one that is embedded in the
 * document, as TypeBox's modules have them, or of a shared one.
 *
 * @param from the root and the document of the schema that refers
 */
export function resolveReference (reference: string, from: Pick<Node, 'root' | 'document'>, getSchema: GetSchema): Node {
  const [id = '', ...rest] = reference.split('#')
  const fragment = rest.join('#')
  const embedded = id === '' ? from.root : namedIn(from.document).get(id)
  const root = embedded ?? getSchema(id)
  const document = embedded === undefined ? root : from.document
  if (fragment !== '' && !fragment.startsWith('/')) return { schema: namedIn(root).get(`#${decodeURIComponent(fragment)}`), root, document }
  let schema = root
  for (const step of fragment.split('/').slice(1)) {
    if (!isObject(schema)) break
    schema = schema[decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')]
  }
  return { schema, root, document }
}

const names = new WeakMap<object, ReadonlyMap<string, unknown>>()

/** The schemas in a document that have a name of their own, by their `$id`s, and by their anchors with the number sign before. */
function namedIn (document: unknown): ReadonlyMap<string, unknown> {
  if (!isObject(document)) return new Map()
  const known = names.get(document)
  if (known) return known
  const named = new Map<string, unknown>()
  const visited = new Set<unknown>()
  const visit = (value: unknown) => {
    if (!isObject(value) || visited.has(value)) return
    visited.add(value)
    const { $id, $anchor } = value
    if (typeof $id === 'string') named.set($id.replace(/#$/, ''), value)
    if (typeof $anchor === 'string') named.set(`#${$anchor}`, value)
    Object.values(value).forEach(visit)
  }
  visit(document)
  names.set(document, named)
  return named
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
