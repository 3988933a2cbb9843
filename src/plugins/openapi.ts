import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'
import { version } from '../package-root.js'

export interface OpenApiOptions {
  /**
   * Where clients reach the service, for the document's `servers`.
   * @default none: the origin that the document came from
   */
  publicUrl?: string
  /**
   * Where Swagger UI is served; false for nowhere.
   * @default false
   */
  docs?: string | false
}

/** What is changed of an operation of the document. */
interface Operation {
  operationId?: string
  requestBody?: { required?: boolean }
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the document says of a route that is served without a body as well. */
    bodyIsOptional?: true
  }
}

/** Collects the routes of its scope into an OpenAPI document, and serves Swagger UI over it. */
export default fp<OpenApiOptions>(async (fastify, { publicUrl, docs = false }) => {
  const optionalBodies = new Set<string | undefined>()
  await fastify.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'sipher-sessions',
        version,
        description: 'Keeps an API client\'s default parameters on the server, and applies them to every request that carries `X-Session-Id`.',
        license: { name: 'MIT', identifier: 'MIT' },
        contact: { name: 'sipher-sessions maintainers', url: 'https://sipher.sip-protocol.org' }
      },
      ...(publicUrl && { servers: [{ url: publicUrl }] }),
      tags: [
        { name: 'Sessions', description: 'Create, read, change and delete sessions. Needs a key of tier pro or enterprise.' },
        { name: 'Resolve', description: 'What a request that names a session would be given. For proxies, for programs in any language, and to see for yourself.' },
        { name: 'Admin', description: 'API keys and tiers. Needs the admin key.' },
        { name: 'Service', description: 'Health and description of the service.' }
      ],
      components: {
        securitySchemes: {
          ApiKeyAuth: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'An API key, such as sk_pro_…' },
          BearerAuth: { type: 'http', scheme: 'bearer', description: 'The same API key, as a bearer token.' },
          AdminKeyAuth: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'The admin key that the service was started with.' }
        }
      }
    },
    transform ({ schema, url, route }) {
      const { security, bodyIsOptional } = route.config ?? {}
      if (bodyIsOptional) optionalBodies.add(schema.operationId)
      return { schema: { ...schema, ...(security && { security }) }, url }
    },
    transformObject (document) {
      const { openapiObject } = document as { openapiObject: { paths?: Record<string, Record<string, Operation>> } }
      for (const operation of Object.values(openapiObject.paths ?? {}).flatMap(item => Object.values(item))) {
        if (optionalBodies.has(operation.operationId)) operation.requestBody!.required = false
      }
      return openapiObject
    },
    convertConstToEnum: false,
    refResolver: {
      buildLocalReference: ({ $id }) => String($id)
    }
  })

  if (docs === false) return
  await fastify.register(swaggerUi, {
    routePrefix: docs,
    // What is before it outside this scope: for pages whose address does not end with a slash.
    indexPrefix: (publicUrl === undefined ? '' : new URL(publicUrl).pathname.replace(/\/$/, '')) + fastify.prefix,
    uiConfig: { persistAuthorization: true, tryItOutEnabled: true },
    staticCSP: {
      'default-src': ["'self'"],
      'img-src': ["'self'", 'data:'],
      'script-src': ["'self'"],
      // Swagger UI sets styles on its elements.
      'style-src': ["'self'", "'unsafe-inline'"],
      'object-src': ["'none'"],
      'frame-ancestors': ["'self'"]
    }
  })
}, { name: 'openapi', fastify: '5.x' })
