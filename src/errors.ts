/** One thing that was wrong with a request: where, and what. */
export interface ErrorDetail {
  /** A dotted path in the body (`defaults.chain`), or the name of a parameter or header. */
  field: string
  /** What is wrong with it, to be read behind the field: `must be string`. */
  reason: string
}

interface ErrorCodeEntry {
  status: number
  /** When it is answered, as the documents print it. */
  description: string
  /** A realistic body for the OpenAPI document. */
  example: { message: string, details?: ErrorDetail[] }
  /** What every answer of it has, unless whoever throws it says otherwise. */
  headers?: Record<string, string>
}

/** How to send a credential, for those who have sent none that is valid (RFC 9110, 11.6.1). */
const challenge = { 'www-authenticate': 'Bearer realm="sipher-sessions"' }

/**
 * Every error code of the API. `GET /v1/errors`, the OpenAPI document and the table in `docs/errors.md` are made from
 * it or held equal to it by a test.
 */
export const errorCodes = {
  VALIDATION_ERROR: {
    status: 400,
    description: 'A parameter, a header or the body is not what the operation takes; `details` names each problem, of the first twenty.',
    example: {
      message: 'The body is not valid: defaults.chian is not a known field; did you mean "chain"?',
      details: [{ field: 'defaults.chian', reason: 'is not a known field; did you mean "chain"?' }]
    }
  },
  INVALID_JSON: {
    status: 400,
    description: 'The body is not JSON.',
    example: { message: 'The body is not valid JSON: Unexpected end of JSON input. Send one JSON object.' }
  },
  UNAUTHORIZED: {
    status: 401,
    description: 'The request carries no API key.',
    example: { message: 'This operation needs an API key. Send it as X-API-Key: <key> or Authorization: Bearer <key>.' },
    headers: challenge
  },
  INVALID_API_KEY: {
    status: 401,
    description: 'The API key is unknown, revoked or expired.',
    example: { message: 'The API key is unknown, revoked or expired. Check it, or ask the operator for a new one.' },
    headers: challenge
  },
  TIER_ACCESS_DENIED: {
    status: 403,
    description: 'The key\'s tier does not include the operation.',
    example: { message: 'This operation needs a key of tier pro or enterprise; this key is of tier free.' }
  },
  SESSION_NOT_FOUND: {
    status: 404,
    description: 'There is no such session for this key: it never existed, has expired, was deleted, or is another key\'s.',
    example: { message: 'There is no such session for this key. It may have expired or been deleted; create a new one with POST /v1/sessions.' }
  },
  KEY_NOT_FOUND: {
    status: 404,
    description: 'There is no API key with this id.',
    example: { message: 'There is no API key with this id. GET /v1/admin/keys lists them.' }
  },
  NOT_FOUND: {
    status: 404,
    description: 'There is no such operation.',
    example: { message: 'There is no POST /v1/session. GET /v1/openapi.json lists the operations.' }
  },
  REQUEST_TIMEOUT: {
    status: 408,
    description: 'The client took too long to send its request.',
    example: { message: 'The request was not sent whole within 60 s. Send it again.' }
  },
  SESSION_LIMIT_REACHED: {
    status: 409,
    description: 'The key has as many sessions as its tier allows at the same time.',
    example: { message: 'This key may have 1000 sessions at the same time, and has as many or more. Delete some, or wait until they expire.' }
  },
  KEY_NOT_ACTIVE: {
    status: 409,
    description: 'The API key is revoked, or it has expired and the operation needs one that has not.',
    example: { message: 'This API key is revoked, which is for good. Create a new one with POST /v1/admin/keys.' }
  },
  PAYLOAD_TOO_LARGE: {
    status: 413,
    description: 'The body is larger than the operation takes.',
    example: { message: 'The body is larger than the 65536 bytes that this operation takes. Send a smaller one.' }
  },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    description: 'The body is not sent as JSON.',
    example: { message: 'This operation takes JSON. Send it with Content-Type: application/json.' }
  },
  RATE_LIMIT_EXCEEDED: {
    status: 429,
    description: 'The key\'s requests of this hour are used up, or too many authentications from this address failed.',
    example: { message: 'This key may make 10000 requests an hour, and they are used up. Try again in 1200 s.' }
  },
  REQUEST_HEADERS_TOO_LARGE: {
    status: 431,
    description: 'The request\'s headers are larger, or more, than are read.',
    example: { message: 'The request has more than 16384 bytes of headers. Send fewer or shorter ones.' }
  },
  INTERNAL_SERVER_ERROR: {
    status: 500,
    description: 'The service failed. Its log has the cause under the request\'s id.',
    example: { message: 'The service failed to answer this request. The operator finds the cause under the request id in X-Request-Id.' }
  },
  UPSTREAM_UNAVAILABLE: {
    status: 502,
    description: 'The API behind the gateway cannot be reached, or has broken off.',
    example: { message: 'The API behind this gateway cannot be reached. Whether it has acted on the request is not known.' }
  },
  SERVICE_UNAVAILABLE: {
    status: 503,
    description: 'The database cannot be reached at the moment, or the secret values of the session cannot be decrypted.',
    example: { message: 'The service cannot reach its database at the moment. Try again in 1 s.' },
    headers: { 'retry-after': '1' }
  },
  ADMIN_DISABLED: {
    status: 503,
    description: 'The service runs without an admin key.',
    example: { message: 'The admin operations are off: the service was started without ADMIN_API_KEY.' },
    headers: { 'retry-after': '3600' }
  },
  UPSTREAM_TIMEOUT: {
    status: 504,
    description: 'The API behind the gateway has not begun to answer in time.',
    example: { message: 'The API behind this gateway has not begun to answer in time. Whether it has acted on the request is not known.' }
  }
} as const satisfies Record<string, ErrorCodeEntry>

/** The code of an error of the API: what clients branch on. */
export type ErrorCode = keyof typeof errorCodes

export interface ApiErrorOptions {
  /** Instead of the code's own message. */
  message?: string
  details?: ErrorDetail[]
  /** Response headers, such as `retry-after`, besides and before those of the code. */
  headers?: Record<string, string>
  cause?: unknown
}

/** An error with a code of the API. Whoever throws it chooses the code; status and standard message follow from it. */
export class ApiError extends Error {
  readonly code: ErrorCode
  /** The HTTP status of the answer, by which Fastify's own error handler goes as well. */
  readonly statusCode: number
  /** Each problem of a `VALIDATION_ERROR`; undefined for others. */
  readonly details: ErrorDetail[] | undefined
  /** The headers of the answer besides the usual ones. */
  readonly headers: Record<string, string>

  constructor (code: ErrorCode, options: ApiErrorOptions = {}) {
    const { status, example, headers }: ErrorCodeEntry = errorCodes[code]
    super(options.message ?? example.message, { cause: options.cause })
    this.name = 'ApiError'
    this.code = code
    this.statusCode = status
    this.details = options.details
    this.headers = { ...headers, ...options.headers }
  }

  /** The body of the answer. */
  toJSON () {
    const { code, message, details } = this
    return { success: false as const, error: { code, message, ...(details && { details }) } }
  }
}

/** An `ApiError` of code `VALIDATION_ERROR` whose message names the first problem, and its details all. */
export function validationError (where: string, details: ErrorDetail[]): ApiError {
  const [first] = details
  const more = details.length > 1 ? ` (and ${details.length - 1} more, in details)` : ''
  return new ApiError('VALIDATION_ERROR', {
    message: `The ${where} is not valid: ${first?.field} ${first?.reason}${more}`,
    details
  })
}
