import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import sipherSessions from 'sipher-sessions'

/** What a session of this API holds: its own parameters, not those of the preset. */
const defaults = Type.Object({
  currency: Type.Optional(Type.Union([Type.Literal('EUR'), Type.Literal('USD')], { examples: ['EUR'] })),
  speed: Type.Optional(Type.Union([Type.Literal('standard'), Type.Literal('instant')], { examples: ['instant'] }))
})

/** Whoever has logged in; here a list, elsewhere a JWT or a cookie. */
const users = new Map([['token-of-ann', { id: 'ann', tier: 'pro' }], ['token-of-bob', { id: 'bob', tier: 'pro' }]])

export async function createApp (connectionString) {
  const app = Fastify()
  await app.register(sipherSessions, {
    connectionString,
    defaults,
    // In this API's bodies the speed is a nested property.
    mapping: { speed: 'options.speed' },
    identify: request => users.get(request.headers.authorization?.replace('Bearer ', '')) ?? null
  })

  app.post('/payments', {
    schema: {
      body: Type.Object({
        amount: Type.Number(),
        currency: Type.Union([Type.Literal('EUR'), Type.Literal('USD')]),
        options: Type.Optional(Type.Object({ speed: Type.Optional(Type.String()) }, { additionalProperties: false }))
      }, { additionalProperties: false })
    }
  }, async request => ({ payment: request.body, by: request.principal?.id ?? null }))

  app.get('/rates', {
    schema: { querystring: Type.Object({ currency: Type.String() }) }
  }, async request => ({ base: request.query.currency }))

  return app
}
