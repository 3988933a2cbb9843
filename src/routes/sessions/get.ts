import type { FastifyPluginAsyncTypebox, Static } from '@fastify/type-provider-typebox'
import type { GetReading } from '../../plugins/session-repository.js'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { SessionParams, sessionIdPattern } from '../../schemas/session.js'
import { config, sessionFailures, type SessionRouteOptions } from './shared.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** The session that is being read for `getSession`; null where its id is no id. */
    sessionReading: GetReading | null
  }
}

export const getSession: FastifyPluginAsyncTypebox<SessionRouteOptions> = async (fastify, { schemas }) => {
  fastify.decorateRequest('sessionReading', null)

  fastify.get('/sessions/:id', {
    config: {
      ...config,
      whileAuthenticating (request) {
        const { id } = request.params as Static<typeof SessionParams>
        if (sessionIdPattern.test(id)) request.sessionReading = fastify.sessionRepository.beginGet(id)
      }
    },
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
    const session = await fastify.sessionRepository.get(request.sessionReading!, request.principal!.id)
    return { success: true as const, data: session }
  })
}
