// What a host with its own TypeBox object of defaults sees, without a cast. Compiled by types.test.ts, never run.
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import sipherSessions, { secret, type Principal, type SessionDefaults, type Tier } from 'sipher-sessions'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
function expectType<Expected> () {
  return <Actual>(_value: Actual, ..._same: Equal<Actual, Expected> extends true ? [] : [never]) => {}
}

const myDefaults = Type.Object({
  region: Type.Union([Type.Literal('eu'), Type.Literal('us')]),
  limit: Type.Optional(Type.Integer()),
  token: Type.Optional(secret(Type.String()))
})

declare module 'sipher-sessions' {
  interface SessionTypes { defaults: typeof myDefaults }
}

const host = Fastify()
await host.register(sipherSessions, {
  connectionString: 'postgres://localhost/host',
  defaults: myDefaults,
  mapping: { region: 'place.region', limit: ['limit', 'pages[].limit'] },
  identify: async request => request.headers.host === undefined ? null : { id: request.headers.host, tier: 'pro' }
})

host.get('/typed', async request => {
  expectType<SessionDefaults | null>()(request.sessionDefaults)
  expectType<'eu' | 'us' | undefined>()(request.sessionDefaults?.region)
  expectType<number | undefined>()(request.sessionDefaults?.limit)
  expectType<string | undefined>()(request.sessionDefaults?.token)
  // @ts-expect-error -- the preset's are not this host's
  void request.sessionDefaults?.chain
  expectType<Principal | null>()(request.principal)
  expectType<Tier | undefined>()(request.principal?.tier)
  return null
})

// With the host's type provider the body keeps its own type.
const routes: FastifyPluginAsyncTypebox = async fastify => {
  fastify.post('/body', {
    schema: { body: Type.Object({ region: Type.Optional(Type.String()) }) },
    config: { sessionDefaults: ['region'] }
  }, async request => {
    expectType<string | undefined>()(request.body.region)
    return null
  })
  fastify.get('/none', { config: { sessionDefaults: false } }, async () => null)
  fastify.get('/own', { config: { sessionDefaults: (_request, values) => Object.keys(values) } }, async () => null)
  // @ts-expect-error -- a name alone is no list
  fastify.get('/wrong', { config: { sessionDefaults: 'region' } }, async () => null)
}
await host.register(routes)

// @ts-expect-error -- a tier that there is not
await host.register(sipherSessions, { identify: () => ({ id: 'a', tier: 'gold' }) })

// Over HTTP/2 the same hooks guard routes.
const http2Host = Fastify({ http2: true })
await http2Host.register(sipherSessions, { connectionString: process.env.DATABASE_URL })
http2Host.post('/guarded', { onRequest: http2Host.requirePrincipal }, async request => request.sessionDefaults)
http2Host.post('/pro', { onRequest: [http2Host.requirePrincipal, http2Host.requireTier('pro')] }, async request => request.principal)
http2Host.addHook('onRequest', http2Host.requirePrincipal)
