import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { successOf } from '../schemas/envelope.js'

export const health: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/health', {
    schema: {
      operationId: 'getHealth',
      tags: ['Service'],
      summary: 'Whether the process is alive',
      description: 'Answers as long as the process does, whatever the database does. For whoever restarts it.',
      response: {
        200: successOf(Type.Object({ status: Type.Literal('alive', { examples: ['alive'] }) }), { description: 'Alive.' })
      }
    }
  }, async () => ({ success: true as const, data: { status: 'alive' as const } }))
}
