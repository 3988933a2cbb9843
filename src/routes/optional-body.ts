import type { FastifyRequest } from 'fastify'

/** The settings of a route all of whose body is optional, so that the body is as well: none is an empty object. */
export const optionalBody = {
  config: { bodyIsOptional: true },
  async preValidation (request: FastifyRequest): Promise<void> {
    if (request.body === undefined) request.body = {}
  }
} as const
