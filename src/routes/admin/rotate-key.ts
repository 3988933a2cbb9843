import { type FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ApiKeyParams, apiKeySchemas as schemas, graceSeconds as range } from '../../schemas/api-key.js'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { adminFailures, presentApiKey } from './shared.js'

export const rotateApiKey: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.post('/keys/:id/rotate', {
    schema: {
      operationId: 'rotateApiKey',
      tags: ['Admin'],
      summary: 'Give an API key a new secret',
      description: 'Replaces the secret of a key and answers the new one, which is shown this once. The key keeps its id, ' +
        'tier and sessions. The secret before is accepted until the grace period ends, by default not at all; one that an ' +
        'earlier rotation replaced ends at once, so that of a key no more than two secrets ever work.',
      params: ApiKeyParams,
      body: reference(schemas.RotateApiKeyRequest),
      response: {
        200: reference(schemas.RotateApiKey200Response, 'Secret replaced.'),
        ...failures('VALIDATION_ERROR', 'INVALID_JSON', 'KEY_NOT_FOUND', 'KEY_NOT_ACTIVE', 'PAYLOAD_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE', ...adminFailures)
      }
    },
    // All of the body is optional, so the body is as well.
    config: { bodyIsOptional: true },
    preValidation: async (request) => { if (request.body === undefined) request.body = {} }
  }, async (request) => {
    const { secret, record, graceEndsAt } = await fastify.apiKeyRepository.rotate(request.params.id, request.body.graceSeconds ?? range.default)
    return { success: true as const, data: { ...presentApiKey(record, fastify.tierLimits), key: secret, graceEndsAt } }
  })
}
