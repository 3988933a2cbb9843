import { createHash, timingSafeEqual } from 'node:crypto'
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

/** Whether a header's value is the admin key, bare or as a bearer token. Takes the same time whatever is sent. */
export function adminKeyTest (adminKey: string | undefined): (value: string) => boolean {
  if (!adminKey) return () => false
  const digest = (text: string) => createHash('sha256').update(text).digest()
  const expected = digest(adminKey)
  return value => timingSafeEqual(digest(value.replace(/^bearer +/i, '').trim()), expected)
}
