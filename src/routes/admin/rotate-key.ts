import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ApiKeyParams, apiKeySchemas as schemas, graceSeconds as range } from '../../schemas/api-key.js'
import { bodyFailures, failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { optionalBody } from '../optional-body.js'
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
        ...failures('VALIDATION_ERROR', ...bodyFailures, 'KEY_NOT_FOUND', 'KEY_NOT_ACTIVE', ...adminFailures)
      }
    },
    ...optionalBody
  }, async (request) => {
    const { secret, record, graceEndsAt } = await fastify.apiKeyRepository.rotate(request.params.id, request.body.graceSeconds ?? range.default)
    return { success: true as const, data: { ...presentApiKey(record, fastify.tierLimits), key: secret, graceEndsAt } }
  })
}
