import { fillDefaults, type Placement } from '../defaults/fill-defaults.js'
import { validationError } from '../errors.js'
import type { SessionDefaultValues } from '../schemas/session.js'

/** Parameters that servers read at least: Express and PHP, by default, no more. */
const maxParameters = 1000

/** Stands for what was sent. */
const sentAlready = Symbol('sent already')

interface FillQueryOptions {
  /** Those that go as JSON whatever they are. */
  jsonParameters?: ReadonlySet<string>
  /** Those whose properties go by names of their own, such as `options[fast]`. */
  bracketed?: ReadonlySet<string>
  /**
   * What the parameters are of.
   * @default 'url'
   */
  of?: 'url' | 'body'
}

/**
 * Appends the defaults that a query string, or a form, which is written alike, leaves out, and leaves what it has as it is. A list
 * is repeated; an object goes as JSON. What some servers read as a parameter that would be filled in, and others do not, is refused.
 *
 * @param query what follows the question mark, or is the form, as it was sent
 * @throws VALIDATION_ERROR
 */
export function fillQuery (query: string, values: SessionDefaultValues, placements: readonly Placement[], { jsonParameters = new Set(), bracketed = new Set(), of = 'url' }: FillQueryOptions = {}): { query: string, filled: Placement[] } {
  const where = of === 'url' ? 'request' : 'body'
  const target = Object.create(null) as Record<string, unknown>
  const sent = new Set(new URLSearchParams(`?${query}`).keys())
  const unclear = new Map<string, string>()
  const addUnclear = (name: string) => {
    for (const meant of [baseOf(name), phpNameOf(name)]) unclear.set(meant, name)
  }
  for (const name of sent) {
    // Of `options[fast][]`, which is a way to send it, the property is `fast`.
    const [, base, property] = /^([^[]*)\[([^\]]*)\]/.exec(name) ?? []
    if (base !== undefined && bracketed.has(base)) {
      const properties = typeof target[base] === 'object' ? target[base] as object : Object.create(null) as object
      target[base] = Object.assign(properties, { [property!]: sentAlready })
    } else {
      target[name] = sentAlready
      addUnclear(name)
    }
  }
  for (const [name] of parametersOf(query)) {
    if (!sent.has(name)) addUnclear(name)
  }
  const filled = fillDefaults(target, values, placements)
  for (const { path: [base] } of filled) {
    const name = unclear.get(String(base)) ?? unclear.get(phpNameOf(String(base)))
    if (name !== undefined) throw validationError(where, [{ field: name.slice(0, 100), reason: `is ${String(base)} to some servers and not to others; send it as ${String(base)}, or send no X-Session-Id` }])
  }
  const added = Object.entries(target).flatMap(([name, value]) => namesOf(name, value, bracketed)).filter(([, value]) => value !== sentAlready).flatMap(([name, value]) => {
    const isJson = jsonParameters.has(name)
    return (isJson ? [value] : [value].flat()).map(item => `${encodeURIComponent(name)}=${encodeURIComponent(isJson || typeof item === 'object' ? JSON.stringify(item) : String(item))}`)
  })
  const parameters = [...(query === '' ? [] : query.split('&')), ...added]
  if (filled.length > 0 && parameters.length > maxParameters) {
    throw validationError(where, [{ field: of, reason: `has ${parameters.length}${of === 'url' ? ' query' : ''} parameters, with those that the session adds, and of more than ${maxParameters} servers leave out some; send fewer, or send no X-Session-Id` }])
  }
  return { query: parameters.join('&'), filled }
}

/** The parameters of a query string or a form: some servers separate them by semicolons as well. */
export function parametersOf (query: string): [name: string, value: string][] {
  // With its question mark: of what is given without one a second one would be taken for it.
  return [query, ...(query.includes(';') ? [query.replaceAll(';', '&')] : [])].flatMap(text => [...new URLSearchParams(`?${text}`)])
}

/** PHP writes blanks and dots of a name, and a bracket that is not closed, as `_`. */
function phpNameOf (name: string): string {
  const [, before, rest] = /^ *([^[]*)(.*)$/s.exec(name)!
  const base = rest!.includes(']') || rest === '' ? before! : `${before}_${rest!.slice(1)}`
  return base.replaceAll(/[. ]/g, '_')
}

/** `chain[]=near` and `chain[0]=near` are ways to send `chain`, and to some servers `[chain]`, ` chain`, `?chain` and `chain\0` are. */
export function baseOf (name: string): string {
  return name.replace(/^[\s[\]?]+/, '').replace(/[[\]\0].*$/s, '')
}

/** By which names a value goes: of an object whose properties go by their own, by those. */
function namesOf (name: string, value: unknown, bracketed: ReadonlySet<string>): [name: string, value: unknown][] {
  if (!bracketed.has(name) || typeof value !== 'object' || value === null) return [[name, value]]
  return Object.entries(value).map(([property, item]) => [`${name}[${property}]`, item])
}
