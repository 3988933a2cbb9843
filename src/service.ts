import { randomBytes } from 'node:crypto'
import { maxHeaderSize, METHODS, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type FastifyHttpOptions, type FastifyInstance } from 'fastify'
import type { AppOptions } from './app.js'
import cors from './cors.js'
import { drainConnections } from './drain.js'
import { ApiError, validationError } from './errors.js'
import { gateway, type UpstreamOptions } from './gateway/index.js'
import sipherSessions from './index.js'
import { loggerOptions, RequestLog, scrub } from './logging.js'
import { unknownRoutes } from './routes/unknown.js'
import { presetDefaults } from './schemas/session.js'
import { securityHeaders } from './security-headers.js'
import { sendError } from './send-error.js'
import { standardOutput } from './standard-output.js'

export interface ServiceOptions extends AppOptions {
  /** @default 'info' */
  logLevel?: string
  /**
   * Where log lines go.
   * @default standard output
   */
  logStream?: { write (line: string): void }
  /** Addresses and CIDR ranges of proxies whose X-Forwarded-For is believed. */
  trustProxy?: string[] | undefined
  /** Origins of web pages that may call the service; `['*']` for all. */
  corsOrigins?: string[] | undefined
  /**
   * How long a client may take to send its headers, in milliseconds: one that sends them byte by byte must not hold a
   * connection for nothing.
   * @default 10000
   */
  headersTimeoutMs?: number
  /**
   * How long a client may take to send its whole request, in milliseconds.
   * @default 60000; 300000 with an upstream, whose requests may be long uploads
   */
  requestTimeoutMs?: number
  /** An API to put the service in front of: it gets the requests that are not for the service itself. */
  upstream?: UpstreamOptions | undefined
}

/** A migration of a large table may take this long before the service gives up starting, in milliseconds. */
const startTimeout = 600_000

/**
 * The service as the process runs it and the tests test it: the app on a Fastify of its own, with the settings that
 * only the owner of a server may choose.
 */
export function createService ({
  logLevel = 'info', logStream = standardOutput(), trustProxy, corsOrigins, upstream, headersTimeoutMs = 10_000,
  requestTimeoutMs = upstream ? 300_000 : 60_000, ...options
}: ServiceOptions): FastifyInstance {
  const requestLog = new RequestLog()
  const settings: FastifyHttpOptions<Server> = {
    logger: { ...loggerOptions, level: logLevel, stream: logStream },
    logController: requestLog,
    genReqId: createRequestIds(),
    trustProxy: trustProxy ?? false,
    requestTimeout: requestTimeoutMs,
    // Node looks for connections that take too long this often.
    http: { headersTimeout: headersTimeoutMs, connectionsCheckingInterval: Math.ceil(headersTimeoutMs / 4) },
    pluginTimeout: startTimeout,
    // A parameter longer than an id is a bad id, not an unknown route.
    routerOptions: { maxParamLength: 4096 },
    // A target may be a whole URL (RFC 9112, 3.2.2).
    rewriteUrl: ({ url }) => url!.startsWith('/') ? url! : url!.replace(/^https?:\/\/[^/?#]*(?=([/?]?))/i, (_origin, next) => next === '/' ? '' : '/'),
    // While draining, what still arrives on open connections is served.
    return503OnClosing: false,
    // A request without a route has no hooks either.
    clientErrorHandler (error, socket) {
      answerUnreadable(error, socket, { headersTimeoutMs, requestTimeoutMs })
    },
    frameworkErrors (error, request, reply) {
      sendError(request, reply.headers(headers).header('x-request-id', request.id), error)
      requestLog.requestCompleted(null, request, reply)
    }
  }
  const headers = securityHeaders()
  const service = Fastify(settings)
  // Node would leave out what comes after a thousand lines, without a word. Their size limits them as well.
  service.server.maxHeadersCount = 0
  // Node would answer 417, without a word, to an `Expect` that it does not know, which may as well be left alone (RFC 9110, 10.1.1).
  service.server.on('checkExpectation', (request, response) => service.server.emit('request', request, response))

  // A proxy's forward-auth call, and what goes on to an upstream, may have any.
  for (const method of METHODS) {
    if (!service.supportedMethods.includes(method)) service.addHttpMethod(method, { hasBody: true })
  }

  service.setErrorHandler((error, request, reply) => sendError(request, reply, error))
  service.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    // What an upstream answers may be pages, whose policy is its own. Swagger UI sets one of its own over this.
    if (!upstream || !request.routeOptions.config?.sessionsUpstream) reply.headers(headers)
    done()
  })
  drainConnections(service)

  if (corsOrigins) service.register(cors, { origins: corsOrigins, upstream: upstream !== undefined })
  service.register(sipherSessions, options)
  service.register(unknownRoutes, { besidePreflights: corsOrigins !== undefined && !upstream })
  if (upstream) service.register(gateway, { upstream, defaults: options.defaults ?? presetDefaults, mapping: options.mapping, adminKey: options.adminKey })
  return service
}

/** Answers what is no HTTP request, or no whole one, in the envelope, as far as its connection still takes an answer. */
function answerUnreadable (error: Error & { code?: string }, socket: Socket, { headersTimeoutMs, requestTimeoutMs }: { headersTimeoutMs: number, requestTimeoutMs: number }): void {
  // Node's own, as its own handler looks at it: the answer that the connection is for at the moment. This one would be taken for a part
  // of it, or, behind a whole request, for it.
  const { _httpMessage: current } = socket as { _httpMessage?: ServerResponse }
  if (!socket.writable || error.code === 'ECONNRESET' || current?.headersSent || current?.req.complete) {
    socket.destroy()
    return
  }
  let status = '400 Bad Request'
  let answer = validationError('request', [{ field: 'request', reason: 'is not valid HTTP/1.1' }])
  if (error.code === 'HPE_HEADER_OVERFLOW') {
    status = '431 Request Header Fields Too Large'
    answer = new ApiError('REQUEST_HEADERS_TOO_LARGE', { message: `The request has more than ${maxHeaderSize} bytes of headers. Send fewer or shorter ones.` })
  } else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    status = '408 Request Timeout'
    answer = new ApiError('REQUEST_TIMEOUT', { message: `The request was not sent in time: its headers within ${headersTimeoutMs / 1000} s, and all of it within ${requestTimeoutMs / 1000} s. Send it again.` })
  }
  const body = JSON.stringify(answer)
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n` +
    // A proxy that asks about a request takes it from there, as it does from what `/v1/resolve` answers.
    `Content-Type: application/json; charset=utf-8\r\nX-Resolve-Error: ${body}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
}

/** What a client may choose as its request's id, unless it is a secret: short, and nothing that could mean something in a log or a header. */
const plainId = /^[A-Za-z0-9._-]{1,64}$/

/**
 * The id that the client sent in X-Request-Id if it is a plain one; else one that is unique among instances and
 * restarts, and costs no random bytes for each request.
 */
function createRequestIds (): (request: IncomingMessage) => string {
  const instance = randomBytes(6).toString('hex')
  let count = 0
  return ({ headers }) => {
    const sent = headers['x-request-id']
    return typeof sent === 'string' && plainId.test(sent) && scrub(sent) === sent ? sent : `${instance}-${(++count).toString(36)}`
  }
}
