import type { TObject, TSchema } from '@sinclair/typebox'

// A symbol, because validators refuse keywords that they do not know, and a host may use the same schema in a route.
const marker = Symbol.for('sipher-sessions.secret')

/**
 * Marks a property of what sessions hold as secret: it is stored encrypted, answered and filled in where it is asked
 * for by name, and never put into headers. TypeBox's functions keep the mark; a copy by `structuredClone` or as JSON
 * loses it. A `Type.Ref` is not looked through: mark the reference itself.
 */
export function secret<T extends TSchema> (schema: T): T {
  return { ...schema, [marker]: true }
}

/**
 * Whether a property is secret: it is marked, or something in it is (a property of an object, the items of an array, a
 * part of a union), for it is stored and handed out as one value.
 */
function isSecret (schema: TSchema): boolean {
  return holdsMarker(schema, new Set())
}

/** The names of an object's properties that are secret: all of them where the object is marked. */
export function secretNames (object: TObject): string[] {
  return Object.keys(object.properties).filter(name => isMarked(object) || isSecret(object.properties[name]!))
}

function isMarked (value: object): boolean {
  return (value as { [marker]?: true })[marker] === true
}

function holdsMarker (value: unknown, visited: Set<unknown>): boolean {
  if (typeof value !== 'object' || value === null || visited.has(value)) return false
  visited.add(value)
  return isMarked(value) || Object.values(value).some(part => holdsMarker(part, visited))
}
