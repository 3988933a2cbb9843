import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'

export const openapi: FastifyPluginAsyncTypebox = async (fastify) => {
  fastify.get('/openapi.json', {
    schema: {
      operationId: 'getOpenApi',
      tags: ['Service'],
      summary: 'This document',
      description: 'The OpenAPI 3.1 document of the service.',
      response: {
        200: Type.Object({}, { additionalProperties: true, description: 'The OpenAPI document.', examples: [{ openapi: '3.1.0' }] })
      }
    }
  }, async () => fastify.swagger())
}
