import { maxHeaderSize } from 'node:http'
import httpProxy, { type FastifyHttpProxyOptions } from '@fastify/http-proxy'
import type { TObject } from '@sinclair/typebox'
import type { FastifyContextConfig, FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { notPreflight } from '../cors.js'
import { placementsOf, type SessionDefaultsMapping } from '../defaults/fill-defaults.js'
import { planDefaults } from '../defaults/plan-defaults.js'
import { ApiError } from '../errors.js'
import { secretNames } from '../schemas/secret.js'
import { sendError } from '../send-error.js'
import { applyUpstream, waitForBody } from './apply-defaults.js'
import { admit } from './credentials.js'
import { createDispatcher } from './dispatcher.js'
import { isUrl, readDocument, unusable } from './document.js'
import { requestHeaders, responseHeaders, type HeaderOptions } from './headers.js'
import { createOperations, type Operations } from './operations.js'
import { refuseAmbiguous } from './target.js'
import type { OperationPlan } from './template-router.js'

/** The API that the service is put in front of. */
export interface UpstreamOptions extends HeaderOptions {
  /** Where it is: an http or https URL, with a path if its own begin with one. */
  url: string
  /**
   * Its OpenAPI document: a file's path or a URL. It says which operation takes which defaults, and where.
   * @default none: JSON object bodies get all defaults that are not secret
   */
  openapi?: string | undefined
  /**
   * How long connecting, and then the beginning of an answer, may take, in milliseconds.
   * @default 30000
   */
  timeoutMs?: number
  /**
   * How many bytes of a body are read to fill defaults in. Bodies that get none stream through, however large.
   * @default 1048576
   */
  bodyLimit?: number
  /**
   * Whether all requests must carry an API key. Those that carry one must carry a good one in any case.
   * @default true
   */
  requireKey?: boolean
}

export interface GatewayOptions {
  upstream: UpstreamOptions
  defaults: TObject
  mapping?: SessionDefaultsMapping | undefined
  adminKey?: string | undefined
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Marks the routes whose answers are the upstream's. */
    sessionsUpstream?: true
  }
  interface FastifyRequest {
    /** The `Vary` of the answer before the upstream's headers are put into it, such as CORS has set. */
    ownVary: unknown
  }
}

/** Not sent on: one makes a tunnel, the other shows what the gateway has added to a request. */
const unroutedMethods: readonly string[] = ['CONNECT', 'TRACE']

