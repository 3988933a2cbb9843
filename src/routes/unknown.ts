import { type FastifyPluginAsync, type FastifyReply, type FastifyRequest } from 'fastify'
import { ApiError } from '../errors.js'
import { sendError } from '../send-error.js'

/**
 * Answers, in the scope around it, what no route is for. Before its body is read, as any route knows its caller first: whoever has no
 * key would have the service parse what nobody has asked for.
 */
export const unknownRoutes: FastifyPluginAsync = async (scope) => {
  const document = `${scope.prefix.replace(/\/+$/, '') || '/v1'}/openapi.json`
  const sendNotFound = (request: FastifyRequest, reply: FastifyReply) => sendError(request, reply, new ApiError('NOT_FOUND', {
    message: `There is no ${request.method} ${request.url.split('?', 1)[0]!.slice(0, 200)}. GET ${document} lists the operations.`
  }))
  scope.addHook('onRequest', async (request, reply) => {
    await scope.countUnknownRoute(request, reply)
    return sendNotFound(request, reply)
  })
  scope.setNotFoundHandler(sendNotFound)
}
