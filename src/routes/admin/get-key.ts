import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ApiKeyParams, apiKeySchemas as schemas } from '../../schemas/api-key.js'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { adminFailures, presentApiKey } from './shared.js'

export const getApiKey: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/keys/:id', {
    schema: {
      operationId: 'getApiKey',
      tags: ['Admin'],
      summary: 'Show an API key',
      description: 'Answers what is known of a key: everything but the key itself.',
      params: ApiKeyParams,
      response: {
        200: reference(schemas.GetApiKey200Response, 'The key\'s record.'),
        ...failures('VALIDATION_ERROR', 'KEY_NOT_FOUND', ...adminFailures)
      }
    }
  }, async (request) => {
    const record = await fastify.apiKeyRepository.get(request.params.id)
    return { success: true as const, data: presentApiKey(record, fastify.tierLimits) }
  })
}
