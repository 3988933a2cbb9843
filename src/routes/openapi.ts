import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'

export const openapi: FastifyPluginAsyncTypebox = async (fastify) => {
  /** Made once: it is long, and anybody may ask for it. */
  let text: string | undefined

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
  }, async (_request, reply) => {
    text ??= JSON.stringify(fastify.swagger())
    // A text is sent as it is, whatever the type of the route's answer says.
    return reply.type('application/json; charset=utf-8').send(text as never)
  })
}
