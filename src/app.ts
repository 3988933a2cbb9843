import type { TObject } from '@sinclair/typebox'
import type { FastifyPluginAsync } from 'fastify'
import { checkHost } from './check-host.js'
import { checkOptions } from './check-options.js'
import apiKeyRepository from './plugins/api-key-repository.js'
import auditRepository, { type AuditOptions } from './plugins/audit-repository.js'
import authentication, { type AuthenticationOptions } from './plugins/authentication.js'
import database, { type DatabaseOptions } from './plugins/database.js'
import expiredRows, { type ExpiredRowsOptions } from './plugins/expired-rows.js'
import type { OpenApiOptions } from './plugins/openapi.js'
import rateLimit, { type RateLimitOptions } from './plugins/rate-limit.js'
import requestCountRepository from './plugins/request-count-repository.js'
import sessionDefaults, { type SessionDefaultsOptions } from './plugins/session-defaults.js'
import sessionRepository, { type SessionRepositoryOptions } from './plugins/session-repository.js'
import tiers, { type TiersOptions } from './plugins/tiers.js'
import { routes } from './routes/index.js'
import { presetDefaults } from './schemas/session.js'

/** The options of the plugin: a database, and what is to be other than by default. A wrong one ends the start with an error that names it. */
export interface AppOptions extends DatabaseOptions, AuthenticationOptions,
  AuditOptions, TiersOptions, RateLimitOptions, ExpiredRowsOptions,
  OpenApiOptions, Pick<SessionDefaultsOptions, 'mapping' | 'onInvalid'>, Pick<SessionRepositoryOptions, 'encryptionKeys'> {
  /**
   * What sessions hold: a TypeBox object. It is closed, whatever it says of additional properties.
   * @default the preset: chain, privacyLevel, rpcProvider, backend and defaultViewingKey
   */
  defaults?: TObject
  /**
   * Where the API's operations are.
   * @default '/v1'
   */
  prefix?: string
}

/** The composition root: every plugin in the order in which it acts, then the routes. */
export const app: FastifyPluginAsync<AppOptions> = async (fastify, { defaults = presetDefaults, prefix = '/v1', ...options }) => {
  for (const unknown of checkOptions({ prefix, ...options })) fastify.log.warn(`sipher-sessions has no option ${unknown}`)
  checkHost(fastify, prefix)
  await fastify.register(database, options)
  await fastify.register(auditRepository, options)
  await fastify.register(apiKeyRepository)
  await fastify.register(sessionRepository, { defaults, ...options })
  await fastify.register(tiers, options)
  await fastify.register(requestCountRepository)
  await fastify.register(expiredRows, options)
  await fastify.register(rateLimit, options)
  await fastify.register(authentication, options)
  await fastify.register(sessionDefaults, { defaults, ...options })
  await fastify.register(routes, { ...options, defaults, apiPrefix: prefix })
}
