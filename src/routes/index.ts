import type { TObject } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyPluginAsync, FastifyRequest, RouteOptions } from 'fastify'
import type { SessionDefaultsMapping } from '../defaults/fill-defaults.js'
import { validationError, type ErrorCode } from '../errors.js'
import errorHandler from '../plugins/error-handler.js'
import openapiPlugin, { type OpenApiOptions } from '../plugins/openapi.js'
import { sessionTiers } from '../plugins/tiers.js'
import validation, { requireNoQuery } from '../plugins/validation.js'
import { apiKeySchemas } from '../schemas/api-key.js'
import { ErrorResponse, failures } from '../schemas/envelope.js'
import { rateLimitHeaders, requestIdHeader, withHeaders } from '../schemas/response-headers.js'
import { createSessionSchemas } from '../schemas/session.js'
import { createApiKey } from './admin/create-key.js'
import { getApiKey } from './admin/get-key.js'
import { listAudit } from './admin/list-audit.js'
import { listApiKeys } from './admin/list-keys.js'
import { listTiers } from './admin/list-tiers.js'
import { revokeApiKey } from './admin/revoke-key.js'
import { rotateApiKey } from './admin/rotate-key.js'
import { updateApiKey } from './admin/update-key.js'
import { errors } from './errors.js'
import { health } from './health.js'
import { limits } from './limits.js'
import { openapi } from './openapi.js'
import { ready } from './ready.js'
import { getResolve } from './resolve/get.js'
import { postResolve } from './resolve/post.js'
import { createSession } from './sessions/create.js'
import { deleteSession } from './sessions/delete.js'
import { getSession } from './sessions/get.js'
import { updateSession } from './sessions/update.js'
import { unknownRoutes } from './unknown.js'

export interface RoutesOptions extends OpenApiOptions {
  mapping?: SessionDefaultsMapping
  defaults: TObject
  /** Where the operations are; not `prefix`, which Fastify would also put before Swagger UI. */
  apiPrefix: string
}

const bodyLimit = 64 * 1024

/** The longest time that a timer takes, in milliseconds. */
const longestTimeoutMs = 2 ** 31 - 1

/** The API, its document and Swagger UI, in a scope of their own: no host around it is touched by its settings. */
export const routes: FastifyPluginAsync<RoutesOptions> = async (fastify, { defaults, mapping, apiPrefix, ...options }) => {
  fastify.addHook('onRoute', route => {
    route.config = { ...route.config, sessionsApi: true }
  })
  await fastify.register(openapiPlugin, options)
  await fastify.register(api, { defaults, mapping, prefix: apiPrefix })
}

/** Who may use what. */
const api: FastifyPluginAsync<Pick<RoutesOptions, 'defaults' | 'mapping'>> = async (fastify, { defaults, mapping }) => {
  const schemas = createSessionSchemas(defaults)
  await fastify.register(errorHandler)
  await fastify.register(validation)
  // Sessions hold secrets, and what was read a moment ago may have been deleted since.
  fastify.addHook('onRequest', (_request, reply, done) => {
    reply.header('cache-control', 'no-store')
    done()
  })
  await fastify.register(unknownRoutes)
  for (const schema of [ErrorResponse, ...Object.values(schemas), ...Object.values(apiKeySchemas)]) fastify.addSchema(schema)

  await fastify.register(async (anyone) => {
    describeRoutes(anyone, { security: [], codes: namedSessionFailures })
    await anyone.register(health)
    await anyone.register(ready)
    await anyone.register(errors)
    await anyone.register(openapi)
  })

  await fastify.register(async (anyKey) => {
    describeRoutes(anyKey, { security: [{ ApiKeyAuth: [] }, { BearerAuth: [] }], codes: namedSessionFailures, isCounted: true })
    anyKey.addHook('onRequest', fastify.requirePrincipal)
    await anyKey.register(limits)
    await anyKey.register(getResolve, { defaults })
    await anyKey.register(postResolve, { defaults, mapping })
  })

  await fastify.register(async (proAndUp) => {
    describeRoutes(proAndUp, { security: [{ ApiKeyAuth: [] }, { BearerAuth: [] }], isCounted: true })
    proAndUp.addHook('onRoute', refuseQuery)
    proAndUp.addHook('onRequest', fastify.requirePrincipal)
    proAndUp.addHook('onRequest', fastify.requireTier(...sessionTiers))
    await proAndUp.register(createSession, { schemas })
    await proAndUp.register(getSession, { schemas })
    await proAndUp.register(updateSession, { schemas })
    await proAndUp.register(ignoringBodies(deleteSession), { schemas })
  })

  await fastify.register(async (admin) => {
    describeRoutes(admin, { security: [{ AdminKeyAuth: [] }, { BearerAuth: [] }], codes: ['VALIDATION_ERROR'] })
    admin.addHook('onRoute', route => {
      route.config = { ...route.config, sessionDefaults: false }
    })
    admin.addHook('onRoute', refuseQuery)
    admin.addHook('onRequest', fastify.requireAdminKey)
    admin.addHook('onRequest', refuseSession)
    await admin.register(createApiKey)
    await admin.register(listApiKeys)
    await admin.register(getApiKey)
    await admin.register(updateApiKey)
    await admin.register(rotateApiKey)
    await admin.register(ignoringBodies(revokeApiKey))
    await admin.register(listTiers)
    await admin.register(listAudit)
  }, { prefix: '/admin' })
}

