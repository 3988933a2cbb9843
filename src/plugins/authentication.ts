import { timingSafeEqual } from 'node:crypto'
import type { Http2SecureServer, Http2Server } from 'node:http2'
import type { FastifyReply, FastifyRequest, RawServerBase, RawServerDefault, RouteGenericInterface } from 'fastify'
import fp from 'fastify-plugin'
import { hashApiKey, isWellFormedApiKey } from '../api-key.js'
import { bodyIsOnItsWay } from '../defaults/request-body.js'
import { ApiError } from '../errors.js'
import { isRecord } from '../is-object.js'
import { tierNames, type Tier } from '../schemas/tier.js'
import type { RequestCount } from './request-count-repository.js'
import { checkTier } from './tiers.js'

/** Who makes a request. Sessions belong to the id, so it must be stable and never be given to another caller. */
export interface Principal {
  /**
   * Whose sessions and counts these are: at least one character, without NUL and half a surrogate pair, which Postgres cannot
   * hold, and no more than 500 bytes as UTF-8: one too long for an index would fail the statement that it shares with others. A
   * host whose `identify` answers another gets a TypeError.
   */
  id: string
  tier: Tier
}

export interface AuthenticationOptions {
  /**
   * The host's own authentication, instead of API keys: says who makes the request, or null when nobody does. The OpenAPI document
   * goes on describing API keys; what the host throws is answered in place of what null is.
   * @default API keys, by `X-API-Key` or `Authorization: Bearer`
   */
  identify?: (request: FastifyRequest) => Principal | null | Promise<Principal | null>
  /**
   * The key of the admin operations: printable ASCII without blanks around it, better long and random
   * (`openssl rand -hex 32`). Without it they answer `ADMIN_DISABLED`.
   * @default none
   */
  adminKey?: string
}

const maxSeenValid = 10_000

const maxIdBytes = 500

interface Caller {
  principal: Principal
  /** Where the request was counted by the statement that authenticated it. */
  count?: RequestCount
}

type HookOn<Server extends RawServerBase> = (request: FastifyRequest<RouteGenericInterface, Server>, reply: FastifyReply<RouteGenericInterface, Server>) => Promise<void>

/**
 * A hook of a request that may be refused, on a server of any kind. Exported for the sake of the built types, which have no import for
 * what only a `declare module` needs.
 */
export type RequestHook = HookOn<RawServerDefault> & HookOn<Http2Server> & HookOn<Http2SecureServer>

/** What a header can carry. */
export const adminKeyPattern = '^[!-~](?:[ -~]*[!-~])?$'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * An `onRequest` hook: authenticates the request and counts it against its principal's limit, once however often
     * it is named. Throws `UNAUTHORIZED`, `INVALID_API_KEY` or `RATE_LIMIT_EXCEEDED`.
     */
    requirePrincipal: RequestHook
    /**
     * The same, for those who have something to ask the database at the same time: `meanwhile` is called once the request
     * is about to be looked up or counted, and not where it is refused without.
     */
    authenticatePrincipal: (request: FastifyRequest, reply: FastifyReply, meanwhile: () => void) => Promise<void>
    /**
     * An `onRequest` hook for unknown routes: counts the request against its principal, or against its address where it has
     * none.
     */
    countUnknownRoute: RequestHook
    /**
     * Looks the key up again, without counting, of a request whose body was still on its way when that was done first: it may
     * have been revoked, rotated or given another tier meanwhile. Does nothing for any other. Throws `INVALID_API_KEY` or
     * `TIER_ACCESS_DENIED`.
     */
    authenticateAgain: (request: FastifyRequest) => Promise<void>
    /** An `onRequest` hook: lets only the admin key pass. */
    requireAdminKey: (request: FastifyRequest) => Promise<void>
  }
  interface FastifyContextConfig {
    /**
     * What the route asks the database while `requirePrincipal` does: it is not known yet whether the request may have it,
     * but it costs no time of its own.
     */
    whileAuthenticating?: (request: FastifyRequest) => void
  }
  interface FastifyRequest {
    /** Who makes the request; null where nothing has authenticated it. */
    principal: Principal | null
    /** The hash of the key that the request carries, if its body was still on its way when that was looked up; else null. */
    keyToLookUpAgain: string | null
    /** Whether `requirePrincipal` was asked, so that the request must not be served for nobody. */
    requiresPrincipal: boolean
  }
}

