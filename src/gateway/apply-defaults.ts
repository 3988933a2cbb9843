import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Placement } from '../defaults/fill-defaults.js'
import { essenceOf, isForm, isInRange, isJson } from '../defaults/media-type.js'
import { bodyPlacements } from '../defaults/plan-defaults.js'
import { bodyIsOnItsWay, bodyMethods, notAnObject } from '../defaults/request-body.js'
import { ApiError, validationError } from '../errors.js'
import { isRecord } from '../is-object.js'
import type { ApplySessionDefaults } from '../plugins/session-defaults.js'
import { invalidJson, notUtf8 } from '../plugins/validation.js'
import type { SessionDefaultValues } from '../schemas/session.js'
import { fillQuery, parametersOf } from './fill-query.js'
import { spliceDefaults } from './splice-json.js'
import { queryOf, refuseOtherMethod } from './target.js'
import type { OperationPlan } from './template-router.js'

/** What goes upstream in place of what came. */
export interface ChangedRequest {
  /** Without the question mark. */
  query?: string
  body?: { bytes: Buffer, contentType: string }
}

declare module 'fastify' {
  interface FastifyRequest {
    /** What the session has changed of a request that goes upstream; null where nothing. */
    changed: ChangedRequest | null
  }
}

/** Methods whose bodies mean nothing (RFC 9110, 9.3.1); they stream through all the same. */
export const unparsedMethods: readonly string[] = ['GET', 'HEAD']

/**
 * Fills a session's values into the query string and the body, JSON or a form, of a request on its way. Only a body that could be
 * given something is read; any other one streams through.
 *
 * @param bodyLimit how many bytes of a body are read
 */
export function applyUpstream (planOf: (request: FastifyRequest) => OperationPlan, bodyLimit: number): ApplySessionDefaults {
  return async (request, valuesBefore, readAgain) => {
    const plan = planOf(request)
    const { query: queryPlan, undescribed, mediaTypes, jsonParameters, bracketed, unfillable } = plan
    const sent = hasBody(request) ? request.headers['content-type'] : undefined
    const made = typeOfMade(request.headers['content-type'], mediaTypes)
    const bodyPlan = bodyPlacements(plan, sent ?? made)
    const wantedOf = (values: SessionDefaultValues) => unparsedMethods.includes(request.method) ? [] : bodyPlan.filter(({ name }) => Object.hasOwn(values, name))
    const changed: ChangedRequest = {}
    let values = valuesBefore
    // What waits for its body may find its session changed or deleted. A body that streams through is sent on from its beginning.
    if (await waitForBody(request)) values = await readAgain()
    const readsLong = bodyIsOnItsWay(request)
    // Its document has this very type, with a place for a default, such as XML beside JSON.
    if (sent !== undefined && unfillable.get(essenceOf(sent))?.some(({ name }) => Object.hasOwn(values, name))) throw notFillable(`cannot be filled into a body that is ${essenceOf(sent)}`, mediaTypes)
    const text = wantedOf(values).length > 0 ? await readText(request, bodyLimit, plan) : null
    if (readsLong && text !== null) values = await readAgain()
    const query = fillQuery(queryOf(request.raw.url!), values, queryPlan, { jsonParameters, bracketed })
    if (query.filled.length > 0) {
      // To Fastify 4, and where Fastify 5 is told so, it begins the query string.
      if (request.raw.url!.split('?', 1)[0]!.includes(';')) throw validationError('request', [{ field: 'url', reason: 'has a semicolon in its path, at which the query string begins for some servers; write %3B, or send no X-Session-Id' }])
      changed.query = query.query
    }

    const wanted = wantedOf(values)
    let filled: Placement[] = []
    if (text !== null) {
      const isEmpty = text === ''
      const contentType = isEmpty ? made : sent!
      // As on a route: a DELETE gets a body only where one is described.
      const body = isEmpty && undescribed && !bodyMethods.includes(request.method)
        ? { text, filled }
        : isForm(contentType) ? fillForm(text, values, wanted) : spliceDefaults(isEmpty ? '{}' : text, values, wanted)
      filled = body.filled
      // What was read has to be sent anew even where nothing was filled in.
      if (filled.length > 0 || !isEmpty) changed.body = { bytes: Buffer.from(body.text), contentType }
    }
    request.changed = changed
    return new Set([...query.filled, ...filled].map(({ name }) => name))
  }
}

/** Waits until a body that is on its way begins, ends or breaks off, and says whether there was something to wait for. */
export async function waitForBody (request: FastifyRequest): Promise<boolean> {
  const { raw } = request
  if (!hasBody(request) || !bodyIsOnItsWay(request)) return false
  if (raw.readableLength > 0 || raw.destroyed) return true
  await new Promise<void>(resolve => {
    const events = ['readable', 'end', 'close']
    const goOn = () => {
      for (const event of events) raw.off(event, goOn)
      resolve()
    }
    for (const event of events) raw.on(event, goOn)
  })
  return true
}

/** Whether a body was sent, if only one of no bytes in chunks. */
export function hasBody ({ headers }: FastifyRequest): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** Whether the body that has begun, in chunks, has ended without a byte. */
function isEmpty ({ raw }: FastifyRequest): boolean {
  return raw.complete && raw.readableLength === 0
}

