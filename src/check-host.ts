import type { FastifyInstance } from 'fastify'

/** What the API's plugins decorate the app with. */
const decorators = [
  'requirePrincipal', 'requireTier', 'tierLimits', 'auditRepository', 'apiKeyRepository', 'sessionRepository', 'requestCountRepository',
  'requestLimits', 'authenticatePrincipal', 'authenticateAgain', 'countUnknownRoute', 'requireAdminKey'
]

/** And its requests. */
const requestDecorators = ['principal', 'sessionDefaults', 'namedSession', 'requiredTiers', 'keyToLookUpAgain', 'requiresPrincipal', 'sessionReading']

/** The length of what a client may ask for in a path, which is a session's id at most. */
const parameterLength = 69

/**
 * Refuses an app in which the API would not work, in a sentence.
 *
 * @param prefix where its operations are to be
 * @throws Error where it has been registered already, a name or a path of its own is taken, or its ids are too long for the router
 */
export function checkHost (fastify: FastifyInstance, prefix: string): void {
  if (fastify.hasDecorator('sessionDatabase')) {
    throw new Error('sipher-sessions is registered already, in this scope or one around it. Once is enough for a scope and those inside it; another registration needs a scope beside it, and another prefix.')
  }
  const name = decorators.find(name => fastify.hasDecorator(name)) ?? requestDecorators.find(name => fastify.hasRequestDecorator(name))
  if (name !== undefined) throw new Error(`The decorator ${name} is sipher-sessions' own, and this app has one already. Give that one another name, or register sipher-sessions in a scope without it.`)
  const url = `${fastify.prefix}${prefix}`.replace(/\/+$/, '') + '/health'
  if (fastify.hasRoute({ method: 'GET', url })) throw new Error(`There is a route GET ${url} already. Register sipher-sessions under another prefix, by its option prefix, as each registration needs one of its own.`)
  const { routerOptions, maxParamLength } = fastify.initialConfig
  // Where it is not given among the router's options, the app's own counts, which is the same by default.
  const longest = routerOptions?.maxParamLength === 100 ? maxParamLength! : routerOptions?.maxParamLength ?? maxParamLength!
  if (longest < parameterLength) throw new Error(`routerOptions.maxParamLength must be at least ${parameterLength}, the length of a session's id; it is ${longest}.`)
}
