/** Finds a shared schema by its `$id`, as Fastify's `getSchema` does. */
export type GetSchema = (id: string) => unknown

/**
 * The names of the properties that a JSON Schema speaks of: its own, those of schemas it refers to (shared ones and
 * its own definitions), and those of the parts of `allOf`, `anyOf` and `oneOf`. For a route's body that is declared
 * by media type, those of each.
 */
export function propertyNames (schema: unknown, getSchema: GetSchema): Set<string> {
  const names = new Set<string>()
  const visited = new Set<unknown>()

  function visit (node: unknown, root: unknown): void {
    if (!isObject(node) || visited.has(node)) return
    visited.add(node)
    if (typeof node.$ref === 'string') {
      const target = resolveReference(node.$ref, root, getSchema)
      visit(target?.node, target?.root)
    }
    if (isObject(node.properties)) {
      for (const name of Object.keys(node.properties)) names.add(name)
    }
    for (const keyword of ['allOf', 'anyOf', 'oneOf']) {
      const parts = node[keyword]
      if (Array.isArray(parts)) parts.forEach(part => visit(part, root))
    }
    if (isObject(node.content)) {
      for (const media of Object.values(node.content)) {
        if (isObject(media)) visit(media.schema, media.schema)
      }
    }
  }

  visit(schema, schema)
  return names
}

function resolveReference (reference: string, root: unknown, getSchema: GetSchema): { node: unknown, root: unknown } | null {
  const [id, ...fragment] = reference.split('#')
  const document = id === '' ? root : getSchema(id!)
  let node = document
  for (const step of fragment.join().split('/').slice(1)) {
    if (!isObject(node)) return null
    node = node[decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')]
  }
  return { node, root: document }
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
