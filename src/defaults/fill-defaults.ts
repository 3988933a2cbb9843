import { isRecord } from '../is-object.js'
import type { SessionDefaultValues } from '../schemas/session.js'
import { isFillable } from './request-body.js'

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
 * @throws Error when a header could not name a default, or the mapping has a name that sessions do not hold, a path that is none,
 * or two names in one place
 */
export function placementsOf (names: readonly string[], mapping: SessionDefaultsMapping = {}): Placement[] {
  const unspeakable = names.find(name => !/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name))
  if (unspeakable !== undefined) throw new Error(`The default ${JSON.stringify(unspeakable)} cannot be named in a header; use ASCII letters, digits and _`)
  for (const name of Object.keys(mapping)) {
    if (!names.includes(name)) throw new Error(`The option mapping names ${JSON.stringify(name)}, which sessions do not hold; they hold ${names.join(', ')}`)
  }
  const placements = names.flatMap(name => Object.hasOwn(mapping, name)
    ? [mapping[name]!].flat().map(at => ({ name, at, path: parsePath(at) }))
    : [{ name, at: name, path: ownPath(name) }])
  for (const [i, { name, at, path }] of placements.entries()) {
    // One within another is what different routes may have.
    const other = placements.slice(0, i).find(placement => placement.name !== name && isSame(placement.path, path))
    if (other) throw new Error(`The option mapping has ${other.name} and ${name} in the same place, ${at}; give each a place of its own`)
  }
  return placements
}

function isSame (these: readonly PathStep[], those: readonly PathStep[]): boolean {
  return these.length === those.length && these.every((step, i) => step === those[i])
}

/** A name of its own is no path, whatever it has in it. */
function ownPath (name: string): PathStep[] {
  return name === '__proto__' ? parsePath(name) : [name]
}

function parsePath (at: unknown): PathStep[] {
  if (typeof at !== 'string') throw badPath(at)
  const steps = at.split('.').flatMap((segment, index) => {
    const [, name, items] = /^([^[\]]*)((?:\[\])*)$/.exec(segment) ?? []
    if (items === undefined || name === '__proto__' || (name === '' && (index > 0 || items === ''))) throw badPath(at)
    return [...(name === '' ? [] : [name!]), ...Array<PathStep>(items.length / 2).fill(eachItem)]
  })
  if (steps.at(-1) === eachItem) throw badPath(at)
  return steps
}

function badPath (at: unknown): Error {
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
  if (placements.length === 0) return []
  // A parsed query string is of a class of its own.
  const isOpen = isRecord(target)
  const filled: Placement[] = []
  for (const placement of placements) {
    const { name, path } = placement
    if (!Object.hasOwn(values, name)) continue
    // Most go under a name at the top, for which there is no place to look for.
    const isFilled = path.length === 1
      ? isOpen && setMissing(target, path[0] as string, values[name])
      : fillPath(target, path, 0, values[name])
    if (isFilled) filled.push(placement)
  }
  return filled
}

function setMissing (target: Record<string, unknown>, property: string, value: unknown): boolean {
  if (has(target, property)) return false
  // In several places it is several values.
  target[property] = typeof value === 'object' ? structuredClone(value) : value
  return true
}

/** Whether it was sent. Of an instance of a class its prototype may have it. */
function has (target: Record<string, unknown>, property: string): boolean {
  return Object.hasOwn(target, property) || (property in target && !(property in Object.prototype) && target[property] !== undefined)
}

function fillPath (target: unknown, path: readonly PathStep[], depth: number, value: unknown): boolean {
  const step = path[depth]!
  if (step === eachItem) {
    // Not some(): every item gets it.
    return Array.isArray(target) && target.filter(item => fillPath(item, path, depth + 1, value)).length > 0
  }
  if (!isRecord(target) || (depth > 0 && !isFillable(target))) return false
  if (depth === path.length - 1) return setMissing(target, step, value)
  if (has(target, step)) return fillPath(target[step], path, depth + 1, value)
  const created = {}
  const filled = fillPath(created, path, depth + 1, value)
  if (filled) target[step] = created
  return filled
}
