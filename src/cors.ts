import type { IncomingMessage } from 'node:http'
import cors from '@fastify/cors'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'

export interface CorsOptions {
  /** Origins of web pages that may call the service; `['*']` for all. */
  origins: readonly string[]
  /** Whether there is an API behind the service, whose methods and headers are not known here. */
  upstream: boolean
}

type Strategy = Parameters<FastifyInstance['addConstraintStrategy']>[0]
type Handler = Parameters<ReturnType<Strategy['storage']>['set']>[1]

/** Whether a request is a preflight, by what CORS says of one (Fetch, 3.2.2): any other OPTIONS is for the route that it names. */
const preflight: Strategy = {
  name: 'preflight',
  storage () {
    const handlers = new Map<unknown, Handler>()
    return {
      get: value => handlers.get(value) ?? null,
      set: (value, handler) => { handlers.set(value, handler) }
    }
  },
  deriveConstraint: ({ method, headers }: IncomingMessage) => method === 'OPTIONS' && !(headers.origin && headers['access-control-request-method']) ? 'no' : undefined
}

/** The settings of a route for OPTIONS that gets what is no preflight, beside the one by which @fastify/cors answers those that are. */
export const notPreflight = { constraints: { preflight: 'no' }, config: { cors: { preflight: false } } } as const

/** Lets web pages of other origins call the service, and answers their preflights. */
export default fp<CorsOptions>(async (fastify, { origins, upstream }) => {
  fastify.addConstraintStrategy(preflight)
  await fastify.register(cors, {
    origin: origins.includes('*') ? '*' : [...origins],
    methods: ['GET', 'HEAD', 'POST', 'PATCH', 'DELETE', ...(upstream ? ['PUT'] : [])],
    // Of an upstream, those that the page asks for.
    ...(!upstream && { allowedHeaders: ['Content-Type', 'Authorization', 'X-API-Key', 'X-Session-Id', 'X-Request-Id'] }),
    exposedHeaders: ['X-Session-Applied', 'X-Request-Id', 'RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset', 'Retry-After'],
    maxAge: 600
  })
}, { name: 'cors', fastify: '5.x' })
