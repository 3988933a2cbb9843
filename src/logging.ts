import { LogController, type FastifyReply, type FastifyRequest } from 'fastify'
import type { LogFn, Logger } from 'pino'
import { keyBeginning } from './api-key.js'
import { decode } from './decode.js'

const apiKeys = new RegExp(`(${keyBeginning}[0-9A-Za-z]{4})[0-9A-Za-z]+`, 'g')

/**
 * Text with what may be secret cut short: API keys, session ids, and the hex of keys. Enough is left to compare two
 * lines by.
 */
export function scrub (text: string): string {
  return text
    .replaceAll(apiKeys, '$1…')
    .replaceAll(/(sess_[0-9a-f]{12})[0-9a-f]+/gi, '$1…')
    .replaceAll(/(0x[0-9a-f]{4})[0-9a-f]+/gi, '$1…')
}

/**
 * Pino's settings for the service. Nothing that a client sends is logged but method, path and status; of errors only
 * type, code, message and stack, because the driver's errors also quote the values of a statement.
 */
export const loggerOptions = {
  hooks: {
    // Of an error that is logged without a message pino takes the error's own, as it is.
    logMethod (this: unknown, args: Parameters<LogFn>, method: LogFn) {
      const [fields, message] = args as [unknown, unknown]
      const { err } = (fields ?? {}) as { err?: unknown }
      const error = fields instanceof Error ? fields : err
      method.apply(this as Logger, message === undefined && error instanceof Error ? [{ ...fields as object, err: error }, scrub(error.message)] : args)
    }
  },
  serializers: {
    req: describeRequest,
    err (error: Error & { code?: unknown }) {
      return {
        type: error.name,
        ...(typeof error.code === 'string' && { code: error.code }),
        message: scrub(error.message),
        stack: scrub(String(error.stack))
      }
    }
  }
}

/**
 * A route by its pattern, because its parameters may hold what a client put in the wrong place; what matched none or
 * a wildcard without its query string.
 */
function describeRequest ({ method, url, routeOptions }: FastifyRequest) {
  const pattern = routeOptions.url
  return { method, path: pattern === undefined || pattern.includes('*') ? scrub(decodeWhole(url.split('?', 1)[0]!)) : pattern }
}

/** What a path stands for, though a part of it be encoded wrongly, or all of it more than once; not however often, which takes its time. */
function decodeWhole (path: string): string {
  let decoded = path
  for (let times = 0; times < 3; times++) decoded = decoded.replaceAll(/(?:%[0-9a-f]{2})+/gi, decode)
  return decoded
}

/** One line for each request, once it is answered. */
export class RequestLog extends LogController {
  override incomingRequest (): void {}

  override requestCompleted (error: Error | null | undefined, request: FastifyRequest, reply: FastifyReply): void {
    // Spelled out: to spread one object into another would cost a request more than to write its line. What is undefined is
    // left out of it.
    const { method, path } = describeRequest(request)
    const fields = {
      method,
      path,
      statusCode: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      principal: request.principal?.id
    }
    if (error) reply.log.error({ ...fields, err: error }, 'request')
    else reply.log.info(fields, 'request')
  }
}
