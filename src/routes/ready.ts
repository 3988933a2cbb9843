import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { ApiError } from '../errors.js'
import { failures, successOf } from '../schemas/envelope.js'

export const ready: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/ready', {
    schema: {
      operationId: 'getReady',
      tags: ['Service'],
      summary: 'Whether requests can be served',
      description: 'Answers 200 when the database answers and its schema is up to date. For whoever sends it requests.',
      response: {
        200: successOf(Type.Object({ status: Type.Literal('ready', { examples: ['ready'] }) }), { description: 'Ready.' }),
        ...failures('SERVICE_UNAVAILABLE')
      }
    }
  }, async () => {
    try {
      await fastify.sessionDatabase.checkReady()
    } catch (error) {
      if (error instanceof ApiError) throw error
      throw new ApiError('SERVICE_UNAVAILABLE', { message: (error as Error).message, headers: { 'retry-after': '1' }, cause: error })
    }
    return { success: true as const, data: { status: 'ready' as const } }
  })
}
