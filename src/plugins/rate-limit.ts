import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import { type FastifyReply, type FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError } from '../errors.js'
import { tierLimits } from './tiers.js'

export interface RateLimitOptions {
  /**
   * Whether requests are counted against the tier of their principal and failed authentications against their
   * address.
   * @default true
   */
  rateLimit?: boolean
}

const hour = 3_600_000
const failuresPerMinute = 100

type Count = (request: FastifyRequest) => Promise<{ isAllowed: true } | { isAllowed: false, max: number, remaining: number, ttlInSeconds: number, isExceeded: boolean }>

function createRequestLimits (countRequest: Count, countFailure: Count) {
  return {
    /**
     * Counts the request against its principal and says in the headers what is left. Throws `RATE_LIMIT_EXCEEDED`.
     */
    async principal (request: FastifyRequest, reply: FastifyReply): Promise<void> {
      const result = await countRequest(request)
      if (result.isAllowed) return
      reply.headers({
        'ratelimit-limit': result.max,
        'ratelimit-remaining': result.remaining,
        'ratelimit-reset': result.ttlInSeconds
      })
      if (result.isExceeded) {
        throw exceeded(`This key may make ${result.max} requests an hour, and they are used up.`, result.ttlInSeconds)
      }
    },

    /** Counts a failed authentication against the request's address. Throws `RATE_LIMIT_EXCEEDED`. */
    async failedAuthentication (request: FastifyRequest): Promise<void> {
      const result = await countFailure(request)
      if (!result.isAllowed && result.isExceeded) {
        throw exceeded('Too many requests from this address carried no valid API key.', result.ttlInSeconds)
      }
    }
  }
}

function exceeded (message: string, seconds: number): ApiError {
  return new ApiError('RATE_LIMIT_EXCEEDED', {
    message: `${message} Try again in ${seconds} s.`,
    headers: { 'retry-after': String(seconds) }
  })
}

declare module 'fastify' {
  interface FastifyInstance {
    requestLimits: ReturnType<typeof createRequestLimits>
  }
}

export default fp<RateLimitOptions>(async (fastify, options) => {
  if (options.rateLimit === false) {
    const unlimited: Count = async () => ({ isAllowed: true })
    fastify.decorate('requestLimits', createRequestLimits(unlimited, unlimited))
    return
  }
  // In a scope of its own, so that a host can use the same library with other settings. What the host's registration
  // would pass on is set here.
  await fastify.register(async (scope) => {
    await scope.register(rateLimit, { global: false })
    const shared = { allowList: [], ban: -1, skipOnError: false, continueExceeding: false, exponentialBackoff: false, cache: 50_000 }
    const countRequest = scope.createRateLimit({
      ...shared,
      timeWindow: hour,
      max: request => tierLimits[request.principal!.tier].requestsPerHour,
      keyGenerator: request => request.principal!.id
    })
    const countFailure = scope.createRateLimit({
      ...shared,
      timeWindow: 60_000,
      max: failuresPerMinute,
      keyGenerator: request => normalizeIP(request.ip)
    })
    fastify.decorate('requestLimits', createRequestLimits(countRequest, countFailure))
  })
}, { name: 'rate-limit', fastify: '5.x' })
