import fp from 'fastify-plugin'
import { app } from './app.js'

/**
 * Puts the sessions API and the `X-Session-Id` behaviour into a Fastify app: the app's own routes take the defaults
 * of the session that a request names. Register it with `await`, before the routes.
 */
const sipherSessions: typeof app = fp((fastify, options) => app(fastify, options), { name: 'sipher-sessions', fastify: '5.x' })

export default sipherSessions
export { sipherSessions }
export type { AppOptions as SipherSessionsOptions } from './app.js'
export { ApiError, errorCodes, type ApiErrorOptions, type ErrorCode, type ErrorDetail } from './errors.js'
export type { SessionDefaultsMapping } from './defaults/fill-defaults.js'
export type { Principal } from './plugins/authentication.js'
export type { ApplySessionDefaults } from './plugins/session-defaults.js'
export { tierLimits, type TierLimits, type TiersOptions } from './plugins/tiers.js'
export { secret } from './schemas/secret.js'
export { presetDefaults, type PresetDefaults, type SessionDefaults, type SessionDefaultValues, type SessionTypes } from './schemas/session.js'
export { tierNames, type Tier } from './schemas/tier.js'
