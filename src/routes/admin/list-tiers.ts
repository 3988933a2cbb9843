import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { apiKeySchemas as schemas } from '../../schemas/api-key.js'
import { failures } from '../../schemas/envelope.js'
import { reference } from '../../schemas/reference.js'
import { tierNames } from '../../schemas/tier.js'
import { adminFailures } from './shared.js'

export const listTiers: FastifyPluginAsyncTypebox = async (fastify) => {
  const tiers = tierNames.map(tier => ({ tier, limits: fastify.tierLimits[tier] }))

  fastify.get('/tiers', {
    schema: {
      operationId: 'listTiers',
      tags: ['Admin'],
      summary: 'List the tiers',
      description: 'Answers what each tier includes.',
      response: {
        200: reference(schemas.ListTiers200Response, 'The tiers.'),
        ...failures(...adminFailures)
      }
    }
  }, async () => ({ success: true as const, data: { tiers } }))
}
