import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ApiKeyParams, apiKeySchemas as schemas } from '../../schemas/api-key.js'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { adminFailures } from './shared.js'

export const revokeApiKey: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.delete('/keys/:id', {
    schema: {
      operationId: 'revokeApiKey',
      tags: ['Admin'],
      summary: 'Revoke an API key',
      description: 'Revokes a key for good. Once this is answered no instance accepts it. Revoking it again changes nothing.',
      params: ApiKeyParams,
      response: {
        200: reference(schemas.RevokeApiKey200Response, 'Key revoked.'),
        ...failures('VALIDATION_ERROR', 'KEY_NOT_FOUND', ...adminFailures)
      }
    }
  }, async (request) => {
    await fastify.apiKeyRepository.revoke(request.params.id)
    return { success: true as const, data: { revoked: true as const } }
  })
}
