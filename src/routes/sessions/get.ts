import { type FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { SessionParams } from '../../schemas/session.js'
import { config, sessionFailures, type SessionRouteOptions } from './shared.js'

export const getSession: FastifyPluginAsyncTypebox<SessionRouteOptions> = async (fastify, { schemas }) => {
  fastify.get('/sessions/:id', {
    config,
    schema: {
      operationId: 'getSession',
      tags: ['Sessions'],
      summary: 'Get a session (pro+)',
      description: 'Answers what the session holds and until when. Only the key that created the session can read it.',
      params: SessionParams,
      response: {
        200: reference(schemas.GetSession200Response, 'Session found.'),
        ...failures(...sessionFailures, 'SESSION_NOT_FOUND')
      }
    }
  }, async (request) => {
    const session = await fastify.sessionRepository.get(request.params.id, request.principal!.id)
    return { success: true as const, data: session }
  })
}
