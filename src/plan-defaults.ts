import { type Placement } from './fill-defaults.js'
import { hasPath, type GetSchema } from './schemas/properties.js'

/** Which of a session's values a route or an operation takes, and where. */
export interface DefaultsPlan {
  body: readonly Placement[]
  query: readonly Placement[]
  /** Whether it describes neither: then it takes all values in its body. */
  undescribed: boolean
}

/** What takes the session's values by the schemas of its body and query string; undefined where it has none. */
export function planDefaults (placements: readonly Placement[], body: unknown, query: unknown, getSchema: GetSchema, root?: unknown): DefaultsPlan {
  const taken = (schema: unknown) => placements.filter(({ path }) => hasPath(schema, path, getSchema, root ?? schema))
  const undescribed = body === undefined && query === undefined
  return { body: undescribed ? placements : taken(body), query: taken(query), undescribed }
}
