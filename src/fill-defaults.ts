import { type SessionDefaultValues } from './schemas/session.js'

/** A step from a value into it: a property's name, or each item of an array. */
export type PathStep = string | typeof eachItem

export const eachItem = Symbol('each item')

/** Where one of a session's values goes in a body or a query string. */
export interface Placement {
  /** The default's name. */
  name: string
  path: readonly PathStep[]
  /** The path as it was written: `network`, `options.privacy`, `transfers[].chain`. */
  at: string
}

/**
 * Where defaults go that do not go under their own name: a property's name, a dotted path to a nested one
 * (`options.privacy`), a path through each item of an array (`transfers[].chain`; `[].chain` where the body is one), or
 * several of these.
 */
export type SessionDefaultsMapping = Readonly<Record<string, string | readonly string[]>>

/**
 * Where each of the defaults goes, in the order of their names.
 *
 * @throws Error when a header could not name a default, or the mapping has a name that sessions do not hold, or a path that is none
 */
export function placementsOf (names: readonly string[], mapping: SessionDefaultsMapping = {}): Placement[] {
  const unspeakable = names.find(name => !/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name))
  if (unspeakable !== undefined) throw new Error(`The default ${JSON.stringify(unspeakable)} cannot be named in a header; use ASCII letters, digits and _`)
  for (const name of Object.keys(mapping)) {
    if (!names.includes(name)) throw new Error(`The option mapping names ${JSON.stringify(name)}, which sessions do not hold; they hold ${names.join(', ')}`)
  }
  return names.flatMap(name => [mapping[name] ?? name].flat().map(at => ({ name, at, path: parsePath(at) })))
}

function parsePath (at: string): PathStep[] {
  const steps = at.split('.').flatMap((segment, index) => {
    const [, name, items] = /^([^[\]]*)((?:\[\])*)$/.exec(segment) ?? []
    if (items === undefined || name === '__proto__' || (name === '' && (index > 0 || items === ''))) throw badPath(at)
    return [...(name === '' ? [] : [name!]), ...Array<PathStep>(items.length / 2).fill(eachItem)]
  })
  if (steps.at(-1) === eachItem) throw badPath(at)
  return steps
}

function badPath (at: string): Error {
  return new Error(`The option mapping has the path ${JSON.stringify(at)}; a path is like "network", "options.privacy" or "transfers[].chain"`)
}

/**
 * Fills in, in place, the values that the target leaves out. What it has stays, whatever its value: `false`, `0`, `""`
 * and `null` are what somebody meant. An object on the way to a nested property is made where there is none; items of
 * an array are not.
 *
 * @returns the placements that were filled in
 */
export function fillDefaults (target: unknown, values: SessionDefaultValues, placements: readonly Placement[]): Placement[] {
  const filled: Placement[] = []
  for (const placement of placements) {
    const { name, path } = placement
    if (Object.hasOwn(values, name) && fillPath(target, path, 0, values[name])) filled.push(placement)
  }
  return filled
}

function fillPath (target: unknown, path: readonly PathStep[], depth: number, value: unknown): boolean {
  const step = path[depth]!
  if (step === eachItem) {
    // Not some(): every item gets it.
    return Array.isArray(target) && target.filter(item => fillPath(item, path, depth + 1, value)).length > 0
  }
  // A parsed query string is of a class of its own.
  if (!isPlainObject(target) && (depth > 0 || !isObject(target) || Array.isArray(target))) return false
  const next = path[depth + 1]
  if (Object.hasOwn(target, step)) return next !== undefined && fillPath(target[step], path, depth + 1, value)
  if (next === undefined) {
    // In several places it is several values.
    target[step] = typeof value === 'object' ? structuredClone(value) : value
    return true
  }
  const created = {}
  const filled = fillPath(created, path, depth + 1, value)
  if (filled) target[step] = created
  return filled
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

/** Whether it is what JSON calls an object, as against an array, a stream or an instance of a class. */
function isPlainObject (value: unknown): value is Record<string, unknown> {
  if (!isObject(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
