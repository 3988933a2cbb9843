import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { answer, createKey, createPool, createSession, failure, startService } from '../../helpers.js'

t.test('PATCH /v1/sessions/{id} sets what is given, leaves the rest, and keeps the expiry', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { chain: 'near', privacyLevel: 'standard' }, 60)
  const url = `/v1/sessions/${sessionId}`
  const { expiresAt } = (await service.inject({ url, headers })).json().data

  const response = await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { privacyLevel: 'maximum', rpcProvider: 'triton' } } })

  const defaults = { chain: 'near', privacyLevel: 'maximum', rpcProvider: 'triton' }
  const { lastAccessedAt } = response.json().data
  t.strictSame(answer(response), { status: 200, body: { success: true, data: { sessionId, defaults, expiresAt, lastAccessedAt } } })
  t.type(lastAccessedAt, 'number')
  t.strictSame((await service.inject({ url, headers })).json().data.defaults, defaults)

  const empty = await service.inject({ method: 'PATCH', url, headers, payload: { defaults: {} } })
  t.strictSame(empty.json().data.defaults, defaults, 'an empty patch changes nothing')
})

t.test('a patch that is not valid is a 400 that names why, and changes nothing', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const url = `/v1/sessions/${await createSession(service, key)}`
  const chains = 'solana, ethereum, polygon, arbitrum, optimism, base, near, aptos, sui, cosmos, osmosis, injective, celestia, sei, dydx, bitcoin, zcash'

  const cases: [payload: object, details: { field: string, reason: string }[]][] = [
    [{ defaults: { chain: 'solanna', privacyLevel: 'maximum' } }, [{ field: 'defaults.chain', reason: `must be one of ${chains}; did you mean "solana"?` }]],
    [{ defaults: { chain: 'sui', privacyLvl: 'maximum' } }, [{ field: 'defaults.privacyLvl', reason: 'is not a known field; did you mean "privacyLevel"?' }]],
    [{ defaults: { chain: 'sui' }, ttlSeconds: 600 }, [{ field: 'ttlSeconds', reason: 'is not a known field; known are defaults' }]],
    [{}, [{ field: 'defaults', reason: 'is missing' }]]
  ]
  for (const [payload, details] of cases) {
    const response = await service.inject({ method: 'PATCH', url, headers, payload })
    t.strictSame(answer(response), failure(400, 'VALIDATION_ERROR', `The body is not valid: ${details[0]!.field} ${details[0]!.reason}`, details))
  }
  const malformed = await service.inject({ method: 'PATCH', url, headers: { ...headers, 'content-type': 'application/json' }, payload: '{' })
  t.equal(malformed.json().error.code, 'INVALID_JSON')
  t.strictSame((await service.inject({ url, headers })).json().data.defaults, { chain: 'near' })
})

t.test('64 concurrent patches of different keys through two instances lose none', async t => {
  const { Type } = await import('@sinclair/typebox')
  const names = Array.from({ length: 64 }, (_, i) => `parameter${i}`)
  const defaults = Type.Object(Object.fromEntries(names.map(name => [name, Type.Optional(Type.Integer())])))
  const one = await startService(t, { defaults })
  const two = await startService(t, { defaults, connectionString: one.connectionString })
  const { key, headers } = await createKey(one.service)
  const url = `/v1/sessions/${await createSession(one.service, key, {})}`

  const responses = await Promise.all(names.map((name, i) =>
    (i % 2 ? one : two).service.inject({ method: 'PATCH', url, headers, payload: { defaults: { [name]: i } } })))

  t.ok(responses.every(({ statusCode }) => statusCode === 200))
  const { rows } = await createPool(t, one.connectionString).query('select defaults from sipher_sessions.sessions')
  t.strictSame(rows, [{ defaults: Object.fromEntries(names.map((name, i) => [name, i])) }])
})

t.test('a patch moves the last access', async t => {
  const { service, connectionString } = await startService(t)
  const { key, headers } = await createKey(service)
  const url = `/v1/sessions/${await createSession(service, key)}`
  await createPool(t, connectionString).query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'1 hour\'')
  const { lastAccessedAt } = (await service.inject({ method: 'PATCH', url, headers, payload: { defaults: {} } })).json().data
  t.ok(Date.now() - lastAccessedAt < 60_000)
})

t.test('a patch that had to wait leaves the access of one that came later', async t => {
  const { service, connectionString } = await startService(t)
  const { service: other } = await startService(t, { connectionString })
  const { key, headers } = await createKey(service)
  const [held, free] = [await createSession(service, key), await createSession(service, key)]
  const patch = async (service: FastifyInstance, id: string): Promise<number> =>
    (await service.inject({ method: 'PATCH', url: `/v1/sessions/${id}`, headers, payload: { defaults: {} } })).json().data.lastAccessedAt
  const blocker = await createPool(t, connectionString).connect()
  t.teardown(() => blocker.release())
  await blocker.query('begin')
  await blocker.query('select from sipher_sessions.sessions where id = decode($1, \'hex\') for update', [held.slice(5)])
  // Both are one statement, which waits for the first before it looks at the second.
  const waiting = Promise.all([patch(service, held), patch(service, free)])
  while ((await blocker.query('select from pg_stat_activity where datname = current_database() and wait_event_type = \'Lock\'')).rowCount === 0);
  const later = await patch(other, free)
  await blocker.query('rollback')
  t.ok((await waiting)[1]! >= later)
  t.ok((await service.inject({ url: `/v1/sessions/${free}`, headers })).json().data.lastAccessedAt >= later)
})

t.test('of patches at the same time that set the same parameter the later wins, and each is answered that', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const url = `/v1/sessions/${await createSession(service, key)}`
  const responses = await Promise.all([['sui', '0x1'], ['base', '0x2']].map(([chain, defaultViewingKey]) =>
    service.inject({ method: 'PATCH', url, headers, payload: { defaults: { chain, defaultViewingKey } } })))
  t.strictSame(responses.map(response => response.json().data.defaults), Array(2).fill({ chain: 'base', defaultViewingKey: '0x2' }))
})
