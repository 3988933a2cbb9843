// A host of the benchmark "merge", in a process of its own: one route, and what the first argument says before it.
// Answers its parent how much processor time it has used.
import { setImmediate as nextTurn } from 'node:timers/promises'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import sessionDefaults from '../dist/plugins/session-defaults.js'
import tiers from '../dist/plugins/tiers.js'
import { presetDefaults } from '../dist/schemas/session.js'

const kind = process.argv[2]
const text = { type: 'string' }
const host = Fastify()

// The lookup set aside: who asks, and what the session holds, is known without asking anybody. That it is waited for remains, and
// that the answer comes in a later turn of the event loop: by then the body is there, so that nothing has to be read again.
const principal = { id: 'key_1', tier: 'pro' }
const session = { defaults: { chain: 'near', privacyLevel: 'shielded', rpcProvider: 'helius', backend: 'sip-native' } }
const requirePrincipal = async (request, reply, meanwhile) => {
  meanwhile()
  await nextTurn()
  request.principal = principal
}
const use = async () => session

// As many plugins as the host `merge` has: any app has some, and what Fastify does with them at the start is enough for V8 to compile
// Node's own functions another way, by which a request takes up to 2 µs more.
if (kind !== 'merge') {
  for (let n = 0; n < 4; n++) await host.register(fp(async () => {}))
}

if (kind === 'lookup') {
  host.decorateRequest('principal', null)
  host.decorateRequest('sessionDefaults', null)
  host.addHook('onRequest', async (request) => {
    if (request.headers['x-session-id'] !== undefined) await requirePrincipal(request, null, () => {})
  })
  host.addHook('preValidation', async (request) => {
    if (request.principal !== null) request.sessionDefaults = (await use()).defaults
  })
}

if (kind === 'merge') {
  await host.register(fp(async fastify => {
    fastify.decorateRequest('principal', null)
    fastify.decorate('authenticatePrincipal', requirePrincipal)
  }, { name: 'authentication' }))
  await host.register(fp(async fastify => { fastify.decorate('sessionRepository', { use, beginUse: sessionId => ({ sessionId }) }) }, { name: 'session-repository' }))
  await host.register(tiers)
  await host.register(sessionDefaults, { defaults: presetDefaults })
}

host.post('/transfer', {
  schema: {
    body: {
      type: 'object',
      required: ['amount', 'recipient'],
      properties: { amount: { type: 'number' }, recipient: text, memo: text, chain: text, privacyLevel: text, rpcProvider: text, backend: text }
    },
    response: { 200: { type: 'object', properties: { id: text, amount: { type: 'number' }, chain: text } } }
  }
}, async ({ body }) => ({ id: 'transfer_1', amount: body.amount, chain: body.chain ?? 'near' }))

const url = await host.listen({ host: '127.0.0.1', port: 0 })
process.on('message', () => {
  const { user, system } = process.cpuUsage()
  process.send({ microseconds: user + system })
})
process.on('disconnect', () => process.exit())
process.send({ url })
