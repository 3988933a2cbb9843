import { timingSafeEqual } from 'node:crypto'
import { type FastifyReply, type FastifyRequest } from 'fastify'

/** API keys in any place of a header's value, well-formed or not: what is nearly one must not be passed on either. */
const apiKey = /(^|[^0-9A-Za-z])sk_(free|pro|ent)_/

/** Whether an `Authorization` carries an API key of this service, as against the upstream's own credentials. */
export function isApiKeyAuthorization (authorization: string | undefined): boolean {
  return apiKey.test(authorization ?? '')
}

/**
 * The `onRequest` hook that lets requests through: all must carry a key, or, where the upstream is public, those that
 * carry one must carry a good one.
 */
export function admit (requireKey: boolean) {
  return async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    const { 'x-api-key': key, authorization } = request.headers
    if (requireKey || (key !== undefined && key !== '') || isApiKeyAuthorization(authorization)) {
      await request.server.requirePrincipal(request, reply)
    }
  }
}

/**
 * Whether a header's value has the admin key in it, in any place that is not within a word. How much of the key a value has right
 * makes no difference to the time that this takes.
 */
export function adminKeyTest (adminKey: string | undefined): (value: string) => boolean {
  if (!adminKey) return () => false
  const expected = Buffer.from(adminKey)
  return value => {
    const bytes = Buffer.from(value)
    let found = false
    for (let at = 0; at + expected.length <= bytes.length; at++) {
      const isWithinWord = at > 0 && isAlphanumeric(bytes[at - 1]!) && isAlphanumeric(bytes[at]!)
      if (!isWithinWord && timingSafeEqual(bytes.subarray(at, at + expected.length), expected)) found = true
    }
    return found
  }
}

/** In ASCII, by numbers: it is asked for each byte of a token that may have thousands. */
function isAlphanumeric (byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a)
}
