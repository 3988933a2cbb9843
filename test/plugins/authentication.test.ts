import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import sipherSessions from '../../src/index.js'
import { generateApiKey, hashApiKey } from '../../src/api-key.js'
import { tierNames } from '../../src/schemas/tier.js'
import { answer, createDatabase, createKey, createPool, encryptionKeys, failure, sendInTwo, startService, unknownSessionId } from '../helpers.js'

const invalidKey = failure(401, 'INVALID_API_KEY', 'The API key is unknown, revoked or expired. Check it, or ask the operator for a new one.')

const malformedKey = failure(401, 'INVALID_API_KEY', 'What was sent is no API key of this service: those begin with sk_free_, sk_pro_ or sk_ent_, and this is another one, is not whole, or has quotes or a word around it.')

const flip = (text: string, at: number) => text.slice(0, at) + (text[at] === 'a' ? 'b' : 'a') + text.slice(at + 1)

/** Keys that nobody was given, of every kind that is wrong by its form or its checksum. */
const kinds: (() => string)[] = [
  () => randomBytes(20).toString('base64'),
  () => randomBytes(24).toString('latin1'),
  () => generateApiKey('pro').slice(0, Math.floor(Math.random() * 56)),
  () => flip(generateApiKey('pro'), 7 + Math.floor(Math.random() * 49)),
  () => generateApiKey('free').replace('sk_free_', 'sk_ent_'),
  () => generateApiKey('pro').replace('sk_pro_', 'sk_gold_'),
  () => `${generateApiKey('enterprise')}0`,
  () => ` ${generateApiKey('enterprise')}`,
  () => generateApiKey('pro').toUpperCase(),
  () => `sk_pro_${'é'.repeat(49)}`,
  () => `sk_pro_${'\u{1F511}'.repeat(25)}`,
  () => generateApiKey('pro') + '\n' + generateApiKey('pro'),
  () => `sk_pro_${'x'.repeat(8000)}`,
  () => `${'sk_pro_'.repeat(500)}`
]

t.test('100,000 garbage keys cause no query at all', async t => {
  const pool = createPool(t, await createDatabase(t))
  // Garbage that is limited by its address is refused before; here each is looked at.
  const { service } = await startService(t, { pool, rateLimit: false })
  let queries = 0
  for (const client of await Promise.all(Array.from({ length: 4 }, () => pool.connect()))) {
    const query = client.query.bind(client) as (...statement: unknown[]) => unknown
    client.query = ((...statement: unknown[]) => {
      queries++
      return query(...statement)
    }) as typeof client.query
    client.release()
  }
  const reply = {} as FastifyReply
  const refused = async (headers: object): Promise<boolean> => {
    const request = { headers, principal: null } as FastifyRequest
    return service.requirePrincipal(request, reply).then(() => false, ({ code }) => code === 'INVALID_API_KEY')
  }

  let accepted = 0
  for (let i = 0; i < 100_000; i++) {
    if (!await refused({ 'x-api-key': kinds[i % kinds.length]!() || 'x' })) accepted++
  }
  t.strictSame({ accepted, queries }, { accepted: 0, queries: 0 })

  for (const kind of kinds.slice(2, 8)) {
    for (const headers of [{ 'x-api-key': kind() || 'x' }, { authorization: `Bearer ${kind().trim() || 'x'}0` }]) {
      t.strictSame(answer(await service.inject({ url: `/v1/sessions/${unknownSessionId}`, headers })), malformedKey)
    }
  }
  t.equal(queries, 0, 'over HTTP neither')

  t.strictSame(answer(await service.inject({ url: '/v1/limits', headers: { 'x-api-key': generateApiKey('pro') } })), invalidKey)
  t.equal(queries, 1, 'a key that only the database can tell is asked for')
})

t.test('a key of each tier passes the check of its form', async t => {
  const { service } = await startService(t)
  for (const tier of tierNames) {
    const { id, key } = await createKey(service, tier)
    t.strictSame(await service.apiKeyRepository.authenticate(hashApiKey(key)), { principal: { id, tier } })
  }
})

t.test('a key that is revoked, rotated or given another tier while a body is on its way acts as it is then', async t => {
  const { service } = await startService(t)
  await service.listen({ port: 0, host: '127.0.0.1' })
  const create = async (meanwhile: (id: string) => Promise<unknown>) => {
    const { id, headers } = await createKey(service)
    return sendInTwo(t, service, id, { path: '/v1/sessions', headers, body: '{"defaults":{"chain":"near"}}' }, async () => { await meanwhile(id) })
  }
  const { apiKeyRepository } = service
  t.match(await create(async () => {}), /^HTTP\/1\.1 201 /)
  t.match(await create(id => apiKeyRepository.revoke(id)), /^HTTP\/1\.1 401 [^]*"INVALID_API_KEY"/)
  t.match(await create(id => apiKeyRepository.rotate(id, 0)), /^HTTP\/1\.1 401 [^]*"INVALID_API_KEY"/)
  t.match(await create(id => apiKeyRepository.rotate(id, 60)), /^HTTP\/1\.1 201 /, 'but within its grace period')
  t.match(await create(id => apiKeyRepository.update(id, { tier: 'free' })), /^HTTP\/1\.1 403 [^]*needs a key of tier pro or enterprise/)
  t.match(await create(id => apiKeyRepository.update(id, { tier: 'enterprise' })), /^HTTP\/1\.1 201 /)
  t.equal((await service.sessionDatabase.query('select from sipher_sessions.sessions')).rowCount, 3)
})

t.test('over HTTP/2 a request without a body is looked up once', async t => {
  const pool = createPool(t, await createDatabase(t))
  let lookups = 0
  pool.on('connect', client => {
    client.query = new Proxy(client.query, {
      apply (query, client, args: [{ text?: string }]) {
        if (args[0].text?.includes('from sipher_sessions.api_keys')) lookups++
        return Reflect.apply(query, client, args)
      }
    })
  })
  const host = Fastify({ http2: true })
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0 })
  await host.listen({ port: 0, host: '127.0.0.1' })
  const { headers } = await createKey(host as unknown as FastifyInstance)
  const client = connect(`http://127.0.0.1:${(host.server.address() as AddressInfo).port}`)
  t.teardown(() => { client.destroy() })
  lookups = 0
  const injected = await host.inject({ url: '/v1/limits', headers })
  t.equal(injected.statusCode, 200)
  t.equal(lookups, 1)
  const [answered] = await once(client.request({ ':path': '/v1/limits', ...headers }), 'response') as [{ ':status': number }]
  t.equal(answered[':status'], 200)
  t.equal(lookups, 2)
})
