import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import { fillDefaults, placementsOf, type SessionDefaultsMapping } from '../../defaults/fill-defaults.js'
import { validationError } from '../../errors.js'
import { bodyFailures, failures, successOf } from '../../schemas/envelope.js'
import { appliedHeader } from '../../schemas/response-headers.js'
import { stringEnum } from '../../schemas/string-enum.js'
import { optionalBody } from '../optional-body.js'
import { plainNames, SessionHeader, type ResolveRouteOptions } from './shared.js'

const bodyLimit = 1024 * 1024

interface PostResolveOptions extends ResolveRouteOptions {
  mapping: SessionDefaultsMapping | undefined
}

export const postResolve: FastifyPluginAsyncTypebox<PostResolveOptions> = async (fastify, { defaults, mapping }) => {
  const known = Object.keys(defaults.properties)
  const placements = placementsOf(known, mapping)
  const plain = plainNames(defaults)

  fastify.post('/resolve', {
    bodyLimit,
    ...optionalBody,
    schema: {
      operationId: 'postResolve',
      tags: ['Resolve'],
      summary: 'What a request would become',
      description: 'Takes a request\'s body and answers it with the session\'s defaults filled in, and where each field came from. Nothing is stored.',
      headers: SessionHeader,
      querystring: Type.Object({
        properties: Type.Optional(Type.String({
          description: 'The defaults that the request\'s receiver takes, separated by commas. Without it all but the secret ones.',
          examples: ['chain,privacyLevel']
        }))
      }, { additionalProperties: false }),
      body: Type.Object({}, { additionalProperties: true, examples: [{ amount: 5, privacyLevel: 'maximum' }] }),
      response: {
        200: successOf(Type.Object({
          body: Type.Object({}, { additionalProperties: true, examples: [{ amount: 5, privacyLevel: 'maximum', chain: 'near' }] }),
          origin: Type.Unsafe<Record<string, 'request' | 'session'>>(Type.Object({}, {
            additionalProperties: stringEnum(['request', 'session']),
            description: 'Where each field of the body came from; a nested one that the session filled in by its path.',
            examples: [{ amount: 'request', privacyLevel: 'request', chain: 'session' }]
          }))
        }), { description: 'The body as the receiver would get it.', headers: appliedHeader }),
        ...failures('VALIDATION_ERROR', ...bodyFailures)
      }
    }
  }, async (request, reply) => {
    const names = request.query.properties === undefined ? plain : chooseNames(request.query.properties)
    const body = request.body as Record<string, unknown>
    const origin = new Map(Object.keys(body).map(name => [name, 'request' as 'request' | 'session']))
    const filled = fillDefaults(body, request.sessionDefaults ?? {}, placements.filter(({ name }) => names.includes(name)))
    for (const { at } of filled) origin.set(at, 'session')
    if (filled.length > 0) reply.header('x-session-applied', [...new Set(filled.map(({ name }) => name))].join(', '))
    return { success: true as const, data: { body, origin: Object.fromEntries(origin) } }
  })

  function chooseNames (list: string): string[] {
    const wanted = list.split(',').map(name => name.trim()).filter(name => name !== '')
    const unknown = wanted.find(name => !known.includes(name))
    if (unknown !== undefined) {
      throw validationError('query string', [{ field: 'properties', reason: `names ${JSON.stringify(unknown.slice(0, 100))}, which sessions do not hold; they hold ${known.join(', ')}` }])
    }
    return known.filter(name => wanted.includes(name))
  }
}
