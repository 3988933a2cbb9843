import { Type } from '@sinclair/typebox'
import type { ErrorCode } from '../../errors.js'
import type { ApiKeyRecord } from '../../plugins/api-key-repository.js'
import type { TierLimits } from '../../plugins/tiers.js'
import type { Tier } from '../../schemas/tier.js'

/** What every admin operation can answer besides its own errors. */
export const adminFailures = [
  'UNAUTHORIZED', 'INVALID_API_KEY', 'RATE_LIMIT_EXCEEDED', 'ADMIN_DISABLED', 'SERVICE_UNAVAILABLE'
] as const satisfies ErrorCode[]

/** The parameter of a list's length: a client may leave it out, and the handler has it all the same. */
export function pageLimit (description: string) {
  return Type.Unsafe<number>(Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100, description })))
}

/** A key's record as the admin operations answer it: absent times left out, the tier's limits added. */
export function presentApiKey ({ expiresAt, revokedAt, lastUsedAt, graceEndsAt, ...record }: ApiKeyRecord, tierLimits: Readonly<Record<Tier, TierLimits>>) {
  return {
    ...record,
    ...(expiresAt !== null && { expiresAt }),
    ...(revokedAt !== null && { revokedAt }),
    ...(lastUsedAt !== null && { lastUsedAt }),
    ...(graceEndsAt !== null && { graceEndsAt }),
    limits: tierLimits[record.tier]
  }
}
