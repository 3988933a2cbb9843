import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { DecryptionError } from './encryption.js'
import { ApiError, validationError } from './errors.js'

/** The API's error for whatever a route or the framework has thrown. What is not the caller's fault hides its cause. */
function toApiError (error: unknown, request: FastifyRequest, reply: FastifyReply): ApiError {
  if (error instanceof ApiError) return error
  const { code = '', statusCode = 500, message } = error as Partial<FastifyError>
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new ApiError('PAYLOAD_TOO_LARGE', { message: `The body is larger than the ${request.routeOptions.bodyLimit} bytes that this operation takes. Send a smaller one.`, cause: error })
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return new ApiError('UNSUPPORTED_MEDIA_TYPE', { cause: error })
  if (code === 'FST_ERR_MAX_PARAM_LENGTH') return validationError('request', [{ field: 'url', reason: 'holds a parameter that is too long' }])
  if (code === 'FST_ERR_BAD_URL') return validationError('request', [{ field: 'url', reason: request.raw.url!.startsWith('/') ? 'holds a percent sign that begins no valid escape' : 'must be a path, such as /v1/sessions' }])
  // A host's `identify` may throw these, as libraries for tokens do.
  if (statusCode === 401) return new ApiError('UNAUTHORIZED', { message: String(message), cause: error })
  if (statusCode === 403) return new ApiError('TIER_ACCESS_DENIED', { message: String(message), cause: error })
  if (statusCode === 429) return new ApiError('RATE_LIMIT_EXCEEDED', { message: String(message), headers: retryAfter(error, reply), cause: error })
  if (statusCode === 503) return new ApiError('SERVICE_UNAVAILABLE', { message: 'The service cannot answer this request at the moment. Try again later.', headers: retryAfter(error, reply), cause: error })
  if (statusCode < 500) return validationError('request', [{ field: 'request', reason: String(message) }])
  return new ApiError('INTERNAL_SERVER_ERROR', { cause: error })
}

/** What the error says, or a host's plugin has said already, of when to come again. */
function retryAfter (error: unknown, reply: FastifyReply): Record<string, string> {
  const { headers } = error as { headers?: Record<string, unknown> }
  return { 'retry-after': String(headers?.['retry-after'] ?? reply.getHeader('retry-after') ?? 1) }
}

/** Answers with the error in the API's envelope, whatever the route says of its responses. */
export function sendError (request: FastifyRequest, reply: FastifyReply, error: unknown): FastifyReply {
  const apiError = toApiError(error, request, reply)
  if (apiError.statusCode === 500) {
    request.log.error({ err: apiError.cause }, 'request failed')
    reply.header('x-request-id', request.id)
  } else if (apiError.cause instanceof DecryptionError) request.log.error({ err: apiError.cause }, 'a session is refused because its secrets cannot be read')
  else if (apiError.code === 'SERVICE_UNAVAILABLE') request.log.warn({ err: apiError.cause }, 'the request is refused for now')
  return reply
    .code(apiError.statusCode)
    .headers(apiError.headers)
    .type('application/json; charset=utf-8')
    // A host's route may declare other errors of its own under the same status.
    .serializer(JSON.stringify)
    .send(apiError.toJSON())
}
