import { eachItem, type PathStep } from '../fill-defaults.js'

/** Finds a shared schema by its `$id`, as Fastify's `getSchema` does. */
export type GetSchema = (id: string) => unknown

/** A schema and the document that its local references (`#/…`) are resolved in. */
interface Node {
  schema: unknown
  root: unknown
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
  let nodes: Node[] = [{ schema, root }]
  for (const step of path) nodes = nodes.flatMap(node => follow(node, step, getSchema))
  return nodes.length > 0
}

function follow (node: Node, step: PathStep, getSchema: GetSchema): Node[] {
  const found: Node[] = []
  const visited = new Set<unknown>()

  function visit ({ schema, root }: Node): void {
    if (!isObject(schema) || visited.has(schema)) return
    visited.add(schema)
    if (typeof schema.$ref === 'string') visit(resolveReference(schema.$ref, root, getSchema))
    if (step === eachItem) {
      if (isObject(schema.items)) found.push({ schema: schema.items, root })
    } else if (isObject(schema.properties) && Object.hasOwn(schema.properties, step)) {
      found.push({ schema: schema.properties[step], root })
    }
    for (const keyword of ['allOf', 'anyOf', 'oneOf']) {
      const parts = schema[keyword]
      if (Array.isArray(parts)) parts.forEach(part => visit({ schema: part, root }))
    }
    for (const keyword of ['then', 'else']) visit({ schema: schema[keyword], root })
    for (const keyword of ['dependencies', 'dependentSchemas']) {
      const dependents = schema[keyword]
      if (isObject(dependents)) Object.values(dependents).forEach(part => visit({ schema: part, root }))
    }
    if (isObject(schema.content)) {
      for (const media of Object.values(schema.content)) {
        if (isObject(media)) visit({ schema: media.schema, root: root === schema ? media.schema : root })
      }
    }
  }

  visit(node)
  return found
}

export function resolveReference (reference: string, root: unknown, getSchema: GetSchema): Node {
  const [id, ...fragment] = reference.split('#')
  const document = id === '' ? root : getSchema(id!)
  let schema = document
  for (const step of fragment.join().split('/').slice(1)) {
    if (!isObject(schema)) break
    schema = schema[decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')]
  }
  return { schema, root: document }
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
