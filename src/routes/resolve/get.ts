import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { successOf } from '../../schemas/envelope.js'
import { type SessionDefaultValues } from '../../schemas/session.js'
import { plainNames, SessionHeader, type ResolveRouteOptions } from './shared.js'

export const getResolve: FastifyPluginAsyncTypebox<ResolveRouteOptions> = async (fastify, { defaults }) => {
  const headerNames = new Map(plainNames(defaults).map(name => [name, headerName(name)]))

  fastify.get('/resolve', {
    schema: {
      operationId: 'getResolve',
      tags: ['Resolve'],
      summary: 'A session\'s defaults, for a proxy',
      description: 'Answers a proxy\'s forward-auth call (nginx auth_request, Traefik ForwardAuth, Envoy ext_authz): 200 with the defaults of the session that X-Session-Id names, as JSON and as one header for each, such as `X-Session-Default-Privacy-Level: shielded`; without the header, no defaults. Secret defaults are left out.',
      headers: SessionHeader,
      response: {
        200: successOf(Type.Object({
          defaults: Type.Object({}, { additionalProperties: true, examples: [{ chain: 'near', privacyLevel: 'shielded' }] })
        }), { description: 'The request may pass, with these defaults.' })
      }
    }
  }, async (request, reply) => {
    const values: SessionDefaultValues = {}
    const held: SessionDefaultValues = request.sessionDefaults ?? {}
    for (const [name, header] of headerNames) {
      if (!Object.hasOwn(held, name)) continue
      values[name] = held[name]
      reply.header(header, headerValue(held[name]))
    }
    return { success: true as const, data: { defaults: values } }
  })
}

/** `privacyLevel` is `X-Session-Default-Privacy-Level`. */
function headerName (name: string): string {
  const words = name.replaceAll(/([a-z0-9])([A-Z])/g, '$1-$2').split(/[^A-Za-z0-9]+/)
  return ['X-Session-Default', ...words.map(word => word.charAt(0).toUpperCase() + word.slice(1))].join('-')
}

/** Text that a header can carry as it is; anything else as JSON in ASCII, so that no value can break out of its line. */
function headerValue (value: unknown): string {
  if (typeof value === 'string' && /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(value)) return value
  return JSON.stringify(value).replaceAll(/[^\x20-\x7e]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
