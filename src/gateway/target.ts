import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { validationError } from '../errors.js'
import { meantHeader, refuseMisspeltSession } from '../misspelt-headers.js'
import { baseOf, parametersOf } from './fill-query.js'

/** By which some servers let a client name another method than the one that it sends. */
const methodOverrides: readonly string[] = ['x-http-method-override', 'x-http-method', 'x-method-override']

/** Likewise in the query string or the body. */
const methodParameter = '_method'

/** What follows the first question mark, as it was sent. */
export function queryOf (target: string): string {
  return target.split('?').slice(1).join('?')
}

/** Whether a method is another one than that of the request. Some servers take what is empty for none. */
function isOther (method: unknown, { method: own }: IncomingMessage): boolean {
  return !['', own].includes(String(method ?? '').toUpperCase())
}

/**
 * Refuses a parameter, of a query string or a body, by which some servers would take the request for one of another method, and so
 * for another operation: it may take other defaults. PHP takes names such as ` .method` for it.
 */
export function refuseOtherMethod (request: IncomingMessage, parameters: Iterable<readonly [name: string, value: unknown]>): void {
  for (const [name, value] of parameters) {
    if (/^[._]method$/.test(baseOf(name)) && isOther(value, request)) refuseOverride(methodParameter)
  }
}

function refuseOverride (field: string): never {
  refuse(field, 'must be the method of the request, or be left out, where a session is named')
}

/**
 * An `onRequest` hook that refuses what the gateway and the upstream could read as two different requests. What passes
 * goes upstream as it was sent, so that the operation whose defaults it was given is the one that gets them.
 */
export async function refuseAmbiguous (request: FastifyRequest): Promise<void> {
  const { raw, headers } = request
  // Others, such as h2c, are offers that a server may leave alone, and some clients make them with each request.
  if (/(^|[\s,])websocket([\s,/]|$)/i.test(headers.upgrade ?? '')) refuse('Upgrade', 'is not taken: WebSockets do not go through the gateway')
  // Node takes what is in chunks out of these, and says nothing of the rest, which would arrive as a body of another kind.
  if (!/^(?:chunked)?$/i.test(headers['transfer-encoding'] ?? '')) refuse('Transfer-Encoding', 'must be chunked and nothing else; what is compressed says so in Content-Encoding')
  refuseMisspeltSession(request)
  const target = raw.url!
  if (headers['x-session-id'] !== undefined) {
    const override = Object.keys(headers).find(name => methodOverrides.includes(meantHeader(name)) && isOther(headers[name], raw))
    if (override !== undefined) refuseOverride(override)
    refuseOtherMethod(raw, parametersOf(queryOf(target)))
  }
  if (!/^\/(?!\/)/.test(target)) refuse('url', 'must begin with one slash')
  if (/[\\#]/.test(target)) refuse('url', 'must not hold a backslash or #; encode them')
  const segments = decodeURIComponent(target.split('?', 1)[0]!).split(/[/\\]/)
  if (segments.some(segment => /^\.\.?(;|$)/.test(segment))) refuse('url', 'must not have the segments . and ..')
}

function refuse (field: string, reason: string): never {
  throw validationError('request', [{ field, reason }])
}