export default fp<AuthenticationOptions>(async (fastify, options) => {
  const { identify, adminKey } = options
  // What is empty or blank is not set: it must not be what a request without a key is compared with.
  const isSet = adminKey !== undefined && adminKey.trim() !== ''
  if (isSet && !new RegExp(adminKeyPattern).test(adminKey)) throw new Error('adminKey must be printable ASCII, without blanks around it: nothing else comes as it is in a header')
  const adminDigest = isSet ? Buffer.from(hashApiKey(adminKey)) : null
  /** Hashes of keys that were valid when they were last looked up: what spares them checks and a refusal, never a look-up. */
  const seenValid = new Set<string>()

  async function identifyByHost (request: FastifyRequest, meanwhile: () => void): Promise<Caller> {
    const principal = requireValid(await identify!(request))
    if (!principal) throw unauthorized('This operation is for callers whom this API knows. Authenticate as its documentation says.')
    meanwhile()
    return { principal }
  }

  /**
   * Asks the database whose key it is. Not for an address whose keys have failed too often, unless the key was valid
   * here before: somebody who guesses keys costs nothing, and those who share an address with them are served.
   */
  async function identifyByApiKey (request: FastifyRequest, meanwhile: () => void): Promise<Caller> {
    const key = credential(request)
    if (key === null) throw unauthorized()
    const hash = hashApiKey(key)
    const isNew = !seenValid.has(hash)
    if (isNew) {
      if (!isWellFormedApiKey(key)) throw invalidApiKey(malformed)
      await fastify.requestLimits.knownToFail(request)
    }
    meanwhile()
    const caller = await (fastify.requestLimits.strict ? fastify.apiKeyRepository.authenticateAndCount(hash) : fastify.apiKeyRepository.authenticate(hash))
    if (!caller) {
      seenValid.delete(hash)
      throw invalidApiKey()
    }
    if (isNew) remember(seenValid, hash)
    if (bodyIsOnItsWay(request)) request.keyToLookUpAgain = hash
    return caller
  }

  async function authenticateAgain (request: FastifyRequest): Promise<void> {
    const hash = request.keyToLookUpAgain
    if (!hash) return
    const caller = await fastify.apiKeyRepository.authenticate(hash)
    request.principal = caller?.principal ?? null
    if (!caller) {
      seenValid.delete(hash)
      throw invalidApiKey()
    }
    checkTier(request)
  }

  async function authenticatePrincipal (request: FastifyRequest, reply: FastifyReply, meanwhile: () => void): Promise<void> {
    if (request.principal) {
      meanwhile()
      return
    }
    let caller: Caller
    try {
      caller = await (identify ? identifyByHost(request, meanwhile) : identifyByApiKey(request, meanwhile))
    } catch (error) {
      await countFailure(request, error)
      throw error
    }
    request.principal = caller.principal
    const count = caller.count ?? await fastify.requestLimits.count(request)
    if (count) fastify.requestLimits.apply(request, reply, count)
  }

  function requirePrincipal (request: FastifyRequest, reply: FastifyReply): Promise<void> {
    request.requiresPrincipal = true
    return authenticatePrincipal(request, reply, () => request.routeOptions.config.whileAuthenticating?.(request))
  }

  async function countUnknownRoute (request: FastifyRequest, reply: FastifyReply): Promise<void> {
    try {
      await requirePrincipal(request, reply)
    } catch (error) {
      // Counted against its address already; that there is no such route needs no key to be told.
      if (!isUnauthenticated(error)) throw error
    }
  }

  let lastAdminCheck: Promise<void> = Promise.resolve()

  // One after the other, so that of guesses that come at the same time each is counted before the next is looked at.
  function requireAdminKey (request: FastifyRequest): Promise<void> {
    const check = lastAdminCheck.then(() => checkAdminKey(request))
    lastAdminCheck = check.catch(() => {})
    return check
  }

  async function checkAdminKey (request: FastifyRequest): Promise<void> {
    if (!adminDigest) throw new ApiError('ADMIN_DISABLED')
    // Here the right key is refused as well: otherwise guesses would go on at full speed, and only be answered otherwise.
    await fastify.requestLimits.knownToFail(request)
    try {
      const key = credential(request)
      if (key === null) throw unauthorized('This operation needs the admin key. Send it as X-API-Key: <key> or Authorization: Bearer <key>.')
      // Digests are of one length whatever was sent, which is what a constant-time comparison needs.
      if (!timingSafeEqual(Buffer.from(hashApiKey(key)), adminDigest)) throw invalidApiKey('This operation takes the admin key alone, and this is not it.')
    } catch (error) {
      await countFailure(request, error)
      throw error
    }
  }

  async function countFailure (request: FastifyRequest, error: unknown): Promise<void> {
    if (isUnauthenticated(error)) await fastify.requestLimits.failedAuthentication(request)
  }

  // A body may take long to come, and what is done with it is done now that all is there. Who only names a session is looked up
  // with it, by session-defaults, and who sends to an upstream once the body begins, by the gateway.
  fastify.addHook('preValidation', (request, _reply, done) => {
    if (!request.keyToLookUpAgain || !request.requiresPrincipal || request.routeOptions.config.sessionsUpstream) return done()
    authenticateAgain(request).then(() => { done() }, done)
  })

  fastify.decorateRequest('principal', null)
  fastify.decorateRequest('keyToLookUpAgain', null)
  fastify.decorateRequest('requiresPrincipal', false)
  // What they read of a request is the same over HTTP/2.
  fastify.decorate('requirePrincipal', requirePrincipal as RequestHook)
  fastify.decorate('authenticatePrincipal', authenticatePrincipal)
  fastify.decorate('authenticateAgain', authenticateAgain)
  fastify.decorate('countUnknownRoute', countUnknownRoute as RequestHook)
  fastify.decorate('requireAdminKey', requireAdminKey)
}, { name: 'authentication', fastify: '5.x', dependencies: ['api-key-repository', 'rate-limit', 'tiers'] })