/** @throws UNSUPPORTED_MEDIA_TYPE, VALIDATION_ERROR */
function fillForm (text: string, values: SessionDefaultValues, wanted: readonly Placement[]): { text: string, filled: Placement[] } {
  const nested = wanted.find(({ path }) => path.length > 1)
  if (nested) throw new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: `The session's defaults cannot be filled into a form at ${nested.at}. Send JSON where the operation takes it, or send no X-Session-Id.` })
  const { query, filled } = fillQuery(text, values, wanted, { of: 'body' })
  return { text: query, filled }
}

/**
 * The type of a body that is made: the one that the request says, where it is JSON or a form, or else what the operation takes.
 * Without a character encoding, which is UTF-8.
 */
function typeOfMade (said: string | undefined, mediaTypes: readonly string[] | null): string {
  const isTaken = (type: string) => (isJson(type) || (isForm(type) && mediaTypes !== null)) && !type.includes('*') && (mediaTypes?.some(range => isInRange(type, range)) ?? true)
  const type = [said ?? '', 'application/json', ...mediaTypes ?? []].find(isTaken) ?? 'application/json'
  const [essence, ...parameters] = type.split(';').map(part => part.trim())
  return [essence, ...parameters.filter(parameter => parameter !== '' && !/^charset=/i.test(parameter))].join('; ')
}

/**
 * The text of a body that is JSON, valid, or a form; empty where none was sent; null for what is left alone.
 *
 * @throws INVALID_JSON, VALIDATION_ERROR, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE: what cannot be given the defaults does not go
 * without
 */
async function readText (request: FastifyRequest, limit: number, { undescribed, mediaTypes }: OperationPlan): Promise<string | null> {
  const { 'content-type': contentType = '', 'content-encoding': encoding = 'identity' } = request.headers
  if (!hasBody(request) || (contentType === '' && isEmpty(request))) return ''
  // Without a type it is in no range, not in that of all either: many servers take it for JSON.
  if (contentType === '' || mediaTypes?.every(range => !isInRange(contentType, range))) {
    const sent = contentType === '' ? 'has no Content-Type' : `is ${essenceOf(contentType).slice(0, 100)}, which its document does not have`
    throw notFillable(`go into the ${isForm(typeOfMade(undefined, mediaTypes)) ? 'form' : 'JSON'} that this operation takes, and the body ${sent}`, mediaTypes)
  }
  if (!isJson(contentType) && !(isForm(contentType) && mediaTypes !== null)) return null
  if (encoding.trim().toLowerCase() !== 'identity') {
    throw new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: `The session's defaults cannot be filled into a body with Content-Encoding ${encoding.slice(0, 50)}. Send it without, or send no X-Session-Id.` })
  }
  const bytes = await readBody(request, limit)
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw isForm(contentType) ? notUtf8Form() : notUtf8()
  }
  if (isForm(contentType)) {
    const [, charset = 'utf-8'] = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(contentType) ?? []
    if (!/^(?:utf-?8|us-ascii)$/i.test(charset)) throw notUtf8Form()
    if (/^\s*[{[]/.test(text)) throw new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: 'The body begins as JSON does, and its Content-Type says that it is a form. Send JSON with Content-Type: application/json, a form with %7B or %5B at its beginning, or no X-Session-Id.' })
    refuseOtherMethod(request.raw, parametersOf(text))
  } else if (text !== '') {
    const value = parse(text)
    if (isRecord(value)) refuseOtherMethod(request.raw, Object.entries(value))
    else if (!undescribed && !Array.isArray(value)) throw notAnObject()
  }
  return text
}

function parse (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw invalidJson(text)
  }
}

function notUtf8Form (): ApiError {
  return new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: 'The session\'s defaults are filled into forms in UTF-8, and this one is in another encoding. Send it in UTF-8, or send no X-Session-Id.' })
}

function notFillable (why: string, mediaTypes: readonly string[] | null): ApiError {
  const type = typeOfMade(undefined, mediaTypes)
  const isTaken = mediaTypes?.some(range => isInRange(type, range) || isJson(range)) ?? true
  return new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: `The session's defaults ${why}. ${isTaken ? `Send it with Content-Type: ${type}, or send` : 'Send'} no X-Session-Id.` })
}

async function readBody (request: FastifyRequest, limit: number): Promise<Buffer> {
  const stream = request.raw
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLarge(stream, limit)
  const chunks: Buffer[] = []
  let size = 0
  // Destroyed, the stream would take the connection with it before the answer.
  try {
    for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > limit) throw tooLarge(stream, limit)
      chunks.push(chunk)
    }
  } catch (error) {
    throw error instanceof ApiError ? error : new ApiError('INVALID_JSON', { message: 'The body broke off.', cause: error })
  }
  return Buffer.concat(chunks)
}

function tooLarge (stream: IncomingMessage, limit: number): ApiError {
  // What is still coming is dropped, so that the client reads the answer instead of a reset.
  stream.resume()
  return new ApiError('PAYLOAD_TOO_LARGE', {
    message: `The session's defaults are filled into bodies of at most ${limit} bytes, and this one is larger. Send less, or send no X-Session-Id.`,
    headers: { connection: 'close' }
  })
}
