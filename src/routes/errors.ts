import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { errorCodes } from '../errors.js'
import { successOf } from '../schemas/envelope.js'

export const errors: FastifyPluginAsyncTypebox = async (fastify) => {
  const registry = Object.entries(errorCodes).map(([code, { status, description }]) => ({ code, status, description }))

  fastify.get('/errors', {
    schema: {
      operationId: 'listErrors',
      tags: ['Service'],
      summary: 'Every error code',
      description: 'The codes that any operation can answer in `error.code`, with their status and meaning.',
      response: {
        200: successOf(Type.Object({
          errors: Type.Array(Type.Object({
            code: Type.String({ examples: ['SESSION_NOT_FOUND'] }),
            status: Type.Integer({ examples: [404] }),
            description: Type.String({ examples: [errorCodes.SESSION_NOT_FOUND.description] })
          }))
        }), { description: 'The registry.' })
      }
    }
  }, async () => ({ success: true as const, data: { errors: registry } }))
}
