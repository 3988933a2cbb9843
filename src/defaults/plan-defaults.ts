import { hasPath } from '../json-schema/has-path.js'
import { isJsonSchema } from '../json-schema/is-json-schema.js'
import type { GetSchema } from '../json-schema/references.js'
import type { Placement } from './fill-defaults.js'
import { essenceOf, isInRange } from './media-type.js'

/** Which of a session's values a route or an operation takes, and where. */
export interface DefaultsPlan {
  /** In a body of any type that it takes. */
  body: readonly Placement[]
  /** The same by media type or range, where its schema tells them apart. */
  bodyByType: ReadonlyMap<string, readonly Placement[]>
  query: readonly Placement[]
  /** Whether it describes neither: then it takes all values in its body. */
  undescribed: boolean
  /** Whether its schemas tell what they take, which those that are no JSON Schema do not. */
  isReadable: boolean
  /** What its schemas refer to and is not found, each once. */
  lost: readonly string[]
}

interface PlanOptions {
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
  const { content = {} } = (body ?? {}) as { content?: Record<string, unknown> }
  // Types that differ in their parameters alone are one: who sends none, or others, has to be given something as well.
  const essences = new Set(isJsonSchema(body) ? Object.keys(content).map(essenceOf) : [])
  const ofEssence = (essence: string) => ({ content: Object.fromEntries(Object.entries(content).filter(([type]) => essenceOf(type) === essence)) })
  return {
    body: undescribed ? placements : taken(body),
    bodyByType: new Map(Array.from(essences, essence => [essence, taken(ofEssence(essence))])),
    query: taken(query),
    undescribed,
    isReadable: isJsonSchema(body) && isJsonSchema(query),
    lost: [...lost]
  }
}

/** What goes into a body of a media type; into one that does not say it, as a body that is made is, what goes into JSON. */
export function bodyPlacements ({ body, bodyByType }: DefaultsPlan, mediaType = 'application/json'): readonly Placement[] {
  if (bodyByType.size === 0) return body
  // The type itself before a range, and a longer range before the shorter one.
  const ranges = [...bodyByType.keys()].filter(range => isInRange(mediaType, range)).sort((a, b) => b.length - a.length)
  return bodyByType.get(essenceOf(mediaType)) ?? bodyByType.get(ranges[0] ?? '') ?? body
}
