import { type Placement } from './fill-defaults.js'
import { hasPath, isJsonSchema, type GetSchema } from './schemas/properties.js'

/** Which of a session's values a route or an operation takes, and where. */
export interface DefaultsPlan {
  body: readonly Placement[]
  query: readonly Placement[]
  /** Whether it describes neither: then it takes all values in its body. */
  undescribed: boolean
  /** Whether its schemas tell what they take, which those that are no JSON Schema do not. */
  isReadable: boolean
  /** What its schemas refer to and is not found, each once. */
  lost: readonly string[]
}

export interface PlanOptions {
  /** The document that holds the schemas, where that is not each of them itself. */
  root?: unknown
  /**
   * What is taken where a schema does not tell, for it is no JSON Schema, or a reference in it leads nowhere.
   * @default all: a request must not go without what it would be given
   */
  untold?: readonly Placement[]
}

/** What takes the session's values by the schemas of its body and query string; undefined where it has none. */
export function planDefaults (placements: readonly Placement[], body: unknown, query: unknown, getSchema: GetSchema, { root, untold = placements }: PlanOptions = {}): DefaultsPlan {
  const lost = new Set<string>()
  let isLost: boolean
  const find = (id: string) => {
    const found = getSchema(id)
    if (found === undefined) {
      isLost = true
      lost.add(id)
    }
    return found
  }
  const taken = (schema: unknown) => isJsonSchema(schema)
    ? placements.filter(placement => {
      isLost = false
      return hasPath(schema, placement.path, find, root ?? schema) || (isLost && untold.includes(placement))
    })
    : untold
  const undescribed = body === undefined && query === undefined
  return {
    body: undescribed ? placements : taken(body),
    query: taken(query),
    undescribed,
    isReadable: isJsonSchema(body) && isJsonSchema(query),
    lost: [...lost]
  }
}
