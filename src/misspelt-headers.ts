import type { FastifyRequest } from 'fastify'
import { validationError } from './errors.js'

/**
 * The header that a name stands for to some servers: CGI and WSGI cannot tell `X_Principal_Id` from `X-Principal-Id`, and some servers
 * no other mark either, such as in `X.Principal.Id`.
 */
export function meantHeader (name: string): string {
  return name.replaceAll(/[^0-9a-z]/g, '-')
}

/** Refuses `X_Session_Id` and its like, which is not read: the request would go without the session that somebody means. */
export function refuseMisspeltSession ({ headers }: FastifyRequest): void {
  const misspelt = headers['x-session-id'] === undefined && Object.keys(headers).find(name => /[^0-9a-z-]/.test(name) && meantHeader(name) === 'x-session-id')
  if (misspelt) throw validationError('request', [{ field: misspelt, reason: 'is no header that is read; write X-Session-Id' }])
}
