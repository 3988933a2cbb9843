import type { TObject } from '@sinclair/typebox'
import { Type } from '@fastify/type-provider-typebox'
import { secretNames } from '../../schemas/secret.js'
import { exampleSessionId } from '../../schemas/session.js'

export interface ResolveRouteOptions {
  defaults: TObject
}

/** Unread here: what is wrong with the header has been answered before validation. */
export const SessionHeader = Type.Object({
  'X-Session-Id': Type.Optional(Type.String({ description: 'The session whose defaults are asked for.', examples: [exampleSessionId] }))
})

/** The names of the defaults that go wherever nobody has asked for a secret one. */
export function plainNames (defaults: TObject): string[] {
  const secret = secretNames(defaults)
  return Object.keys(defaults.properties).filter(name => !secret.includes(name))
}
