import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { apiKeySchemas as schemas } from '../../schemas/api-key.js'
import { bodyFailures, failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { adminFailures, presentApiKey } from './shared.js'

export const createApiKey: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.post('/keys', {
    schema: {
      operationId: 'createApiKey',
      tags: ['Admin'],
      summary: 'Create an API key',
      description: 'Creates a key and answers it. The key is shown this once: what is stored is its hash.',
      body: reference(schemas.CreateApiKeyRequest),
      response: {
        201: reference(schemas.CreateApiKey201Response, 'Key created.'),
        ...failures('VALIDATION_ERROR', ...bodyFailures, ...adminFailures)
      }
    }
  }, async (request, reply) => {
    const { secret, record } = await fastify.apiKeyRepository.create(request.body)
    reply.code(201)
    return { success: true as const, data: { key: secret, ...presentApiKey(record, fastify.tierLimits) } }
  })
}
