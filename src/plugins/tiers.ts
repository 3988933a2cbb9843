import { type FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError } from '../errors.js'
import { type Tier, tierNames } from '../schemas/tier.js'

export interface TierLimits {
  /** Requests that a key of the tier may make in an hour. */
  requestsPerHour: number
  /** Whether the tier includes sessions. */
  sessions: boolean
}

export const tierLimits: Readonly<Record<Tier, TierLimits>> = {
  free: { requestsPerHour: 100, sessions: false },
  pro: { requestsPerHour: 10_000, sessions: true },
  enterprise: { requestsPerHour: 100_000, sessions: true }
}

/** The tiers that include sessions. */
export const sessionTiers = tierNames.filter(tier => tierLimits[tier].sessions)

/**
 * An `onRequest` hook that refuses principals of other tiers with `TIER_ACCESS_DENIED`. It goes after the hook that
 * authenticates.
 */
function requireTier (...tiers: Tier[]) {
  return async function (request: FastifyRequest): Promise<void> {
    const { tier } = request.principal!
    if (!tiers.includes(tier)) {
      throw new ApiError('TIER_ACCESS_DENIED', {
        message: `This operation needs a key of tier ${tiers.join(' or ')}; this key is of tier ${tier}.`
      })
    }
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    requireTier: typeof requireTier
  }
}

export default fp(async (fastify) => {
  fastify.decorate('requireTier', requireTier)
}, { name: 'tiers', fastify: '5.x' })
