import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { mergeVary } from '../defaults/vary.js'
import { meantHeader } from '../misspelt-headers.js'
import { adminKeyTest, isApiKeyAuthorization } from './credentials.js'

export interface HeaderOptions {
  /**
   * Whether the API key and X-Session-Id go upstream as well. The admin key never does.
   * @default false
   */
  forwardCredentials?: boolean
  /**
   * The header that tells the upstream the id of the key's record; false for none.
   * @default 'X-Principal-Id'
   */
  principalIdHeader?: string | false
  /**
   * The header that tells the upstream the key's tier; false for none.
   * @default 'X-Principal-Tier'
   */
  principalTierHeader?: string | false
}

/** What holds for one connection only (RFC 9110, 7.6.1), and `Expect`, which this end has answered already. */
const hopByHop = [
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer',
  'transfer-encoding', 'upgrade', 'http2-settings', 'expect'
]

const defaultPrincipalHeaders = ['X-Principal-Id', 'X-Principal-Tier'] as const

/** What a request's headers are made from. */
type Origin = Pick<FastifyRequest, 'id' | 'ip' | 'ips' | 'protocol' | 'host' | 'principal'>

/** The headers in which the gateway says something of the request, in lower case, which the principal's are not to be. */
export const requestHeaderNames = ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-request-id'] as const

/** Makes the headers that go upstream of those that came. What the gateway says, the client cannot say in its place. */
export function requestHeaders (options: HeaderOptions & { adminKey?: string | undefined }) {
  const { forwardCredentials = false, principalIdHeader = defaultPrincipalHeaders[0], principalTierHeader = defaultPrincipalHeaders[1] } = options
  const isAdminKey = adminKeyTest(options.adminKey)
  const principalHeaders = [principalIdHeader, principalTierHeader].map(name => name === false ? undefined : name.toLowerCase())
  const stripped = new Set([
    ...hopByHop, 'forwarded', 'x-real-ip', 'x-request-id',
    ...defaultPrincipalHeaders.map(name => name.toLowerCase()),
    ...principalHeaders.filter(name => name !== undefined)
  ])
  const isCredential = (name: string, value: string) => {
    if (name !== 'x-api-key' && name !== 'authorization' && name !== 'x-session-id') return false
    return isAdminKey(value) || (!forwardCredentials && (name !== 'authorization' || isApiKeyAuthorization(value)))
  }

  return (request: Origin, headers: IncomingHttpHeaders): IncomingHttpHeaders => {
    const { principal } = request
    const [idHeader, tierHeader] = principalHeaders
    // First what the gateway says itself: servers leave out what comes after as many lines as they read.
    const forwarded: IncomingHttpHeaders & Record<typeof requestHeaderNames[number], string> = {
      // Of the addresses before this one, only those that a proxy of ours has vouched for.
      'x-forwarded-for': [...request.ips ?? [request.ip]].reverse().join(', '),
      'x-forwarded-proto': request.protocol,
      'x-forwarded-host': request.host,
      'x-request-id': request.id
    }
    if (principal && idHeader !== undefined) forwarded[idHeader] = principal.id
    if (principal && tierHeader !== undefined) forwarded[tierHeader] = principal.tier
    for (const [name, value] of Object.entries(headers)) {
      const meant = meantHeader(name)
      if (stripped.has(meant) || meant.startsWith('x-forwarded-') || isCredential(meant, String(value))) continue
      forwarded[name] = value
    }
    return forwarded
  }
}

/**
 * The upstream's headers without what holds for its connection, or would contradict what the gateway says itself. What the
 * upstream answers may depend on who asks, which it is told in headers that caches do not see: `Vary` names those that they do.
 *
 * @param base the upstream's URL
 * @param request whose principal the gateway has counted it against, if any, and tells what is left of that one's limit
 * @param vary what the answer depends on for the service's own reasons
 */
export function responseHeaders (headers: IncomingHttpHeaders, base: URL, { protocol, principal }: Pick<Origin, 'protocol' | 'principal'>, vary: unknown): IncomingHttpHeaders {
  // A list where the upstream sent several lines of it, whatever the type says.
  const listed = [headers.connection ?? []].flat().join().toLowerCase().split(',').map(name => name.trim())
  const stripped = new Set([...hopByHop, ...listed, 'x-request-id', 'x-session-applied'])
  const kept = Object.entries(headers).filter(([name]) => !stripped.has(name) && !(principal && name.startsWith('ratelimit-')))
  return {
    ...Object.fromEntries(kept),
    ...(typeof headers.location === 'string' && { location: throughGateway(headers.location, base, protocol) }),
    vary: mergeVary(vary, headers.vary, 'X-API-Key, Authorization')
  }
}

/**
 * A `Location` by which a client stays at the gateway. Many servers make a whole URL of the host that they were asked by, which is
 * the upstream's: whoever followed it would go around the gateway, without the session's defaults and with the key.
 *
 * @param protocol by which the client has asked
 */
function throughGateway (location: string, base: URL, protocol: string): string {
  // What is no ASCII has been read as bytes.
  const written = location.replaceAll(/[\x80-\xff]/g, byte => `%${byte.charCodeAt(0).toString(16)}`)
  if (!/^(?:https?:)?[/\\]{2}/i.test(location) || !URL.canParse(written, base.href)) return location
  const { host, protocol: to, pathname, search, hash } = new URL(written, base)
  // From http to https, of who was not asked by https, is no way back to the same server.
  if (host !== base.host || (to === 'https:' && base.protocol === 'http:' && protocol === 'http')) return location
  const [prefix, path] = [base.pathname.replace(/\/+$/, ''), pathname].map(path => path.replaceAll(/%[0-9a-f]{2}/gi, escape => escape.toUpperCase())) as [string, string]
  if (path !== prefix && !path.startsWith(`${prefix}/`)) return location
  const rest = pathname.slice(prefix.length)
  // Of two slashes at its beginning the first name would be a host.
  return (rest.startsWith('//') ? `/.${rest}` : rest || '/') + search + hash
}