/** Sends upstream what is no route of the service, with the defaults of the session that it names. */
export const gateway: FastifyPluginAsync<GatewayOptions> = async (fastify, { upstream, defaults, mapping, adminKey }) => {
  const { timeoutMs = 30_000, bodyLimit = 1024 * 1024, requireKey = true } = upstream
  const base = new URL(upstream.url)
  const placements = placementsOf(Object.keys(defaults.properties), mapping)
  const secret = secretNames(defaults)
  const undescribed: OperationPlan = {
    ...planDefaults(placements.filter(({ name }) => !secret.includes(name)), undefined, undefined, () => undefined),
    mediaTypes: null,
    unfillable: new Map()
  }
  const operations = upstream.openapi === undefined ? null : await loadOperations(upstream.openapi)
  const planOf = ({ raw, method }: FastifyRequest) =>
    operations?.find(method, base.pathname.replace(/\/+$/, '') + raw.url!.split('?', 1)[0]!) ?? undescribed

  async function loadOperations (source: string): Promise<Operations> {
    const document = await readDocument(source)
    let found: Operations
    try {
      found = createOperations(document, isUrl.test(source) ? [new URL(source), base] : [base], placements, undescribed.body)
    } catch (error) {
      throw unusable(source, 'cannot be used', error)
    }
    const { unread, foreign, unreachable } = found
    if (unreachable.length > 0) fastify.log.warn({ paths: unreachable }, `Paths of UPSTREAM_OPENAPI have a query string or a fragment: ${unreachable.join(', ')}. No request is for these: requests for what stands before are taken for undocumented, unless the document has that as well.`)
    if (foreign.length > 0) fastify.log.warn({ references: foreign }, `The document of UPSTREAM_OPENAPI refers to what is not in it: ${foreign.join(', ')}. Other documents are not read: bundle them into it. What refers to them takes all defaults but the secret ones.`)
    if (!/^3\.[01](\.|$)/.test(String(document.openapi))) fastify.log.warn(`The document of UPSTREAM_OPENAPI is OpenAPI ${String(document.openapi)}, of which what 3.1 does not have is not read, such as querystring parameters and additionalOperations.`)
    if (unread.length > 0) fastify.log.warn({ defaults: unread.join(', ') }, `No operation of UPSTREAM_OPENAPI takes these session defaults: ${unread.join(', ')}. Clients can put them into a session to no effect.`)
    return found
  }

  const dispatcher = createDispatcher(timeoutMs)
  fastify.addHook('onClose', dispatcher.close)
  fastify.decorateRequest('changed', null)
  fastify.decorateRequest('ownVary', undefined)
  // Those that parse and limit; the proxy adds one that leaves every body as the stream that it is.
  fastify.removeAllContentTypeParsers()
  fastify.addHook('onRequest', admit(requireKey))
  fastify.addHook('onRequest', refuseAmbiguous)
  fastify.addHook('preHandler', awaitBody)
  fastify.addHook('onSend', flushHeaders)

  // Where CORS is configured, preflights are the service's to answer.
  const answersPreflights = fastify.hasRoute({ method: 'OPTIONS', url: '/*' })
  const config: FastifyContextConfig = { sessionDefaults: applyUpstream(planOf, bodyLimit), sessionsUpstream: true }
  const proxy: FastifyHttpProxyOptions = {
    upstream: upstream.url,
    undici: dispatcher,
    // What is answered, a 503 as well, is the answer.
    retryMethods: [],
    disableRequestLogging: true,
    internalRewriteLocationHeader: false,
    httpMethods: fastify.supportedMethods.filter(method => !unroutedMethods.includes(method) && !(method === 'OPTIONS' && answersPreflights)),
    config,
    replyOptions: {
      rewriteRequestHeaders: requestHeaders({ ...upstream, adminKey }),
      rewriteHeaders: (headers, request) => responseHeaders(headers, base, request as FastifyRequest, (request as FastifyRequest).ownVary),
      onError: (reply, { error }) => sendUpstreamError(reply as FastifyReply, error)
    },
    handler (request, reply, path, options) {
      const { query, body } = request.changed ?? {}
      request.ownVary = reply.getHeader('vary')
      return dispatcher.forClient(request, reply, () => reply.from(path, {
        ...options,
        ...(query !== undefined && { queryString: () => query }),
        ...(body && { body: body.bytes, contentType: body.contentType })
      }))
    }
  }
  await fastify.register(httpProxy, proxy)
  if (answersPreflights) await fastify.register(httpProxy, { ...proxy, ...notPreflight, httpMethods: ['OPTIONS'], config: { ...config, ...notPreflight.config } })
}

/** A key may be revoked before the body begins, and with it what goes upstream. Where a session is named it is read again as well. */
async function awaitBody (request: FastifyRequest): Promise<void> {
  if (request.namedSession === null && await waitForBody(request)) await request.server.authenticateAgain(request)
}

/** A client of a stream of events waits for the headers, not for the first of them. */
async function flushHeaders (_request: FastifyRequest, { raw }: FastifyReply): Promise<void> {
  setImmediate(() => {
    if (!raw.headersSent && !raw.destroyed) raw.flushHeaders()
  })
}

/** What became of a request by the HTTP client's error; undefined where it has none, for the answer's status is none. */
function outcomeOf (error: { code?: unknown, name?: unknown } | undefined): string {
  if (!error || error.name === 'HTTPParserError' || error.code === 'UND_ERR_HEADERS_OVERFLOW') return `has answered what is no answer of HTTP/1.1, or one with more than ${maxHeaderSize} bytes of headers`
  return ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'].includes(String(error.code)) ? 'has closed the connection before it had answered' : 'cannot be reached'
}

function sendUpstreamError (reply: FastifyReply, error: Error): void {
  const cause = error.cause as { code?: unknown, name?: unknown } | undefined
  const timedOut = cause?.code === 'UND_ERR_HEADERS_TIMEOUT' || cause?.code === 'UND_ERR_CONNECT_TIMEOUT'
  // What is left of the body is not read, and the connection cannot be used again.
  if (!reply.request.raw.complete) reply.header('connection', 'close')
  sendError(reply.request, reply, timedOut
    ? new ApiError('UPSTREAM_TIMEOUT', { cause: error })
    : new ApiError('UPSTREAM_UNAVAILABLE', { message: `The API behind this gateway ${outcomeOf(cause)}. Whether it has acted on the request is not known.`, cause: error }))
}
