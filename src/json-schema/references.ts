import { decode } from '../decode.js'
import { isObject } from '../is-object.js'

/** Finds a shared schema by its `$id`, as Fastify's `getSchema` does. */
export type GetSchema = (id: string) => unknown

/** A schema, what its local references (`#/…`) are resolved in, and the document of both, whose ids it may refer to. */
export interface SchemaNode {
  schema: unknown
  root: unknown
  document: unknown
}

/**
 * What a reference leads to: a JSON pointer (`#/…`), an anchor (`#name`) or a whole schema, by the `$id` of one that is embedded in the
 * document, as TypeBox's modules have them, or of a shared one.
 *
 * @param from the root and the document of the schema that refers
 * @param getSchema is asked for what is nowhere in the document, by its whole reference where it should be within it
 */
export function resolveReference (reference: string, from: Pick<SchemaNode, 'root' | 'document'>, getSchema: GetSchema): SchemaNode {
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
export function namedIn (document: unknown): Names {
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

const heirs = new WeakMap<object, ReadonlyMap<unknown, readonly unknown[]>>()

/** The schemas among the components of an OpenAPI document that are all of this one, and more. */
export function heirsOf (schema: unknown, document: object): readonly unknown[] {
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
export function mapped (name: string): string {
  return /[#./]/.test(name) ? name : `#/components/schemas/${name}`
}