/**
 * A host's mistake in `identify` would give its callers sessions that nobody finds again, or that others find: as UTF-8 all
 * halves of surrogate pairs are one character.
 */
function requireValid (principal: Principal | null): Principal | null {
  if (principal === null) return null
  if (!isRecord(principal)) throw new TypeError(`identify answered ${String(principal)}; it must answer an object with id and tier, or null`)
  const { id, tier } = principal
  if (typeof id !== 'string' || id === '' || id.includes('\0') || /\p{Surrogate}/u.test(id) || Buffer.byteLength(id) > maxIdBytes) {
    throw new TypeError(`identify answered a principal whose id is not a string of 1 to ${maxIdBytes} bytes, without NUL and half a surrogate pair`)
  }
  if (!tierNames.includes(tier)) throw new TypeError(`identify answered a principal whose tier is ${String(tier)}; the tiers are ${tierNames.join(', ')}`)
  return principal
}

/** Whether it says that nobody is known to make the request; of a host's `identify` as well, which may throw what its library for tokens does. */
function isUnauthenticated (error: unknown): boolean {
  return (error as { statusCode?: unknown } | null | undefined)?.statusCode === 401
}

function unauthorized (message?: string): ApiError {
  return new ApiError('UNAUTHORIZED', message === undefined ? {} : { message })
}

/** What is known without a look-up. */
const malformed = 'What was sent is no API key of this service: those begin with sk_free_, sk_pro_ or sk_ent_, and this is another one, is not whole, or has quotes or a word around it.'

function invalidApiKey (message?: string): ApiError {
  return new ApiError('INVALID_API_KEY', message === undefined ? {} : { message })
}

/** The key that a request carries, or null. `X-API-Key` goes before `Authorization`, which may be meant for others. */
function credential (request: FastifyRequest): string | null {
  const header = request.headers['x-api-key']
  if (typeof header === 'string' && header !== '') return header
  const bearer = /^bearer +([^ ]+) *$/i.exec(request.headers.authorization ?? '')
  return bearer ? bearer[1]! : null
}

/** Adds a name; of more than can be kept the first to come is the first to go. */
function remember (names: Set<string>, name: string): void {
  names.add(name)
  if (names.size > maxSeenValid) names.delete(names.values().next().value!)
}
