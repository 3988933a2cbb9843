import fp from 'fastify-plugin'
import { sendError } from '../send-error.js'

/** Gives the scope it is registered in, and no other, the API's answers to errors. */
export default fp(async (fastify) => {
  fastify.setErrorHandler((error, request, reply) => sendError(request, reply, error))
}, { name: 'error-handler', fastify: '5.x' })
