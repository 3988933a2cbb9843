import { type TSchema } from '@sinclair/typebox'

// A symbol, because validators refuse keywords that they do not know, and a host may use the same schema in a route.
const marker = Symbol.for('sipher-sessions.secret')

/**
 * Marks a property of what sessions hold as secret: it is answered and filled in where it is asked for by name, and
 * never put into headers.
 */
export function secret<T extends TSchema> (schema: T): T {
  return { ...schema, [marker]: true }
}

export function isSecret (schema: TSchema): boolean {
  return (schema as { [marker]?: true })[marker] === true
}
