import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError } from '../errors.js'
import type { RequestCount } from './request-count-repository.js'

export interface RateLimitOptions {
  /**
   * Whether requests are counted against the tier of their principal and failed authentications against their
   * address.
   * @default true
   */
  rateLimit?: boolean
  /**
   * Whether requests that cannot be counted, because the database does not take the count, are let through uncounted
   * and warned of, rather than refused with 503.
   * @default false
   */
  rateLimitFailOpen?: boolean
}

const failuresPerMinute = 100
const failureWindowMs = 60_000
/** How often a warning about uncounted requests is repeated at most, in milliseconds. */
const warningInterval = 10_000

interface Limit {
  max: number
  remaining: number
  ttlInSeconds: number
  isExceeded: boolean
}

// Requests are counted by the statement that authenticates them, many of them in one. @fastify/rate-limit would ask its store for each
// by itself, and after that; it counts what fails to authenticate, in memory.

type FailureCounter = (request: FastifyRequest, options?: { increment: false }) => Promise<{ isAllowed: true } | ({ isAllowed: false } & Limit)>

function createRequestLimits (fastify: FastifyInstance, { rateLimit = true, rateLimitFailOpen = false }: RateLimitOptions, countFailure: FailureCounter) {
  const { requestCountRepository, tierLimits } = fastify
  let warned = -Infinity

  function limitOf ({ principal }: FastifyRequest, { requests, remainingMs }: RequestCount): Limit {
    const max = tierLimits[principal!.tier].requestsPerHour
    return { max, remaining: Math.max(0, max - requests), ttlInSeconds: Math.ceil(remainingMs / 1000), isExceeded: requests > max }
  }

  function warn (error: unknown): void {
    if (performance.now() - warned < warningInterval) return
    warned = performance.now()
    fastify.log.warn({ err: error }, 'requests cannot be counted, and are let through uncounted (RATE_LIMIT_FAIL_OPEN)')
  }

  return {
    /** Whether a request that cannot be counted is refused: then it can be counted by the statement that authenticates it. */
    strict: rateLimit && !rateLimitFailOpen,

    /**
     * Counts the request against its principal, and answers which one it is; null where requests are not counted, or where
     * this one cannot be and is let through. Throws `SERVICE_UNAVAILABLE` where it cannot be and is not.
     */
    async count ({ principal }: FastifyRequest): Promise<RequestCount | null> {
      if (!rateLimit) return null
      try {
        return await requestCountRepository.increment(principal!.id)
      } catch (error) {
        if (!rateLimitFailOpen) throw error
        warn(error)
        return null
      }
    },

    /**
     * Says in the headers what is left to the principal of a request that was counted. Throws `RATE_LIMIT_EXCEEDED`.
     *
     * @param count which one of its principal's it is
     */
    apply (request: FastifyRequest, reply: FastifyReply, count: RequestCount): void {
      const { max, remaining, ttlInSeconds, isExceeded } = limitOf(request, count)
      reply.header('ratelimit-limit', max).header('ratelimit-remaining', remaining).header('ratelimit-reset', ttlInSeconds)
      if (isExceeded) throw exceeded(`This key may make ${max} requests an hour, and they are used up.`, ttlInSeconds)
    },

    /** What is left to the request's principal, without counting; null where nothing is counted, or cannot be and need not. */
    async remaining (request: FastifyRequest): Promise<Limit | null> {
      if (!rateLimit) return null
      try {
        return limitOf(request, await requestCountRepository.read(request.principal!.id))
      } catch (error) {
        if (!rateLimitFailOpen) throw error
        warn(error)
        return null
      }
    },

    /** Counts a failed authentication against the request's address. Throws `RATE_LIMIT_EXCEEDED`. */
    async failedAuthentication (request: FastifyRequest): Promise<void> {
      const result = await countFailure(request)
      if (!result.isAllowed && result.isExceeded) throw tooManyFailures(result.ttlInSeconds)
    },

    /** Refuses, with `RATE_LIMIT_EXCEEDED`, an address whose authentications have failed too often. */
    async knownToFail (request: FastifyRequest): Promise<void> {
      const result = await countFailure(request, { increment: false })
      if (!result.isAllowed && result.remaining === 0) throw tooManyFailures(result.ttlInSeconds)
    }
  }
}

/** Some proxies write the client's port behind its address, which is another one for each connection. */
function withoutPort (address: string): string {
  const [, v6, v4] = /^\[(.*)\](?::\d+)?$|^([^:]*):\d+$/.exec(address) ?? []
  return v6 ?? v4 ?? address
}

function tooManyFailures (seconds: number): ApiError {
  return exceeded('Too many requests from this address carried no valid API key.', seconds)
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
  let countFailure: FailureCounter = async () => ({ isAllowed: true })
  // Failures are counted in memory: one that had to be counted in Postgres would cost what it is to save. In a scope of
  // its own, so that a host can use the same library with other settings. What the host's registration would pass on is
  // set here.
  if (options.rateLimit !== false) {
    await fastify.register(async (scope) => {
      await scope.register(rateLimit, { global: false })
      const settings = {
        allowList: [],
        ban: -1,
        skipOnError: false,
        continueExceeding: false,
        exponentialBackoff: false,
        cache: 50_000,
        timeWindow: failureWindowMs,
        max: failuresPerMinute,
        // Clients of a unix socket have no address, unless a trusted proxy says which, and count as one.
        keyGenerator: (request: FastifyRequest) => normalizeIP(withoutPort((request.ip as string | undefined) ?? 'unix'))
      }
      let counter: FailureCounter = scope.createRateLimit(settings)
      countFailure = async (request, options) => {
        const result = await counter(request, options)
        if (result.isAllowed || result.ttlInSeconds * 1000 <= failureWindowMs) return result
        // A window that ends later than it can is of a clock that has been moved back since. Each counter has a store of its own.
        counter = scope.createRateLimit(settings)
        return counter(request, options)
      }
    })
  }
  fastify.decorate('requestLimits', createRequestLimits(fastify, options, countFailure))
}, { name: 'rate-limit', fastify: '5.x', dependencies: ['request-count-repository', 'tiers'] })
