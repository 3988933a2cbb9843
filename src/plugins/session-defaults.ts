import type { Server } from 'node:http'
import type { TObject } from '@sinclair/typebox'
import type { FastifyContextConfig, FastifyInstance, FastifyReply, FastifyRequest, HookHandlerDoneFunction, onSendHookHandler, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { eachItem, fillDefaults, placementsOf, type Placement, type SessionDefaultsMapping } from '../defaults/fill-defaults.js'
import { bodyPlacements, type DefaultsPlan } from '../defaults/plan-defaults.js'
import { beginningOfUnparsedJson, bodyIsOnItsWay, bodyMethods, isBodyless, isFillable, isJsonScalar, isMultipart, isUnread, notAnObject } from '../defaults/request-body.js'
import { documentHeader, makePlan, requireKnownNames, takenBy, warnOfUnread, warnOfUntold, type RoutePlan } from '../defaults/route-plan.js'
import { mergeVary } from '../defaults/vary.js'
import { ApiError, validationError, type ErrorCode } from '../errors.js'
import { sessionIdPattern, type SessionDefaults, type SessionDefaultValues } from '../schemas/session.js'
import { sendError } from '../send-error.js'
import type { AuthenticationOptions } from './authentication.js'
import type { UseReading } from './session-repository.js'
import { checkTier, sessionTiers } from './tiers.js'

export interface SessionDefaultsOptions {
  /** What sessions hold. */
  defaults: TObject
  /**
   * Where defaults go in the host's bodies and query strings that do not go under their own name: `{ chain: 'network' }`,
   * `{ privacyLevel: 'options.privacy' }`, `{ chain: ['chain', 'transfers[].chain'] }`.
   * @default each goes under its own name
   */
  mapping?: SessionDefaultsMapping
  /**
   * What to do with a request that names no session of the caller's. `refuse` answers with the error; `ignore` lets
   * the request run without defaults, silently: only for hosts that must keep an older, lenient behaviour.
   * @default 'refuse'
   */
  onInvalid?: 'refuse' | 'ignore'
  /** The host's own authentication, by headers of its own. */
  identify?: AuthenticationOptions['identify']
}

/**
 * A route's own way of taking a session's values, instead of its schema's: it puts them where they belong and returns
 * the names of those it has put.
 *
 * @param readAgain what the session holds now: for one that has waited for something, such as a body that no parser reads. Throws
 * where the session, or the key that the request carries, is no longer there.
 */
export type ApplySessionDefaults = (request: FastifyRequest, values: SessionDefaultValues, readAgain: () => Promise<SessionDefaultValues>) => Iterable<string> | Promise<Iterable<string>>

const header = 'x-session-id'

/** Lines of headers that Node reads of a request where its server does not say. */
const nodesMaxHeadersCount = 1000

/** Methods whose answers caches keep and give to others (RFC 9110, 9.2.3, and QUERY's own draft). */
const cachedMethods: readonly string[] = ['GET', 'HEAD', 'QUERY']

/** What `onInvalid: 'ignore'` is lenient about: the caller's errors, not the service's. */
const ignorable: readonly ErrorCode[] = [
  'VALIDATION_ERROR', 'UNAUTHORIZED', 'INVALID_API_KEY', 'TIER_ACCESS_DENIED', 'SESSION_NOT_FOUND'
]

declare module 'fastify' {
  interface FastifyRequest {
    /** What the session that the request names holds; null where it names none. */
    sessionDefaults: SessionDefaults | null
    /** The session that the request names, once its caller is known to be allowed sessions, and the route's config. */
    namedSession: { reading: UseReading, config: FastifyContextConfig, bodyIsOnItsWay: boolean } | null
  }
  interface FastifyContextConfig {
    /**
     * Which of a session's values the route takes: all that its schema has (the default), only those named, or none,
     * which also leaves the header unread; or a function that applies them.
     */
    sessionDefaults?: boolean | readonly string[] | ApplySessionDefaults
    /** Marks the routes of this API, which are not asked whether they take what sessions hold. */
    sessionsApi?: true
  }
}

/**
 * Fills the values of the session that a request names into what the request left out, before validation, and
 * refuses the request when there is no such session.
 */
export default fp<SessionDefaultsOptions>(async (fastify, { defaults, mapping, onInvalid = 'refuse', identify }) => {
  const names = Object.keys(defaults.properties)
  const placements = placementsOf(names, mapping)
  const plans = new WeakMap<object, RoutePlan>()
  const routes: { route: RouteOptions, instance: FastifyInstance, ownValidator: boolean }[] = []

  fastify.decorateRequest('sessionDefaults', null)
  fastify.decorateRequest('namedSession', null)

  fastify.addHook('onRoute', function (route) {
    requireKnownNames(route, names)
    if ([route.method].flat().some(method => cachedMethods.includes(method))) route.onSend = [...[route.onSend ?? []].flat(), varyBySession(route)]
    // Later every instance has a validator, Fastify's own if no other.
    routes.push({ route, instance: this, ownValidator: this.validatorCompiler !== undefined })
  })

  // When the app is ready all shared schemas have been added, and the routes' own have been compiled: what is added
  // to them now is read by documents alone.
  fastify.addHook('onReady', async () => {
    const unread = new Set(names)
    let count = 0
    for (const { route, instance, ownValidator } of routes) {
      // Other plugins may have put it there since.
      requireKnownNames(route, names)
      const plan = makePlan(route, instance, placements)
      const isTold = plan.isReadable && plan.lost.length === 0
      // Of a route for GET there is one for HEAD, of which nobody knows.
      if (!isTold && (route.config?.sessionDefaults ?? true) === true && route.method !== 'HEAD') warnOfUntold(fastify.log, route, plan)
      // A validator of the host's own may not know JSON Schema; a route that has the properties has shown that it does.
      if (plan.isReadable && (!plan.undescribed || !ownValidator)) documentHeader(route, plan)
      if (route.config?.sessionsApi) continue
      count++
      if (typeof route.config?.sessionDefaults === 'function') unread.clear()
      for (const { name } of takenBy(plan, route)) unread.delete(name)
    }
    if (count > 0 && unread.size > 0) warnOfUnread(fastify.log, unread)
    if (fastify.hasDecorator('use')) {
      fastify.log.warn('Handlers of @fastify/express and @fastify/middie answer before a session is looked at: requests for them get no defaults, and are not refused where there is no such session. Make what takes defaults a route of Fastify\'s.')
    }
    // An instance inherits from the one that it is in.
    if (count === 0 && Object.getPrototypeOf(fastify) !== Object.prototype) {
      fastify.log.warn('sipher-sessions is registered in a scope without other routes: those around it take nothing of a session, and do not refuse one that there is not. Register it where your routes are, or wrap the plugin that registers it in fastify-plugin.')
    }
  })

  // Most requests name no session, and a hook that is asynchronous for them too would cost each a promise.
  fastify.addHook('onRequest', (request, reply, done) => {
    // Scopes from before the registration have its hooks, but not what it decorates requests with.
    request.principal ??= null
    request.sessionDefaults ??= null
    const sessionId = request.headers[header]
    const isCut = mayBeCut(request)
    if (sessionId === undefined && !isCut) return done()
    // Read once: Fastify makes the object anew each time.
    const { config } = request.routeOptions
    if (config?.sessionDefaults === false) return done()
    if (isCut || sessionId === undefined) return refuseOrIgnore(request, reply, tooManyHeaders(request), done)
    nameSession(request, reply, sessionId, config).then(() => { done() }, (error: unknown) => { refuseOrIgnore(request, reply, error, done) })
  })

  /**
   * Whether Node may have left out headers, as it does without a word beyond a number of lines that the host may have set: then nobody
   * knows whether the request names a session, or whether it has a body.
   */
  function mayBeCut (request: FastifyRequest): boolean {
    const max = maxHeadersCountOf(request)
    // Requests that are injected by other libraries may have no list of them.
    return max > 0 && (request.raw.rawHeaders as string[] | undefined ?? []).length >= max * 2
  }

  /** Of the server that the request came to: Fastify makes another one for each further address of `localhost`. */
  function maxHeadersCountOf ({ raw }: FastifyRequest): number {
    const server = (raw.socket as { server?: Pick<Server, 'maxHeadersCount'> } | undefined)?.server ?? fastify.server
    return server.maxHeadersCount ?? nodesMaxHeadersCount
  }

  function tooManyHeaders (request: FastifyRequest): ApiError {
    return new ApiError('REQUEST_HEADERS_TOO_LARGE', { message: `The request has ${maxHeadersCountOf(request)} header lines or more, beyond which none is read. Send fewer.` })
  }

  async function nameSession (request: FastifyRequest, reply: FastifyReply, sessionId: string | string[], config: FastifyContextConfig): Promise<void> {
    const isValid = typeof sessionId === 'string' && sessionIdPattern.test(sessionId)
    let reading: UseReading | undefined
    await fastify.authenticatePrincipal(request, reply, () => {
      if (isValid) reading = fastify.sessionRepository.beginUse(sessionId)
    })
    checkTier(request, sessionTiers)
    if (!reading) {
      throw validationError('request', [{ field: 'X-Session-Id', reason: 'must be sess_ and 64 lower-case hex digits, as createSession answered it' }])
    }
    request.namedSession = { reading, config, bodyIsOnItsWay: bodyIsOnItsWay(request) }
  }

  fastify.addHook('preValidation', (request, reply, done) => {
    const { namedSession } = request
    if (!namedSession) return done()
    fillIn(request, reply, namedSession).then(() => { done() }, (error: unknown) => { refuseOrIgnore(request, reply, error, done) })
  })

  async function fillIn (request: FastifyRequest, reply: FastifyReply, { reading, config, bodyIsOnItsWay: cameLate }: NonNullable<FastifyRequest['namedSession']>): Promise<void> {
    const use = async (current: UseReading) => {
      const { defaults: values } = await fastify.sessionRepository.use(current, request.principal!.id)
      request.sessionDefaults = values as SessionDefaults
      return values
    }
    const readAgain = async () => {
      const current = fastify.sessionRepository.beginUse(reading.sessionId)
      await fastify.authenticateAgain(request)
      checkTier(request, sessionTiers)
      return use(current)
    }
    // A body may take long to come, and the session be deleted meanwhile: then it is read again, now that all is there.
    const values = await (cameLate && !config.sessionsUpstream ? readAgain() : use(reading))
    const apply = config.sessionDefaults
    const applied = typeof apply === 'function'
      ? listOf([...await apply(request, values, readAgain)])
      : applyDefaults(request, plans.get(config) ?? planOf(request), values)
    if (applied !== '') reply.header('x-session-applied', applied)
  }

  /**
   * The answer is sent here rather than thrown: it is this plugin's, in its envelope, on whichever host's route; the
   * host's error handler is for the host's errors.
   */
  function refuseOrIgnore (request: FastifyRequest, reply: FastifyReply, error: unknown, done: HookHandlerDoneFunction): void {
    // Fastify takes nothing for no error, and would go on without what the session holds.
    if (!(error instanceof ApiError)) done((error || new TypeError(`An error was expected to be thrown, not ${String(error)}`)) as Error)
    else if (onInvalid === 'ignore' && ignorable.includes(error.code)) {
      request.sessionDefaults = null
      done()
    } else void sendError(request, reply.header('cache-control', 'no-store'), error)
  }

  /**
   * A cache must not answer a request with what another session's was answered, or with what none was. Whatever is filled in: the
   * handler may look at the session itself.
   */
  function varyBySession (route: RouteOptions): onSendHookHandler {
    return (request, reply, _payload, done) => {
      // Not before: other hooks change it after this one.
      const { config } = route
      const isNamed = request.namedSession !== null
      // What one session's owner is answered is for no other key, which is refused.
      const names = isNamed && identify === undefined ? 'X-Session-Id, X-API-Key, Authorization' : 'X-Session-Id'
      if ((config?.sessionDefaults !== false && !config?.sessionsApi) || isNamed) reply.header('vary', mergeVary(reply.getHeader('vary'), names))
      done()
    }
  }

  /** The names of what was filled in, in the order of the defaults, each once. */
  function listOf (applied: readonly string[]): string {
    return names.filter(name => applied.includes(name)).join(', ')
  }

  /** Fills in what is missing, in place, and returns the names of what was filled in. */
  function applyDefaults (request: FastifyRequest, plan: RoutePlan, values: SessionDefaultValues): string {
    const inQuery = fillDefaults(request.query, values, plan.query)
    const inBody = fillBody(request, plan, bodyPlacements(plan, request.headers['content-type']), values)
    if (inQuery.length === 0 && inBody.length === plan.body.length) return plan.bodyNames
    return listOf([...inQuery, ...inBody].map(({ name }) => name))
  }

  // Made at a route's first use: by then all shared schemas that it may refer to have been added.
  function planOf (request: FastifyRequest): RoutePlan {
    const route = request.routeOptions
    // One from before the registration was not looked at.
    requireKnownNames(route as RouteOptions, names)
    const plan = makePlan(route, request.server, placements)
    plans.set(route.config, plan)
    return plan
  }
}, { name: 'session-defaults', fastify: '5.x', dependencies: ['authentication', 'session-repository', 'tiers'] })

/** @param placements those of the body's media type */
function fillBody (request: FastifyRequest, plan: DefaultsPlan, placements: readonly Placement[], values: SessionDefaultValues): Placement[] {
  const { body } = request
  if (isFillable(body)) return isMultipart(request) ? [] : fillDefaults(body, values, placements)
  // A GET has no body to fill, and a DELETE gets one only where its schema asks for it.
  if (plan.undescribed && !bodyMethods.includes(request.method)) return []
  const wanted = placements.filter(({ name }) => Object.hasOwn(values, name))
  const beginning = beginningOfUnparsedJson(request)
  if (beginning !== undefined && wanted.some(({ path: [first] }) => beginning === '' || beginning === (first === eachItem ? '[' : '{'))) throw unparsed()
  if (!isBodyless(request)) {
    if (wanted.length > 0 && isUnread(request)) throw withoutType()
    if (wanted.length > 0 && plan.isReadable && !plan.undescribed && isJsonScalar(request)) throw notAnObject()
    return []
  }
  const created = {}
  const filled = fillDefaults(created, values, placements)
  if (filled.length > 0) request.body = created
  return filled
}

function unparsed (): ApiError {
  return new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: 'The session\'s defaults go into the JSON body, which this route does not parse. Send no X-Session-Id; the route has to take them by a function in config.sessionDefaults, or to leave them by false.' })
}

function withoutType (): ApiError {
  return new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: 'The session\'s defaults go into the body, and this one has no Content-Type. Send it with Content-Type: application/json, or send no X-Session-Id.' })
}
