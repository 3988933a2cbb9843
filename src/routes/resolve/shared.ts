import { type TObject } from '@sinclair/typebox'
import { Type } from '@fastify/type-provider-typebox'
import { isSecret } from '../../schemas/secret.js'
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
  return Object.entries(defaults.properties).filter(([, schema]) => !isSecret(schema)).map(([name]) => name)
}
