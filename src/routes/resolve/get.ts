import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import type { RouteHandlerMethod } from 'fastify'
import { refuseMisspeltSession } from '../../misspelt-headers.js'
import { successOf } from '../../schemas/envelope.js'
import { withHeaders, type ResponseHeaders } from '../../schemas/response-headers.js'
import type { SessionDefaultValues } from '../../schemas/session.js'
import { plainNames, SessionHeader, type ResolveRouteOptions } from './shared.js'

export const getResolve: FastifyPluginAsyncTypebox<ResolveRouteOptions> = async (fastify, { defaults }) => {
  const headerNames = headerNamesOf(plainNames(defaults))

  // nginx passes on no body of a forward-auth call, but lets a header be read whatever the status.
  fastify.addHook('onSend', async (_request, reply, payload) => {
    if (reply.statusCode >= 400 && typeof payload === 'string') reply.header('x-resolve-error', ascii(payload))
  })

  const handler: RouteHandlerMethod = async (request, reply) => {
    refuseMisspeltSession(request)
    const { id, tier } = request.principal!
    reply.headers({ 'x-principal-id': headerValue(id), 'x-principal-tier': tier })
    const values: SessionDefaultValues = {}
    const held: SessionDefaultValues = request.sessionDefaults ?? {}
    for (const [name, header] of headerNames) {
      if (!Object.hasOwn(held, name)) continue
      values[name] = held[name]
      reply.header(header, headerValue(held[name]))
    }
    return { success: true as const, data: { defaults: values } }
  }

  fastify.addHook('onRoute', route => {
    route.schema = { ...route.schema, response: withHeaders(route.schema!.response as object, errorHeader, status => status >= 400) }
  })

  fastify.get('/resolve', {
    schema: {
      operationId: 'getResolve',
      tags: ['Resolve'],
      summary: 'A session\'s defaults, for a proxy',
      description: 'Answers a proxy\'s forward-auth call (nginx auth_request, Traefik ForwardAuth, Envoy ext_authz): 200 with the defaults of the session that X-Session-Id names, as JSON and as one header for each, such as `X-Session-Default-Privacy-Level: shielded`; without the header, no defaults. Secret defaults are left out. `X-Principal-Id` and `X-Principal-Tier` say who makes the request. An error\'s body is in `X-Resolve-Error` as well, for proxies that pass on headers alone. For those that keep the request\'s method and path (Envoy), the same is answered to any method below `/v1/resolve/`.',
      headers: SessionHeader,
      response: {
        200: successOf(Type.Object({
          defaults: Type.Object({}, { additionalProperties: true, examples: [{ chain: 'near', privacyLevel: 'shielded' }] })
        }), { description: 'The request may pass, with these defaults.', headers: { ...principalHeaders, ...describedHeaders(headerNames) } })
      }
    }
  }, handler)

  await fastify.register(async (anyMethod) => {
    // Such a call has the content type of the request that it is about, of whose body nothing is read.
    anyMethod.addContentTypeParser('*', (_request, payload, done) => { payload.resume().once('end', () => done(null)) })
    anyMethod.removeContentTypeParser('application/json')
    // Fastify refuses a QUERY that does not say what it carries, but proxies need not pass that on.
    anyMethod.addHook('onRequest', (request, _reply, done) => {
      if (request.method === 'QUERY') request.headers['content-type'] ??= 'application/octet-stream'
      done()
    })
    // Nothing is put into the call itself.
    anyMethod.all('/resolve/*', { schema: { hide: true }, config: { sessionDefaults: [] } }, handler)
  })
}

const principalHeaders: ResponseHeaders = {
  'X-Principal-Id': { type: 'string', description: 'Who makes the request: the id of their key.' },
  'X-Principal-Tier': { type: 'string', description: 'Their tier, such as pro.' }
}

const errorHeader: ResponseHeaders = {
  'X-Resolve-Error': { type: 'string', description: 'The body of this answer, for proxies that pass on headers alone.' }
}

function describedHeaders (headerNames: ReadonlyMap<string, string>): ResponseHeaders {
  return Object.fromEntries(Array.from(headerNames, ([name, header]) =>
    [header, { type: 'string', description: `The session's ${name}, as JSON where it is no text of printable ASCII; absent where the session has none.` }]))
}

/**
 * The header of each default: `privacyLevel` is `X-Session-Default-Privacy-Level`.
 *
 * @throws Error when two defaults would have the same one
 */
function headerNamesOf (names: readonly string[]): Map<string, string> {
  const byHeader = new Map<string, string>()
  for (const name of names) {
    const header = headerName(name)
    const other = byHeader.get(header.toLowerCase())
    if (other !== undefined) throw new Error(`The defaults ${JSON.stringify(other)} and ${JSON.stringify(name)} would both be the header ${header} of GET /v1/resolve; rename one`)
    byHeader.set(header.toLowerCase(), name)
  }
  return new Map(names.map(name => [name, headerName(name)]))
}

function headerName (name: string): string {
  const words = name.replaceAll(/([a-z0-9])([A-Z])/g, '$1-$2').split(/[^A-Za-z0-9]+/)
  return ['X-Session-Default', ...words.map(word => word.charAt(0).toUpperCase() + word.slice(1))].join('-')
}

/**
 * Text that a header can carry as it is; anything else as JSON in ASCII, so that no value can break out of its line. Text that
 * begins with a quotation mark is written as JSON too: no two texts are the same header.
 */
function headerValue (value: unknown): string {
  if (typeof value === 'string' && /^[\x21\x23-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(value)) return value
  return ascii(JSON.stringify(value))
}

/** The same JSON without a character that a header could not carry. */
function ascii (json: string): string {
  return json.replaceAll(/[^\x20-\x7e]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
