/**
 * Headers of answers, as `headers` of a route's `response` entries: the OpenAPI document and the clients made from it know them by
 * these. They are described here, and set where they are known.
 */
export type ResponseHeaders = Record<string, { type: 'integer' | 'string', description: string }>

export const requestIdHeader: ResponseHeaders = {
  'X-Request-Id': { type: 'string', description: 'The id under which the log has the request.' }
}

export const challengeHeader: ResponseHeaders = {
  'WWW-Authenticate': { type: 'string', description: 'The scheme by which to authenticate.' }
}

export const retryAfterHeader: ResponseHeaders = {
  'Retry-After': { type: 'integer', description: 'Seconds after which to try again.' }
}

export const rateLimitHeaders: ResponseHeaders = {
  'RateLimit-Limit': { type: 'integer', description: 'Requests that the key may make in an hour. Absent, as the other two, where the request was not counted.' },
  'RateLimit-Remaining': { type: 'integer', description: 'Those that are left.' },
  'RateLimit-Reset': { type: 'integer', description: 'Seconds until the hour ends, and the count begins anew.' }
}

export const appliedHeader: ResponseHeaders = {
  'X-Session-Applied': { type: 'string', description: 'The defaults that were filled in, such as `chain, privacyLevel`; absent where there are none.' }
}

/** The `response` entries of a route, with more headers for the statuses that carry them. */
export function withHeaders (response: object, headers: ResponseHeaders, isCarrier: (status: number) => boolean): Record<string, unknown> {
  return Object.fromEntries(Object.entries(response as Record<string, { headers?: ResponseHeaders }>).map(([status, entry]) =>
    [status, isCarrier(Number(status)) ? { ...entry, headers: { ...headers, ...entry.headers } } : entry]))
}
