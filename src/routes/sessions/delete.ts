import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { SessionParams } from '../../schemas/session.js'
import { config, sessionFailures, type SessionRouteOptions } from './shared.js'

export const deleteSession: FastifyPluginAsyncTypebox<SessionRouteOptions> = async (fastify, { schemas }) => {
  fastify.delete('/sessions/:id', {
    config,
    schema: {
      operationId: 'deleteSession',
      tags: ['Sessions'],
      summary: 'Delete a session (pro+)',
      description: 'Ends the session. Once this is answered no request that uses it succeeds, on any instance.',
      params: SessionParams,
      response: {
        200: reference(schemas.DeleteSession200Response, 'Session deleted.'),
        ...failures(...sessionFailures, 'SESSION_NOT_FOUND')
      }
    }
  }, async (request) => {
    const { id: sessionId } = request.params
    await fastify.sessionRepository.delete(sessionId, request.principal!.id)
    return { success: true as const, data: { sessionId, deleted: true as const } }
  })
}
