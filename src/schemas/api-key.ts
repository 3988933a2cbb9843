import { Type } from '@sinclair/typebox'
import { successOf } from './envelope.js'
import { timestamp } from './timestamp.js'
import { stringEnum } from './string-enum.js'
import { Tier } from './tier.js'

/** An id of a key, as examples have it. */
export const exampleKeyId = 'key_0193a5c8b6e0f41d7c9a2be85360d4f7'

export const ApiKeyId = Type.String({
  pattern: '^key_[0-9a-f]{32}$',
  description: 'The key\'s id, which is no secret and stays when the secret changes.',
  examples: [exampleKeyId]
})

export const ApiKeyParams = Type.Object({ id: ApiKeyId })

/**
 * Control characters, those that turn the direction of a line, and half a surrogate pair cannot be stored or do not belong into a
 * list. It fits the same names whether a regular expression takes a character beyond U+FFFF for one or, without the flag `u`, for two.
 */
const namePattern = '^(?:[^\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]|[\\ud800-\\udbff][\\udc00-\\udfff])*$'

/** What is wrong with a value that does not fit a pattern which says that to nobody. */
export const patternReasons: Readonly<Record<string, string>> = {
  [namePattern]: 'must have no control characters, line breaks, and characters that turn the direction of text'
}

const name = Type.String({ minLength: 1, maxLength: 100, pattern: namePattern, description: 'For people, to know the key by.', examples: ['agent-7'] })
const metadata = Type.Record(Type.String(), Type.Unknown(), { description: 'Anything the operator wants to keep with the key.', examples: [{ team: 'payments' }] })
const expiresAt = timestamp('When the key stops working; a key without it works until it is revoked.', 1821087600000)

export const TierLimits = Type.Object({
  requestsPerHour: Type.Integer({ minimum: 0, description: 'Requests in an hour.', examples: [10_000] }),
  sessions: Type.Boolean({ description: 'Whether the tier includes sessions.', examples: [true] }),
  maxSessions: Type.Integer({ minimum: 0, description: 'Sessions at the same time.', examples: [1_000] })
}, { additionalProperties: false })

/** How long the secret before can be accepted after a rotation, in seconds. */
export const graceSeconds = { minimum: 0, maximum: 604_800, default: 0 } as const

const apiKeyFields = {
  id: ApiKeyId,
  displayPrefix: Type.String({ description: 'The beginning of the key, to recognise it by.', examples: ['sk_pro_8fKq'] }),
  tier: Tier,
  name,
  metadata,
  status: stringEnum(['active', 'expired', 'revoked'], { description: 'Whether the key is accepted: only an active one is.', examples: ['active'] }),
  createdAt: timestamp('When the key was created.'),
  expiresAt: Type.Optional(expiresAt),
  revokedAt: Type.Optional(timestamp('When the key was revoked.')),
  lastUsedAt: Type.Optional(timestamp('When the key was last used, exact to a minute; absent while it was not.', 1789552800000)),
  graceEndsAt: Type.Optional(timestamp('Until when the secret before this one is accepted as well; absent where there is none.', 1789638000000)),
  limits: TierLimits
}

const exampleKey = {
  id: exampleKeyId,
  displayPrefix: 'sk_pro_8fKq',
  tier: 'pro',
  name: 'agent-7',
  metadata: { team: 'payments' },
  status: 'active',
  createdAt: 1789551600000,
  lastUsedAt: 1789552800000,
  limits: { requestsPerHour: 10_000, sessions: true, maxSessions: 1_000 }
}

const ApiKey = Type.Object(apiKeyFields, { $id: 'ApiKey', additionalProperties: false, examples: [exampleKey] })

const key = Type.String({ description: 'The key itself. It is shown here only: it is not stored.', examples: ['sk_pro_8fKqT2mZ0vXc7LwR4nYbH1sJ9dGe5uAo3iP6kQxVtBaFjWl0r'] })

const ApiKeyRef = Type.Unsafe<Record<string, unknown>>(Type.Ref('ApiKey'))

export const apiKeySchemas = {
  ApiKey,
  CreateApiKeyRequest: Type.Object({
    tier: Tier,
    name,
    expiresAt: Type.Optional(expiresAt),
    metadata: Type.Optional(metadata)
  }, {
    $id: 'CreateApiKeyRequest',
    additionalProperties: false,
    examples: [{ tier: 'pro', name: 'agent-7', metadata: { team: 'payments' } }]
  }),
  CreateApiKey201Response: successOf(
    Type.Object({
      id: ApiKeyId,
      key,
      tier: Tier,
      name,
      createdAt: apiKeyFields.createdAt,
      expiresAt: apiKeyFields.expiresAt,
      limits: TierLimits
    }, { additionalProperties: false }),
    { $id: 'CreateApiKey201Response' }
  ),
  ListApiKeys200Response: successOf(
    Type.Object({
      keys: Type.Array(ApiKeyRef),
      nextCursor: Type.Optional(Type.String({ description: 'Send it as `cursor` to get the next page; absent on the last.', examples: [exampleKeyId] }))
    }, { additionalProperties: false }),
    { $id: 'ListApiKeys200Response' }
  ),
  GetApiKey200Response: successOf(ApiKeyRef, { $id: 'GetApiKey200Response' }),
  UpdateApiKeyRequest: Type.Object({
    tier: Type.Optional(Tier),
    name: Type.Optional(name),
    expiresAt: Type.Optional(Type.Unsafe<number | null>({
      ...expiresAt,
      type: ['integer', 'null'],
      description: 'When the key stops working, in milliseconds since the epoch; null for a key that works until it is revoked.'
    })),
    metadata: Type.Optional(Type.Unsafe<Record<string, unknown>>({ ...metadata, description: 'Replaces the metadata as a whole.' }))
  }, {
    $id: 'UpdateApiKeyRequest',
    additionalProperties: false,
    minProperties: 1,
    examples: [{ tier: 'enterprise', name: 'agent-7 (production)' }]
  }),
  UpdateApiKey200Response: successOf(ApiKeyRef, { $id: 'UpdateApiKey200Response' }),
  RotateApiKeyRequest: Type.Object({
    graceSeconds: Type.Optional(Type.Integer({
      ...graceSeconds,
      description: 'How long the secret that is replaced is accepted as well, in seconds. One that an earlier rotation replaced ends at once.',
      examples: [3600]
    }))
  }, {
    $id: 'RotateApiKeyRequest',
    additionalProperties: false,
    examples: [{ graceSeconds: 3600 }]
  }),
  RotateApiKey200Response: successOf(
    Type.Object({
      id: ApiKeyId,
      key,
      tier: Tier,
      name,
      createdAt: apiKeyFields.createdAt,
      expiresAt: apiKeyFields.expiresAt,
      graceEndsAt: timestamp('When the secret that was replaced ends; without a grace period, when it ended.', 1789638000000),
      limits: TierLimits
    }, { additionalProperties: false }),
    { $id: 'RotateApiKey200Response' }
  ),
  RevokeApiKey200Response: successOf(
    Type.Object({ revoked: Type.Literal(true, { examples: [true] }) }, { additionalProperties: false }),
    { $id: 'RevokeApiKey200Response' }
  ),
  ListTiers200Response: successOf(
    Type.Object({
      tiers: Type.Array(Type.Object({ tier: Tier, limits: TierLimits }, { additionalProperties: false }))
    }, { additionalProperties: false }),
    { $id: 'ListTiers200Response' }
  )
}
