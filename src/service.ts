import { randomBytes } from 'node:crypto'
import { maxHeaderSize } from 'node:http'
import { type Socket } from 'node:net'
import cors from '@fastify/cors'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { type AppOptions } from './app.js'
import sipherSessions from './index.js'
import { validationError } from './errors.js'
import { loggerOptions, RequestLog } from './logging.js'
import { sendError, sendNotFound } from './plugins/error-handler.js'

export interface ServiceOptions extends AppOptions {
  /** @default 'info' */
  logLevel?: string
  /** Where log lines go, instead of standard output. */
  logStream?: { write (line: string): void }
  /** Addresses and CIDR ranges of proxies whose X-Forwarded-For is believed. */
  trustProxy?: string[] | undefined
  /** Origins of web pages that may call the service; `['*']` for all. */
  corsOrigins?: string[] | undefined
}

/** A migration of a large table may take this long before the service gives up starting, in milliseconds. */
const startTimeout = 600_000

/**
 * The service as the process runs it and the tests test it: the app on a Fastify of its own, with the settings that
 * only the owner of a server may choose.
 */
export function createService ({ logLevel = 'info', logStream, trustProxy, corsOrigins, ...options }: ServiceOptions): FastifyInstance {
  const requestLog = new RequestLog()
  const settings: FastifyServerOptions = {
    logger: { ...loggerOptions, level: logLevel, ...(logStream && { stream: logStream }) },
    logController: requestLog,
    genReqId: createRequestIds(),
    trustProxy: trustProxy ?? false,
    pluginTimeout: startTimeout,
    // A parameter longer than an id is a bad id, not an unknown route.
    routerOptions: { maxParamLength: 4096 },
    // While draining, what still arrives on open connections is served.
    return503OnClosing: false,
    // A request without a route has no hooks either.
    clientErrorHandler (error, socket) {
      answerUnreadable(error, socket)
    },
    frameworkErrors (error, request, reply) {
      sendError(request, reply.header('x-request-id', request.id), error)
      requestLog.requestCompleted(null, request, reply)
    }
  }
  const service = Fastify(settings)

  service.setErrorHandler((error, request, reply) => sendError(request, reply, error))
  service.setNotFoundHandler(sendNotFound)
  service.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
  })
  drainConnections(service)

  if (corsOrigins) {
    service.register(cors, {
      origin: corsOrigins.includes('*') ? '*' : corsOrigins,
      methods: ['GET', 'HEAD', 'POST', 'PATCH', 'DELETE'],
      allowedHeaders: ['Content-Type', 'Authorization', 'X-API-Key', 'X-Session-Id'],
      exposedHeaders: ['X-Session-Applied', 'X-Request-Id', 'RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset', 'Retry-After'],
      maxAge: 600
    })
  }
  service.register(sipherSessions, options)
  return service
}

/** Answers what is no HTTP request, in the envelope, as far as its connection still takes an answer. */
function answerUnreadable (error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const tooLarge = error.code === 'HPE_HEADER_OVERFLOW'
  const reason = tooLarge ? `has more than ${maxHeaderSize} bytes of headers` : 'is not valid HTTP/1.1'
  const body = JSON.stringify(validationError('request', [{ field: 'request', reason }]))
  socket.end(`HTTP/1.1 ${tooLarge ? '431 Request Header Fields Too Large' : '400 Bad Request'}\r\nConnection: close\r\n` +
    `Content-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
}

/** From when the service begins to close, tells clients to take their next request elsewhere. */
function drainConnections (service: FastifyInstance): void {
  let closing = false
  service.addHook('preClose', async () => { closing = true })
  service.addHook('onSend', async (_request, reply) => {
    if (closing) reply.header('connection', 'close')
  })
}

/** Ids that are unique among instances and restarts, and cost no random bytes for each request. */
function createRequestIds (): () => string {
  const instance = randomBytes(6).toString('hex')
  let count = 0
  return () => `${instance}-${(++count).toString(36)}`
}
