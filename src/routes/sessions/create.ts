import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { bodyFailures, failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { ttlSeconds as ttl } from '../../schemas/session.js'
import { config, sessionFailures, type SessionRouteOptions } from './shared.js'

export const createSession: FastifyPluginAsyncTypebox<SessionRouteOptions> = async (fastify, { schemas }) => {
  fastify.post('/sessions', {
    config,
    schema: {
      operationId: 'createSession',
      tags: ['Sessions'],
      summary: 'Create a session with default parameters (pro+)',
      description: 'Stores default parameters (chain, privacy level, backend and so on) that are applied to every later request with the session\'s id in X-Session-Id. Needs a key of tier pro or enterprise.',
      body: reference(schemas.CreateSessionRequest),
      response: {
        201: reference(schemas.CreateSession201Response, 'Session created: stored and flushed.'),
        ...failures(...sessionFailures, ...bodyFailures, 'SESSION_LIMIT_REACHED')
      }
    }
  }, async (request, reply) => {
    const { defaults, ttlSeconds = ttl.default } = request.body
    const { id, tier } = request.principal!
    const session = await fastify.sessionRepository.create(id, defaults, ttlSeconds, fastify.tierLimits[tier].maxSessions)
    reply.code(201)
    return { success: true as const, data: session }
  })
}
