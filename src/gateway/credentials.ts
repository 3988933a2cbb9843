import { randomInt, timingSafeEqual } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { keyBeginning } from '../api-key.js'

/** API keys in any place of a header's value, well-formed or not: what is nearly one must not be passed on either. */
const apiKey = new RegExp(`(?:^|[^0-9A-Za-z])${keyBeginning}`)

/** Whether an `Authorization` carries an API key of this service, as against the upstream's own credentials. */
export function isApiKeyAuthorization (authorization = ''): boolean {
  return apiKey.test(authorization) || apiKey.test(basicCredentials(authorization))
}

/** The user name and password that a Basic `Authorization` has (RFC 7617); empty for any other. */
function basicCredentials (authorization: string): string {
  const [, encoded = ''] = /^basic[ \t]+(.*)$/i.exec(authorization) ?? []
  return Buffer.from(encoded, 'base64').toString()
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
 * Whether a header's value has the admin key in it, in any place that is not within a word, or in Basic credentials. How much of the key a value has right
 * makes no difference to the time that this takes.
 */
export function adminKeyTest (adminKey: string | undefined): (value: string) => boolean {
  if (!adminKey) return () => false
  const expected = Buffer.from(adminKey)
  const { length } = expected
  // By a hash that goes along (Rabin and Karp, 1987) with a factor that nobody knows: to compare the key at each place would take
  // milliseconds for a long header, and to stop where it differs would tell how much of it is right.
  const factor = randomInt(2 ** 31) * 2 + 1
  const hash = (bytes: Buffer) => bytes.reduce((sum, byte) => (Math.imul(sum, factor) + byte) | 0, 0)
  const wanted = hash(expected)
  const leaving = expected.reduce(power => Math.imul(power, factor), 1)
  const isIn = (text: string) => {
    const bytes = Buffer.from(text)
    let found = false
    let sum = hash(bytes.subarray(0, length))
    for (let at = 0; at + length <= bytes.length; at++) {
      const isWithinWord = at > 0 && isAlphanumeric(bytes[at - 1]!) && isAlphanumeric(bytes[at]!)
      if (sum === wanted && !isWithinWord && timingSafeEqual(bytes.subarray(at, at + length), expected)) found = true
      sum = (Math.imul(sum, factor) + (bytes[at + length] ?? 0) - Math.imul(leaving, bytes[at]!)) | 0
    }
    return found
  }
  return value => isIn(value) || isIn(basicCredentials(value))
}

/** In ASCII, by numbers: it is asked for each byte of a token that may have thousands. */
function isAlphanumeric (byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a)
}
