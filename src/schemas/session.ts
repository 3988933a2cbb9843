import { Type, TypeGuard, type Static, type TObject, type TProperties, type TSchema } from '@sinclair/typebox'
import { successOf } from './envelope.js'
import { secret } from './secret.js'
import { stringEnum } from './string-enum.js'
import { timestamp } from './timestamp.js'

const chains = [
  'solana', 'ethereum', 'polygon', 'arbitrum', 'optimism', 'base', 'near', 'aptos', 'sui', 'cosmos', 'osmosis',
  'injective', 'celestia', 'sei', 'dydx', 'bitcoin', 'zcash'
] as const

/** The parameters that a session can hold unless the host gives a schema of its own. */
export const presetDefaults = Type.Object({
  chain: Type.Optional(stringEnum(chains, { description: 'The chain to act on.', examples: ['near'] })),
  privacyLevel: Type.Optional(stringEnum(['standard', 'shielded', 'maximum'], {
    description: 'How much of a transaction is hidden.',
    examples: ['shielded']
  })),
  rpcProvider: Type.Optional(stringEnum(['helius', 'quicknode', 'triton', 'generic'], {
    description: 'The provider through which the chain is reached.',
    examples: ['helius']
  })),
  backend: Type.Optional(stringEnum(['sip-native'], { description: 'The privacy backend.', examples: ['sip-native'] })),
  defaultViewingKey: Type.Optional(secret(Type.String({
    description: 'The viewing key to use where a request names none: 0x and at most 512 bytes of hex.',
    pattern: '^0x[0-9a-fA-F]+$',
    maxLength: 2 + 2 * 512,
    examples: ['0x7f2c9a41d05be38816c4']
  })))
}, { additionalProperties: false })

export const sessionIdPattern = /^sess_[0-9a-f]{64}$/

export const exampleSessionId = 'sess_0193a5c8b6e0f41d7c9a2be85360d4f7182c6b9e0a35d7f1482e9b6c03d5a7f8'

export const SessionId = Type.String({
  pattern: sessionIdPattern.source,
  description: 'The session\'s id, as createSession answered it.',
  examples: [exampleSessionId]
})

export const SessionParams = Type.Object({ id: SessionId })

/** What a session holds, as code that does not know the host's schema sees it. */
export type SessionDefaultValues = Record<string, unknown>

/**
 * Where a host whose sessions hold something else than the preset says so, for `request.sessionDefaults` to have its
 * types:
 *
 * ```ts
 * declare module 'sipher-sessions' {
 *   interface SessionTypes { defaults: typeof myDefaults }
 * }
 * ```
 */
export interface SessionTypes {}

/** What a session holds, by the host's TypeBox object or the preset: each property may be missing. */
export type SessionDefaults = Partial<Static<SessionTypes extends { defaults: infer Defaults extends TObject } ? Defaults : typeof presetDefaults>>

export const ttlSeconds = { minimum: 60, maximum: 86_400, default: 3600 } as const

/**
 * The named schemas of the four session operations, around the schema of the defaults that sessions hold.
 *
 * The names are those that clients generated from the contract know.
 *
 * @param defaults what a session can hold; it is closed here, and so are the objects in it that do not say themselves
 * whether they take additional properties
 */
export function createSessionSchemas (defaults: TObject) {
  const properties = close(defaults).properties as TProperties
  const closed = Type.Object(properties, {
    $id: 'SessionDefaults',
    additionalProperties: false,
    description: 'Parameters that are filled into every request that names the session and leaves them out.'
  })
  const Defaults = Type.Unsafe<SessionDefaultValues>(Type.Ref('SessionDefaults'))
  const example = exampleOf(defaults)
  const patch = example && Object.fromEntries(Object.entries(example).slice(0, 1))
  const times = { createdAt: 1789551600000, expiresAt: 1789555200000, lastAccessedAt: 1789552800000 }
  const createdAt = timestamp('When the session was created.', times.createdAt)
  const expiresAt = timestamp('When the session ends; fixed at creation.', times.expiresAt)
  const lastAccessedAt = timestamp('When the owner last used the session, exact to a minute.', times.lastAccessedAt)
  const sessionId = exampleSessionId
  const component = <const I extends string>($id: I, data: object) => ({
    $id,
    ...(!('defaults' in data && data.defaults === undefined) && { examples: [{ success: true, data }] })
  })

  return {
    SessionDefaults: closed,
    CreateSessionRequest: Type.Object({
      defaults: Defaults,
      ttlSeconds: Type.Optional(Type.Integer({
        ...ttlSeconds,
        description: 'Time to live, in seconds.',
        examples: [3600]
      }))
    }, {
      $id: 'CreateSessionRequest',
      additionalProperties: false,
      ...(example && { examples: [{ defaults: example, ttlSeconds: 3600 }] })
    }),
    CreateSession201Response: successOf(
      Type.Object({ sessionId: SessionId, defaults: Defaults, createdAt, expiresAt }, { additionalProperties: false }),
      component('CreateSession201Response', { sessionId, defaults: example, createdAt: times.createdAt, expiresAt: times.expiresAt })
    ),
    GetSession200Response: successOf(
      Type.Object({ sessionId: SessionId, defaults: Defaults, createdAt, expiresAt, lastAccessedAt }, { additionalProperties: false }),
      component('GetSession200Response', { sessionId, defaults: example, ...times })
    ),
    UpdateSessionRequest: Type.Object({
      // A host's schema may require properties; a patch may still leave them out.
      defaults: Type.Unsafe<SessionDefaultValues>(Type.Partial(Type.Object(properties), {
        additionalProperties: false,
        description: 'The defaults to set; those that are left out stay as they are. An object replaces the one before as a whole.'
      }))
    }, {
      $id: 'UpdateSessionRequest',
      additionalProperties: false,
      ...(patch && { examples: [{ defaults: patch }] })
    }),
    UpdateSession200Response: successOf(
      Type.Object({ sessionId: SessionId, defaults: Defaults, expiresAt, lastAccessedAt }, { additionalProperties: false }),
      component('UpdateSession200Response', { sessionId, defaults: example, expiresAt: times.expiresAt, lastAccessedAt: times.lastAccessedAt })
    ),
    DeleteSession200Response: successOf(
      Type.Object({ sessionId: SessionId, deleted: Type.Literal(true) }, { additionalProperties: false }),
      component('DeleteSession200Response', { sessionId, deleted: true })
    )
  }
}

export type SessionSchemas = ReturnType<typeof createSessionSchemas>
export type PresetDefaults = Static<typeof presetDefaults>

/** Closes objects in objects, arrays and unions; parts of an intersection describe one object, and stay as they are. */
function close<Schema extends TSchema> (schema: Schema): Schema {
  const closed: TSchema & { anyOf?: TSchema[] } = { ...schema }
  if (closed.properties) {
    closed.properties = Object.fromEntries(Object.entries(closed.properties as TProperties).map(([name, property]) => [name, close(property)]))
    closed.additionalProperties ??= false
  }
  if (TypeGuard.IsSchema(closed.items)) closed.items = close(closed.items)
  if (closed.anyOf) closed.anyOf = closed.anyOf.map(close)
  return closed as Schema
}

/** The first example that each property gives of itself, as one object; none where one that is required gives none. */
function exampleOf (defaults: TObject): SessionDefaultValues | undefined {
  const example: SessionDefaultValues = {}
  for (const [name, { examples }] of Object.entries(defaults.properties)) {
    if (Array.isArray(examples) && examples.length > 0) example[name] = examples[0]
  }
  return defaults.required?.every(name => name in example) === false ? undefined : example
}
