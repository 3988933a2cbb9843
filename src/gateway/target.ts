import { type FastifyRequest } from 'fastify'
import { validationError } from '../errors.js'
import { meantHeader } from './headers.js'

/** By which some servers let a client name another method than the one that it sends. */
const methodOverrides: readonly string[] = ['x-http-method-override', 'x-http-method', 'x-method-override']

/** Likewise in the query string. */
const methodParameter = '_method'

/** What follows the first question mark, as it was sent. */
export function queryOf (target: string): string {
  return target.split('?').slice(1).join('?')
}

/** PHP takes names such as ` .method` for it. */
function methodsIn (target: string): string[] {
  const parameters = new URLSearchParams(`?${queryOf(target)}`)
  return [...parameters].flatMap(([name, value]) => /^\s*[._]method(?:\0|$)/.test(name) ? [value] : [])
}

/**
 * An `onRequest` hook that refuses what the gateway and the upstream could read as two different requests. What passes
 * goes upstream as it was sent, so that the operation whose defaults it was given is the one that gets them.
 */
export async function refuseAmbiguous ({ raw, headers }: FastifyRequest): Promise<void> {
  // Others, such as h2c, are offers that a server may leave alone, and some clients make them with each request.
  if (/(^|[\s,])websocket([\s,/]|$)/i.test(headers.upgrade ?? '')) refuse('Upgrade', 'is not taken: WebSockets do not go through the gateway')
  // Node takes what is in chunks out of these, and says nothing of the rest, which would arrive as a body of another kind.
  if (!/^(?:chunked)?$/i.test(headers['transfer-encoding'] ?? '')) refuse('Transfer-Encoding', 'must be chunked and nothing else; what is compressed says so in Content-Encoding')
  // Not read: the request would go without the session that somebody means.
  const misspelt = headers['x-session-id'] === undefined && Object.keys(headers).find(name => /[^0-9a-z-]/.test(name) && meantHeader(name) === 'x-session-id')
  if (misspelt) refuse(misspelt, 'is no header that is read; write X-Session-Id')
  // Of another method, another operation: it may take other defaults.
  const target = raw.url!
  if (headers['x-session-id'] !== undefined) {
    const isOther = (method: unknown) => !['', raw.method].includes(String(method).toUpperCase())
    const override = Object.keys(headers).find(name => methodOverrides.includes(meantHeader(name)) && isOther(headers[name])) ?? (methodsIn(target).some(isOther) ? methodParameter : undefined)
    if (override !== undefined) refuse(override, 'must be the method of the request, or be left out, where a session is named')
  }
  if (!/^\/(?!\/)/.test(target)) refuse('url', 'must begin with one slash')
  if (/[\\#]/.test(target)) refuse('url', 'must not hold a backslash or #; encode them')
  const segments = decodeURIComponent(target.split('?', 1)[0]!).split(/[/\\]/)
  if (segments.some(segment => /^\.\.?(;|$)/.test(segment))) refuse('url', 'must not have the segments . and ..')
}

function refuse (field: string, reason: string): never {
  throw validationError('request', [{ field, reason }])
}
