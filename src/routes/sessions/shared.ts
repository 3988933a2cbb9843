import type { ErrorCode } from '../../errors.js'
import type { SessionSchemas } from '../../schemas/session.js'

export interface SessionRouteOptions {
  schemas: SessionSchemas
}

/** What every session operation can answer besides its own errors. */
export const sessionFailures = [
  'VALIDATION_ERROR', 'UNAUTHORIZED', 'INVALID_API_KEY', 'TIER_ACCESS_DENIED', 'RATE_LIMIT_EXCEEDED', 'SERVICE_UNAVAILABLE'
] as const satisfies ErrorCode[]

/** The session is named by the path: the four operations leave X-Session-Id unread. */
export const config = { sessionDefaults: false } as const
