import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ApiKeyParams, apiKeySchemas as schemas } from '../../schemas/api-key.js'
import { bodyFailures, failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { adminFailures, presentApiKey } from './shared.js'

export const updateApiKey: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.patch('/keys/:id', {
    schema: {
      operationId: 'updateApiKey',
      tags: ['Admin'],
      summary: 'Change an API key',
      description: 'Changes the fields that are given. Once this is answered every instance goes by them: a key that falls ' +
        'to free can no longer use its sessions. The secret stays, and goes on saying the tier that it was made for.',
      params: ApiKeyParams,
      body: reference(schemas.UpdateApiKeyRequest),
      response: {
        200: reference(schemas.UpdateApiKey200Response, 'The key\'s record after the change.'),
        ...failures('VALIDATION_ERROR', ...bodyFailures, 'KEY_NOT_FOUND', 'KEY_NOT_ACTIVE', ...adminFailures)
      }
    }
  }, async (request) => {
    const record = await fastify.apiKeyRepository.update(request.params.id, request.body)
    return { success: true as const, data: presentApiKey(record, fastify.tierLimits) }
  })
}
