import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { createBatch } from '../batch.js'
import { ApiError } from '../errors.js'
import { SchemaVersionError } from '../migrate.js'
import { failures, successOf } from '../schemas/envelope.js'

export const ready: FastifyPluginAsyncTypebox = async (fastify) => {
  // Anybody may ask, as often as they like: all who ask at the same time share one statement, like the requests of those who
  // have a key, so that they cannot take up the connections of these.
  const checked = createBatch<null, null>(async (asked, since) => {
    await fastify.sessionDatabase.checkReady(since, fastify.requestLimits.strict)
    return asked
  }, { maxWaitMs: fastify.sessionDatabase.maxWaitMs })
  fastify.get('/ready', {
    schema: {
      operationId: 'getReady',
      tags: ['Service'],
      summary: 'Whether requests can be served',
      description: 'Answers 200 when the database answers, can be written to, and has the schema of this release. For whoever sends it requests.',
      response: {
        200: successOf(Type.Object({ status: Type.Literal('ready', { examples: ['ready'] }) }), { description: 'Ready.' }),
        ...failures('SERVICE_UNAVAILABLE')
      }
    }
  }, async () => {
    try {
      await checked(null)
    } catch (error) {
      if (error instanceof ApiError) throw error
      // What the database says of an error may tell more than anybody should know.
      const message = error instanceof SchemaVersionError ? error.message : 'The service cannot use its database. Its log has the cause.'
      throw new ApiError('SERVICE_UNAVAILABLE', { message, cause: error })
    }
    return { success: true as const, data: { status: 'ready' as const } }
  })
}