/** The operation as one that leaves unread what a client sends in its body: with DELETE it means nothing (RFC 9110, 9.3.5). */
function ignoringBodies<Options extends object> (operation: FastifyPluginAsyncTypebox<Options>): FastifyPluginAsync<Options> {
  return async (scope, options) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, payload, done) => {
      payload.resume()
      done(null)
    })
    // One that cannot be read would be refused before any parser is asked.
    scope.addHook('onRequest', ({ raw }, _reply, done) => {
      delete raw.headers['content-type']
      done()
    })
    await scope.register(operation, options as never)
  }
}

/** Refuses query strings on a route that takes none, as unknown fields of a body are: `?ttlSeconds=60` would be ignored. */
function refuseQuery (route: RouteOptions): void {
  if (route.schema?.querystring === undefined) route.preValidation = [requireNoQuery, ...[route.preValidation ?? []].flat()]
}

/** The admin key has no sessions, and an operation must not run as if it had not named one. */
async function refuseSession ({ headers }: FastifyRequest): Promise<void> {
  if (headers['x-session-id'] !== undefined) throw validationError('request', [{ field: 'X-Session-Id', reason: 'is not for admin operations, which take no session; leave it out' }])
}

/** What a request that names a session can be answered on any route. */
const namedSessionFailures = [
  'VALIDATION_ERROR', 'UNAUTHORIZED', 'INVALID_API_KEY', 'TIER_ACCESS_DENIED', 'SESSION_NOT_FOUND', 'RATE_LIMIT_EXCEEDED',
  'SERVICE_UNAVAILABLE'
] as const satisfies ErrorCode[]

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the API's own document says of the keys that a route takes; a host's document does not know the schemes. */
    security?: Record<string, []>[]
  }
}

interface RouteDescription {
  /** The keys that the routes take. */
  security: Record<string, []>[]
  /** What every route can be answered, besides its own errors. */
  codes?: readonly ErrorCode[]
  /** Whether a request is counted against its key. */
  isCounted?: boolean
}

/** Answers to who is not known, or where counting may have failed. */
const uncountedStatuses = [401, 503]

/** Says in the OpenAPI document what the hooks of the scope demand and answer, and keeps bodies small. */
function describeRoutes (scope: FastifyInstance, { security, codes = [], isCounted = false }: RouteDescription): void {
  scope.addHook('onRoute', route => {
    const response = { ...(codes.length > 0 && failures(...codes)), ...route.schema?.response as object }
    const counted = withHeaders(response, rateLimitHeaders, status => isCounted && !uncountedStatuses.includes(status))
    route.schema = { ...route.schema, response: withHeaders(counted, requestIdHeader, () => true) }
    route.config = { ...route.config, security }
    route.bodyLimit ??= bodyLimit
    // A host's would answer 503 for what is then carried out; the service has limits of its own.
    if ((scope.initialConfig as { handlerTimeout?: number }).handlerTimeout! > 0) route.handlerTimeout = longestTimeoutMs
  })
}
