import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { notPreflight } from '../cors.js'
import { ApiError } from '../errors.js'
import { sendError } from '../send-error.js'

export interface UnknownRoutesOptions {
  /**
   * Whether preflights of CORS are answered on all paths, so that there is a route for OPTIONS on each.
   * @default false
   */
  besidePreflights?: boolean
}

/**
 * Answers, in the scope around it, what no route is for. Before its body is read, as any route knows its caller first: whoever has no
 * key would have the service parse what nobody has asked for.
 */
export const unknownRoutes: FastifyPluginAsync<UnknownRoutesOptions> = async (scope, { besidePreflights = false }) => {
  const document = `${scope.prefix.replace(/\/+$/, '') || '/v1'}/openapi.json`
  const sendNotFound = (request: FastifyRequest, reply: FastifyReply) => sendError(request, reply, new ApiError('NOT_FOUND', {
    message: `There is no ${request.method} ${request.url.split('?', 1)[0]!.slice(0, 200)}. GET ${document} lists the operations.`
  }))
  scope.addHook('onRequest', async (request, reply) => {
    await scope.countUnknownRoute(request, reply)
    return sendNotFound(request, reply)
  })
  scope.setNotFoundHandler(sendNotFound)
  if (besidePreflights) scope.options('*', { ...notPreflight, config: { ...notPreflight.config, sessionsApi: true, sessionDefaults: false } }, sendNotFound)
}
