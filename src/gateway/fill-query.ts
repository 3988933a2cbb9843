import { fillDefaults, type Placement } from '../fill-defaults.js'
import { type SessionDefaultValues } from '../schemas/session.js'

/**
 * Appends the defaults that a query string leaves out, and leaves what it has as it is. A list is repeated; an object
 * goes as JSON.
 *
 * @param query what follows the question mark, as it was sent
 * @param jsonParameters those that go as JSON whatever they are
 */
export function fillQuery (query: string, values: SessionDefaultValues, placements: readonly Placement[], jsonParameters: ReadonlySet<string> = new Set()): { query: string, filled: Placement[] } {
  const target = Object.create(null) as Record<string, unknown>
  for (const name of new URLSearchParams(query).keys()) {
    target[name] = true
    // `chain[]=near` and `chain[0]=near` are ways to send `chain`.
    target[name.replace(/\[.*$/s, '')] = true
  }
  const sent = new Set(Object.keys(target))
  const filled = fillDefaults(target, values, placements)
  const added = Object.entries(target).filter(([name]) => !sent.has(name)).flatMap(([name, value]) => {
    const isJson = jsonParameters.has(name)
    return (isJson ? [value] : [value].flat()).map(item => `${encodeURIComponent(name)}=${encodeURIComponent(isJson || typeof item === 'object' ? JSON.stringify(item) : String(item))}`)
  })
  return { query: [...(query === '' ? [] : [query]), ...added].join('&'), filled }
}
