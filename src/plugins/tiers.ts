import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError } from '../errors.js'
import { type Tier, tierNames } from '../schemas/tier.js'
import { isRecord } from '../is-object.js'
import { suggest } from '../suggest.js'
import type { RequestHook } from './authentication.js'

export interface TierLimits {
  /** Requests that a principal of the tier may make in an hour. */
  requestsPerHour: number
  /** Whether the tier includes sessions. */
  sessions: boolean
  /** Sessions that a principal of the tier may have at the same time. */
  maxSessions: number
}

export interface TiersOptions {
  /**
   * Limits of tiers that are to be others than the standard ones: `{ pro: { requestsPerHour: 20_000 } }`. Whole
   * numbers from 0 to 2,147,483,647. A tier without sessions gets none by this.
   * @default free 100 requests an hour; pro 10,000 and 1,000 sessions; enterprise 100,000 and 100,000 sessions
   */
  tierLimits?: Partial<Record<Tier, Partial<Pick<TierLimits, 'requestsPerHour' | 'maxSessions'>>>>
}

/** The most that a count in the database holds. */
export const maxLimit = 2 ** 31 - 1

/** What each tier includes unless the options say otherwise. */
export const tierLimits: Readonly<Record<Tier, TierLimits>> = {
  free: { requestsPerHour: 100, sessions: false, maxSessions: 0 },
  pro: { requestsPerHour: 10_000, sessions: true, maxSessions: 1_000 },
  enterprise: { requestsPerHour: 100_000, sessions: true, maxSessions: 100_000 }
}

/** The tiers that include sessions. */
export const sessionTiers = tierNames.filter(tier => tierLimits[tier].sessions)

/**
 * An `onRequest` hook that refuses principals of other tiers with `TIER_ACCESS_DENIED`. It authenticates the request, as
 * `requirePrincipal` does, where that has not been done.
 *
 * @throws Error at once where a tier is none
 */
function requireTier (...tiers: Tier[]): RequestHook {
  const unknown = tiers.find(tier => !tierNames.includes(tier))
  if (unknown !== undefined || tiers.length === 0) throw new Error(`requireTier needs one or more of ${tierNames.join(', ')}${unknown === undefined ? '' : `, of which ${JSON.stringify(unknown)} is none`}`)
  const hook = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    if (!request.principal) await request.server.requirePrincipal(request, reply)
    // Where a session's name has authenticated the request, the route relies on it all the same.
    request.requiresPrincipal = true
    checkTier(request, tiers)
    request.requiredTiers = request.requiredTiers?.filter(tier => tiers.includes(tier)) ?? tiers
  }
  return hook as RequestHook
}

/** @throws TIER_ACCESS_DENIED for a principal of none of the tiers, which are by default those that `requireTier` has let through */
export function checkTier ({ principal, requiredTiers }: FastifyRequest, tiers = requiredTiers): void {
  const { tier } = principal!
  if (tiers && !tiers.includes(tier)) {
    throw new ApiError('TIER_ACCESS_DENIED', {
      message: `This operation needs a key of tier ${tiers.join(' or ')}; this key is of tier ${tier}.`
    })
  }
}

/** @throws Error that names the tier, and the limit that there is not or that is no whole number */
function chooseLimits (chosen: NonNullable<TiersOptions['tierLimits']>): Readonly<Record<Tier, TierLimits>> {
  const limits = structuredClone(tierLimits) as Record<Tier, TierLimits>
  const names = Object.keys(tierLimits.free)
  for (const [tier, values = {}] of Object.entries(chosen)) {
    if (!Object.hasOwn(limits, tier)) throw new Error(`The option tierLimits names the tier ${JSON.stringify(tier)}; the tiers are ${tierNames.join(', ')}`)
    if (!isRecord(values)) throw new Error(`The option tierLimits.${tier} is ${String(values)}; it must be an object, such as { requestsPerHour: 20_000 }`)
    const unknown = Object.keys(values).find(name => !names.includes(name))
    if (unknown !== undefined) throw new Error(`The option tierLimits.${tier} names ${JSON.stringify(unknown)}${suggest(unknown, names) || `; it takes ${names.join(', ')}`}`)
    const { requestsPerHour, maxSessions, sessions } = { ...limits[tier as Tier], ...values }
    for (const [name, value] of Object.entries({ requestsPerHour, maxSessions })) {
      if (!Number.isSafeInteger(value) || value < 0 || value > maxLimit) throw new Error(`The option tierLimits.${tier}.${name} is ${value}; it must be a whole number from 0 to ${maxLimit}`)
    }
    limits[tier as Tier] = { requestsPerHour, sessions, maxSessions: sessions ? maxSessions : 0 }
  }
  return limits
}

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Makes an `onRequest` hook that authenticates the request, as `requirePrincipal` does, and refuses principals of other tiers
     * than those named with `TIER_ACCESS_DENIED`. Throws at once where a tier is none.
     */
    requireTier: typeof requireTier
    /** What each tier includes in this app. */
    tierLimits: Readonly<Record<Tier, TierLimits>>
  }
  interface FastifyRequest {
    /** The tiers that `requireTier` has let through; null where it was not asked. */
    requiredTiers: readonly Tier[] | null
  }
}

export default fp<TiersOptions>(async (fastify, options) => {
  fastify.decorate('requireTier', requireTier)
  fastify.decorateRequest('requiredTiers', null)
  fastify.decorate('tierLimits', chooseLimits(options.tierLimits ?? {}))
}, { name: 'tiers', fastify: '5.x' })
