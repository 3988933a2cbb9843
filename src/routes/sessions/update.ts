import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { bodyFailures, failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { SessionParams } from '../../schemas/session.js'
import { config, sessionFailures, type SessionRouteOptions } from './shared.js'

export const updateSession: FastifyPluginAsyncTypebox<SessionRouteOptions> = async (fastify, { schemas }) => {
  fastify.patch('/sessions/:id', {
    config,
    schema: {
      operationId: 'updateSession',
      tags: ['Sessions'],
      summary: 'Update a session\'s defaults (pro+)',
      description: 'Merges the given defaults into the session key by key; those left out stay. The expiry stays as well.',
      params: SessionParams,
      body: reference(schemas.UpdateSessionRequest),
      response: {
        200: reference(schemas.UpdateSession200Response, 'Session updated: stored and flushed.'),
        ...failures(...sessionFailures, ...bodyFailures, 'SESSION_NOT_FOUND')
      }
    }
  }, async (request) => {
    const session = await fastify.sessionRepository.update(request.params.id, request.principal!.id, request.body.defaults)
    return { success: true as const, data: session }
  })
}
