import { decode } from '../decode.js'
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
 * `else`, and in what depends on other properties. Of a route's body that is declared by media type, each schema counts. What is
 * only answered (`readOnly`) is not spoken of.
 * What `if` asks about, and what a pattern of names allows, is not spoken of: a map of any names takes no defaults, unless somebody
 * has given them a place within it, as in `variables.chain`.
 *
 * @param root the document that holds the schema, where that is not the schema itself
 */
export function hasPath (schema: unknown, path: readonly PathStep[], getSchema: GetSchema, root: unknown = schema): boolean {
  let nodes: Node[] = [{ schema, root, document: root }]
  path.forEach((step, depth) => { nodes = nodes.flatMap(node => follow(node, step, getSchema, depth > 0)) })
  return nodes.some(node => !isForbidden(node, getSchema))
}

/** Whether requests are not to have it: it is only answered, or nothing is valid. */
function isForbidden ({ schema, root, document }: Node, getSchema: GetSchema, visited = new Set<unknown>()): boolean {
  if (!isObject(schema)) return schema === false
  if (visited.has(schema)) return false
  visited.add(schema)
  const { readOnly, not, $ref, allOf } = schema
  if (readOnly === true || not === true || (isObject(not) && Object.keys(not).length === 0)) return true
  if (typeof $ref === 'string' && isForbidden(resolveReference($ref, { root, document }, getSchema), getSchema, visited)) return true
  return Array.isArray(allOf) && allOf.some(part => isForbidden({ schema: part, root, document }, getSchema, visited))
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
function follow (node: Node, step: PathStep, getSchema: GetSchema, isWithin: boolean): Node[] {
  const found: Node[] = []
  const visited = new Set<unknown>()

  /** @param isPart whether others say what there may be as well */
  function visit ({ schema, root: outer, document }: Node, isPart = false): void {
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
      for (const item of [...lists, ...[schema.items, schema.additionalItems, schema.unevaluatedItems, schema.contains, schema.elements].filter(isSchemaObject)]) found.push({ schema: item, root, document })
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

const heirs = new WeakMap<object, ReadonlyMap<unknown, readonly unknown[]>>()

/** The schemas among the components of an OpenAPI document that are all of this one, and more. */
function heirsOf (schema: unknown, document: object): readonly unknown[] {
  let known = heirs.get(document)
  if (!known) {
    const { components } = document as { components?: unknown }
    const byBase = new Map<unknown, unknown[]>()
    for (const heir of isObject(components) && isObject(components.schemas) ? Object.values(components.schemas) : []) {
      for (const part of isObject(heir) && Array.isArray(heir.allOf) ? heir.allOf as unknown[] : []) {
        if (!isObject(part) || typeof part.$ref !== 'string') continue
        const { schema: base } = resolveReference(part.$ref, { root: document, document }, () => undefined)
        byBase.set(base, [...byBase.get(base) ?? [], heir])
      }
    }
    heirs.set(document, known = byBase)
  }
  const all = new Set<unknown>()
  const collect = (base: unknown) => {
    for (const heir of known.get(base) ?? []) {
      if (all.has(heir)) continue
      all.add(heir)
      collect(heir)
    }
  }
  collect(schema)
  return [...all]
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
 * @param getSchema is asked for what is nowhere in the document, by its whole reference where it should be within it
 */
export function resolveReference (reference: string, from: Pick<Node, 'root' | 'document'>, getSchema: GetSchema): Node {
  const [id = '', ...rest] = reference.split('#')
  const fragment = rest.join('#')
  const embedded = id === '' ? from.root : namedIn(from.document).byName.get(id)
  const root = embedded ?? getSchema(id)
  const document = embedded === undefined ? root : from.document
  let schema = root
  if (fragment !== '' && !fragment.startsWith('/')) schema = namedIn(root).byName.get(`#${decode(fragment)}`)
  else {
    for (const step of fragment.split('/').slice(1)) {
      if (!isObject(schema)) break
      schema = schema[decode(step).replaceAll('~1', '/').replaceAll('~0', '~')]
    }
  }
  if (schema === undefined && root !== undefined) {
    // A shared one may have such a name as a whole: `#shared`.
    const shared = getSchema(reference)
    if (isObject(shared)) return { schema: shared, root: shared, document: shared }
  }
  return { schema, root, document }
}

interface Names {
  /** By their `$id`s, and by their anchors with the number sign before. */
  byName: ReadonlyMap<string, unknown>
  /** By their dynamic anchors, with the number sign before. */
  dynamic: ReadonlyMap<string, readonly unknown[]>
}

const names = new WeakMap<object, Names>()

/** The schemas in a document that have a name of their own. */
function namedIn (document: unknown): Names {
  const byName = new Map<string, unknown>()
  const dynamic = new Map<string, unknown[]>()
  if (!isObject(document)) return { byName, dynamic }
  const known = names.get(document)
  if (known) return known
  const visited = new Set<unknown>()
  const visit = (value: unknown) => {
    if (!isObject(value) || visited.has(value)) return
    visited.add(value)
    const { $id, $anchor, $dynamicAnchor } = value
    if (typeof $id === 'string') byName.set($id.replace(/#$/, ''), value)
    if (typeof $anchor === 'string') byName.set(`#${$anchor}`, value)
    if (typeof $dynamicAnchor === 'string') {
      byName.set(`#${$dynamicAnchor}`, value)
      dynamic.set(`#${$dynamicAnchor}`, [...dynamic.get(`#${$dynamicAnchor}`) ?? [], value])
    }
    Object.values(value).forEach(visit)
  }
  visit(document)
  names.set(document, { byName, dynamic })
  return { byName, dynamic }
}

/** A schema, as against a list of such. */
function isSchemaObject (value: unknown): boolean {
  return isObject(value) && !Array.isArray(value)
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
