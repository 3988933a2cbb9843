import type { Http2ServerRequest } from 'node:http2'
import type { FastifyRequest } from 'fastify'
import { validationError, type ApiError } from '../errors.js'
import { isJson } from './media-type.js'

/** Methods whose requests get a body where they came without one. */
export const bodyMethods: readonly string[] = ['POST', 'PUT', 'PATCH']

/** Whether a part of the body has yet to come. Requests that are injected do not say, and have come as a whole. */
export function bodyIsOnItsWay ({ raw }: FastifyRequest): boolean {
  // Over HTTP/2 a request without a body is not complete before somebody has looked for one.
  const { stream } = raw as unknown as Partial<Http2ServerRequest>
  return raw.complete === false && stream?.endAfterHeaders !== true
}

/**
 * Whether nothing was sent, as against a body that no parser of the route has turned into a value. A body in chunks has
 * no length, and a parser of JSON no other reason to find nothing.
 */
export function isBodyless (request: FastifyRequest): boolean {
  const { body, headers } = request
  // Of no bytes that say what type they are, as fetch sends them for '', a parser may have made an empty text.
  if (body !== undefined && body !== null && body !== '') return false
  if (!isOfUnknownLength(request)) return Number(headers['content-length'] ?? 0) === 0
  return body === undefined && isJson(headers['content-type'] ?? '')
}

/** Over HTTP/2 a body needs to say no length, and has no other header of its own. */
function isOfUnknownLength ({ raw, headers }: FastifyRequest): boolean {
  const { stream } = raw as unknown as Partial<Http2ServerRequest>
  return stream ? headers['content-length'] === undefined && !stream.endAfterHeaders : headers['transfer-encoding'] !== undefined
}

/** Whether Fastify has dropped the body: it takes one over HTTP/2 that says neither its type nor its length for none. */
export function isUnread (request: FastifyRequest): boolean {
  return request.body === undefined && request.headers['content-type'] === undefined && 'stream' in request.raw && isOfUnknownLength(request)
}

/** How JSON begins that a parser of the route has left as text or bytes; `''` where there is none of it, undefined for all else. */
export function beginningOfUnparsedJson ({ body, headers }: FastifyRequest): string | undefined {
  const { 'content-type': type = '', 'content-length': length } = headers
  if (!(typeof body === 'string' || body instanceof Uint8Array) || !isJson(type)) return undefined
  // A JSON string that a parser has read: its two quotes, which are in the length, are gone.
  if (typeof body === 'string' && length !== undefined && Number(length) - Buffer.byteLength(body) >= 2) return undefined
  const text = typeof body === 'string' ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString()
  // Blanks, of which a byte order mark is one.
  return text === '' ? '' : text.trimStart().charAt(0) || undefined
}

/** For a body into which nothing can be filled, and which some servers and handlers take for none, as `null` is. */
export function notAnObject (): ApiError {
  return validationError('body', [{ field: 'body', reason: 'must be an object or a list, into which the session\'s defaults go; send one, or nothing, or send no X-Session-Id' }])
}

/** Whether a body is JSON that is neither an object nor an array. */
export function isJsonScalar (request: FastifyRequest): boolean {
  const { body, headers } = request
  if (!isJson(String(headers['content-type']))) return false
  return body === null || typeof body === 'number' || typeof body === 'boolean' || (typeof body === 'string' && !['[', '{'].includes(beginningOfUnparsedJson(request)!))
}

export function isMultipart ({ headers }: FastifyRequest): boolean {
  return /^multipart\//i.test(String(headers['content-type']))
}

/** Methods of streams, and of what is a list of its values, such as FormData and Map: those are not its properties. */
const unfillable = ['pipe', 'getReader', Symbol.iterator, Symbol.asyncIterator] as const

/** What parsers make of JSON and forms, of whatever class they make it. */
export function isFillable (body: unknown): boolean {
  if (typeof body === 'object' && body !== null && Object.getPrototypeOf(body) === Object.prototype) return true
  if (Array.isArray(body)) return true
  return typeof body === 'object' && body !== null && !ArrayBuffer.isView(body) && !(body instanceof ArrayBuffer) && !(body instanceof Blob) &&
    unfillable.every(name => typeof (body as Record<PropertyKey, unknown>)[name] !== 'function')
}
