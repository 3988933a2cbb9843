import { AsyncLocalStorage } from 'node:async_hooks'
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Agent, type Dispatcher } from 'undici'
import { hasBody, unparsedMethods } from './apply-defaults.js'

/** The call of a request that is being sent upstream. */
interface Call {
  request: FastifyRequest
  signal: AbortSignal
}

/**
 * The connections to the upstream. A request is cancelled there once its client is gone, which the proxy library does
 * only while a body is on its way; certificates are verified, and nothing is sent twice.
 *
 * @param timeoutMs how long connecting, and then the beginning of an answer, may take
 */
export function createDispatcher (timeoutMs: number) {
  // Between the parts of an answer any time may pass: it may be a stream of events.
  const agent = new Agent({ headersTimeout: timeoutMs, bodyTimeout: 0, connect: { timeout: timeoutMs } })
  const calls = new AsyncLocalStorage<Call>()

  const request = ((options: Dispatcher.RequestOptions<null>, callback: (error: Error | null, data: Dispatcher.ResponseData<null>) => void) => {
    const call = calls.getStore()!
    const body = unparsedMethods.includes(call.request.method) && hasBody(call.request) ? call.request.raw : options.body
    agent.request({ ...options, body, signal: call.signal }, (error, data) => {
      // The library waits for the body that the length of a 304 is of, which never comes (RFC 9110, 8.6).
      if (!error && data.statusCode === 304) {
        data.body.on('error', () => {}).resume()
        data = { ...data, body: Readable.from([]) as unknown as typeof data.body }
      }
      callback(error, data)
    })
  }) as Dispatcher['request']

  return {
    request,
    /** Sends what `send` sends for as long as the client waits for the answer; nothing for one that has left already. */
    forClient<T> (request: FastifyRequest, { raw }: FastifyReply, send: () => T): T {
      const controller = new AbortController()
      if (raw.destroyed) controller.abort()
      else raw.once('close', () => { controller.abort() })
      return calls.run({ request, signal: controller.signal }, send)
    },
    close: () => agent.close()
  }
}
