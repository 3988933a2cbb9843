import { type TObject } from '@sinclair/typebox'
import { type FastifyInstance, type FastifyReply, type FastifyRequest, type RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError, validationError, type ErrorCode } from '../errors.js'
import { fillDefaults } from '../fill-defaults.js'
import { propertyNames } from '../schemas/properties.js'
import { exampleSessionId, sessionIdPattern, type SessionDefaultValues } from '../schemas/session.js'
import { sendError } from './error-handler.js'
import { sessionTiers } from './tiers.js'

export interface SessionDefaultsOptions {
  /** What sessions hold. */
  defaults: TObject
  /**
   * What to do with a request that names no session of the caller's. `refuse` answers with the error; `ignore` lets
   * the request run without defaults, silently: only for hosts that must keep an older, lenient behaviour.
   * @default 'refuse'
   */
  onInvalid?: 'refuse' | 'ignore'
}

/** Which of the session's values a route takes, and where. Names stand in the order of the defaults' schema. */
interface RoutePlan {
  body: readonly string[]
  query: readonly string[]
  /** Whether the route describes neither: then it takes all values in its body. */
  undescribed: boolean
}

const header = 'x-session-id'

/** What `onInvalid: 'ignore'` is lenient about: the caller's errors, not the service's. */
const ignorable: readonly ErrorCode[] = [
  'VALIDATION_ERROR', 'UNAUTHORIZED', 'INVALID_API_KEY', 'TIER_ACCESS_DENIED', 'SESSION_NOT_FOUND'
]

declare module 'fastify' {
  interface FastifyRequest {
    /** What the session that the request names holds; null where it names none. */
    sessionDefaults: SessionDefaultValues | null
    /** The session that the request names, once its caller is known to be allowed sessions. */
    namedSession: string | null
  }
  interface FastifyContextConfig {
    /**
     * Which of a session's values the route takes: all that its schema has (the default), only those named, or none,
     * which also leaves the header unread.
     */
    sessionDefaults?: boolean | readonly string[]
  }
}

/**
 * Fills the values of the session that a request names into what the request left out, before validation, and
 * refuses the request when there is no such session.
 */
export default fp<SessionDefaultsOptions>(async (fastify, { defaults, onInvalid = 'refuse' }) => {
  const names = Object.keys(defaults.properties)
  const requireSessionTier = fastify.requireTier(...sessionTiers)
  const plans = new WeakMap<object, RoutePlan>()

  fastify.decorateRequest('sessionDefaults', null)
  fastify.decorateRequest('namedSession', null)

  fastify.addHook('onRoute', function (route) {
    documentHeader(route, this, makePlan(route, this, names))
  })

  fastify.addHook('onRequest', async (request, reply) => {
    const sessionId = request.headers[header]
    if (sessionId === undefined || request.is404 || request.routeOptions.config.sessionDefaults === false) return
    return refuseOrIgnore(request, reply, async () => {
      await fastify.requirePrincipal(request, reply)
      await requireSessionTier(request)
      if (typeof sessionId !== 'string' || !sessionIdPattern.test(sessionId)) {
        throw validationError('request', [{ field: 'X-Session-Id', reason: 'must be sess_ and 64 lower-case hex digits, as createSession answered it' }])
      }
      request.namedSession = sessionId
    })
  })

  fastify.addHook('preValidation', async (request, reply) => {
    const { namedSession } = request
    if (namedSession === null) return
    return refuseOrIgnore(request, reply, async () => {
      const session = await fastify.sessionRepository.use(namedSession, request.principal!.id)
      request.sessionDefaults = session.defaults
      const applied = applyDefaults(request, planOf(request), session.defaults)
      if (applied.size > 0) reply.header('x-session-applied', names.filter(name => applied.has(name)).join(', '))
    })
  })

  /**
   * The answer is sent here rather than thrown: it is this plugin's, in its envelope, on whichever host's route; the
   * host's error handler is for the host's errors.
   */
  async function refuseOrIgnore (request: FastifyRequest, reply: FastifyReply, step: () => Promise<void>): Promise<FastifyReply | undefined> {
    try {
      await step()
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      if (onInvalid === 'ignore' && ignorable.includes(error.code)) return
      return sendError(request, reply, error)
    }
  }

  // Made at a route's first use: by then all shared schemas that it may refer to have been added.
  function planOf (request: FastifyRequest): RoutePlan {
    const { config } = request.routeOptions
    let plan = plans.get(config)
    if (!plan) {
      plan = makePlan(request.routeOptions, request.server, names)
      plans.set(config, plan)
    }
    return plan
  }
}, { name: 'session-defaults', fastify: '5.x', dependencies: ['authentication', 'session-repository', 'tiers'] })

function makePlan (route: Pick<RouteOptions, 'schema' | 'config'>, instance: FastifyInstance, names: readonly string[]): RoutePlan {
  const selection = route.config?.sessionDefaults ?? true
  const selected = names.filter(name => Array.isArray(selection) ? selection.includes(name) : selection)
  const schema = route.schema
  const querystring = schema?.querystring ?? (schema as { query?: unknown } | undefined)?.query
  const undescribed = schema?.body === undefined && querystring === undefined
  const taken = (part: unknown) => {
    const properties = propertyNames(part, id => instance.getSchema(id))
    return selected.filter(name => properties.has(name))
  }
  return { body: undescribed ? selected : taken(schema?.body), query: taken(querystring), undescribed }
}

/** Fills in what is missing, in place, and returns the names of what was filled in. */
function applyDefaults (request: FastifyRequest, plan: RoutePlan, values: SessionDefaultValues): Set<string> {
  const applied = new Set(fillDefaults(request.query as Record<string, unknown>, values, plan.query))
  const { body } = request
  if (isBodyless(request)) {
    // A GET has no body to fill, and a DELETE gets one only where its schema asks for it.
    if (plan.undescribed && !['POST', 'PUT', 'PATCH'].includes(request.method)) return applied
    const created = {}
    const filled = fillDefaults(created, values, plan.body)
    if (filled.length > 0) request.body = created
    filled.forEach(name => applied.add(name))
  } else if (isPlainObject(body) && !request.headers['content-type']?.startsWith('multipart/')) {
    fillDefaults(body, values, plan.body).forEach(name => applied.add(name))
  }
  return applied
}

/** Whether nothing was sent, as against a body that no parser of the route has turned into a value. */
function isBodyless ({ body, headers }: FastifyRequest): boolean {
  return body === undefined && headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0
}

function isPlainObject (value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** Puts the header into the schema of a route that takes values, from which OpenAPI documents are made. */
function documentHeader (route: RouteOptions, instance: FastifyInstance, plan: RoutePlan): void {
  const names = [...new Set([...plan.query, ...plan.body])]
  if (names.length === 0) return
  // A validator of the host's own may not know JSON Schema; a route with a plan has shown that it does.
  if (plan.undescribed && (instance.validatorCompiler || !['POST', 'PUT', 'PATCH'].includes(String(route.method)))) return
  const headers = (route.schema?.headers ?? { type: 'object' }) as { properties?: Record<string, unknown>, $ref?: string }
  if (headers.$ref !== undefined) return
  route.schema = {
    ...route.schema,
    headers: {
      ...headers,
      properties: {
        ...headers.properties,
        'X-Session-Id': {
          type: 'string',
          description: `Fills in what the request leaves out, from this session: ${names.join(', ')}.`,
          examples: [exampleSessionId]
        }
      }
    }
  }
}
