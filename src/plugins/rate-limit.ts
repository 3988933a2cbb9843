import rateLimit, { normalizeIP, type FastifyRateLimitStore } from '@fastify/rate-limit'
import { type FastifyReply, type FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError } from '../errors.js'
import { type RequestCountRepository } from './request-count-repository.js'

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

const hour = 3_600_000
const failuresPerMinute = 100
/** How often a warning about uncounted requests is repeated at most, in milliseconds. */
const warningInterval = 10_000

interface Count {
  max: number
  remaining: number
  ttlInSeconds: number
  isExceeded: boolean
}

type Counter = (request: FastifyRequest, options?: { increment: false }) => Promise<{ isAllowed: true } | ({ isAllowed: false } & Count)>

function createRequestLimits (countRequest: Counter, countFailure: Counter, onUncounted: (error: unknown) => void) {
  return {
    /**
     * Counts the request against its principal and says in the headers what is left. Throws `RATE_LIMIT_EXCEEDED`, or
     * `SERVICE_UNAVAILABLE` where it cannot be counted.
     */
    async principal (request: FastifyRequest, reply: FastifyReply): Promise<void> {
      let result: Awaited<ReturnType<Counter>>
      try {
        result = await countRequest(request)
      } catch (error) {
        onUncounted(error)
        return
      }
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

    /** What is left to the request's principal, without counting; null where nothing is counted. */
    async remaining (request: FastifyRequest): Promise<Count | null> {
      const result = await countRequest(request, { increment: false })
      return result.isAllowed ? null : result
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

function tooManyFailures (seconds: number): ApiError {
  return exceeded('Too many requests from this address carried no valid API key.', seconds)
}

function exceeded (message: string, seconds: number): ApiError {
  return new ApiError('RATE_LIMIT_EXCEEDED', {
    message: `${message} Try again in ${seconds} s.`,
    headers: { 'retry-after': String(seconds) }
  })
}

/** What @fastify/rate-limit keeps its counts in: Postgres, so that they hold for all instances together. */
function storeOf (repository: RequestCountRepository) {
  return class implements FastifyRateLimitStore {
    incr (principalId: string, callback: StoreCallback): void {
      answer(repository.increment(principalId), callback)
    }

    read (principalId: string, callback: StoreCallback): void {
      answer(repository.read(principalId), callback)
    }

    child (): this {
      return this
    }
  }
}

type StoreCallback = Parameters<FastifyRateLimitStore['incr']>[1]

function answer (count: Promise<{ requests: number, remainingMs: number }>, callback: StoreCallback): void {
  count.then(({ requests, remainingMs }) => callback(null, { current: requests, ttl: remainingMs }), (error: Error) => callback(error))
}

declare module 'fastify' {
  interface FastifyInstance {
    requestLimits: ReturnType<typeof createRequestLimits>
  }
}

export default fp<RateLimitOptions>(async (fastify, options) => {
  if (options.rateLimit === false) {
    const unlimited: Counter = async () => ({ isAllowed: true })
    fastify.decorate('requestLimits', createRequestLimits(unlimited, unlimited, () => {}))
    return
  }

  let warned = -Infinity
  const onUncounted = (error: unknown) => {
    if (!options.rateLimitFailOpen) throw error
    if (performance.now() - warned < warningInterval) return
    warned = performance.now()
    fastify.log.warn({ err: error }, 'requests cannot be counted, and are let through uncounted (RATE_LIMIT_FAIL_OPEN)')
  }

  // Each in a scope of its own, so that a host can use the same library with other settings. What the host's
  // registration would pass on is set here.
  const shared = { allowList: [], ban: -1, skipOnError: false, continueExceeding: false, exponentialBackoff: false }
  const limiter = async (store: object, settings: object) => {
    let counter: Counter | undefined
    await fastify.register(async (scope) => {
      await scope.register(rateLimit, { global: false, ...store })
      counter = scope.createRateLimit({ ...shared, ...settings })
    })
    return counter!
  }

  const countRequest = await limiter({ store: storeOf(fastify.requestCountRepository) }, {
    timeWindow: hour,
    max: (request: FastifyRequest) => fastify.tierLimits[request.principal!.tier].requestsPerHour,
    keyGenerator: (request: FastifyRequest) => request.principal!.id
  })
  // In memory: a failure that had to be counted in Postgres would cost what it is to save.
  const countFailure = await limiter({}, {
    cache: 50_000,
    timeWindow: 60_000,
    max: failuresPerMinute,
    keyGenerator: (request: FastifyRequest) => normalizeIP(request.ip)
  })
  fastify.decorate('requestLimits', createRequestLimits(countRequest, countFailure, onUncounted))
}, { name: 'rate-limit', fastify: '5.x', dependencies: ['request-count-repository', 'tiers'] })
