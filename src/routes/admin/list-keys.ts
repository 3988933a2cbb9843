import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { ApiKeyId, apiKeySchemas as schemas } from '../../schemas/api-key.js'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { adminFailures, pageLimit, presentApiKey } from './shared.js'

export const listApiKeys: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/keys', {
    schema: {
      operationId: 'listApiKeys',
      tags: ['Admin'],
      summary: 'List API keys',
      description: 'Answers the keys page by page, the oldest first, revoked and expired ones included.',
      querystring: Type.Object({
        limit: pageLimit('Keys on a page.'),
        cursor: Type.Optional(Type.String({ pattern: ApiKeyId.pattern!, description: '`nextCursor` of the page before.' }))
      }, { additionalProperties: false }),
      response: {
        200: reference(schemas.ListApiKeys200Response, 'A page of keys.'),
        ...failures('VALIDATION_ERROR', ...adminFailures)
      }
    }
  }, async (request) => {
    const { limit, cursor } = request.query
    // One more than asked for tells whether there is a next page.
    const records = await fastify.apiKeyRepository.list({ limit: limit + 1, after: cursor })
    const page = records.slice(0, limit)
    const nextCursor = records.length > limit ? page.at(-1)!.id : undefined
    return { success: true as const, data: { keys: page.map(record => presentApiKey(record, fastify.tierLimits)), ...(nextCursor && { nextCursor }) } }
  })
}
