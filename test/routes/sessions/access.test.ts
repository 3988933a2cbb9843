import Fastify from 'fastify'
import t from 'tap'
import sipherSessions from '../../../src/index.js'
import { adminKey, answer, createDatabase, createKey, createPool, createSession, encryptionKeys, failure, startService, unknownSessionId } from '../../helpers.js'

const operations = (id: string) => [
  { method: 'POST', url: '/v1/sessions', payload: { defaults: {} } },
  { method: 'GET', url: `/v1/sessions/${id}` },
  { method: 'PATCH', url: `/v1/sessions/${id}`, payload: { defaults: { chain: 'sui' } } },
  { method: 'DELETE', url: `/v1/sessions/${id}` }
] as const

const unauthorized = failure(401, 'UNAUTHORIZED', 'This operation needs an API key. Send it as X-API-Key: <key> or Authorization: Bearer <key>.')
const invalidKey = failure(401, 'INVALID_API_KEY', 'The API key is unknown, revoked or expired. Check it, or ask the operator for a new one.')
const malformedKey = failure(401, 'INVALID_API_KEY', 'What was sent is no API key of this service: those begin with sk_free_, sk_pro_ or sk_ent_, and this is another one, is not whole, or has quotes or a word around it.')

t.test('a session of another key answers exactly as one that never existed', async t => {
  const { service } = await startService(t)
  const owner = await createKey(service)
  const other = await createKey(service, 'enterprise')
  const sessionId = await createSession(service, owner.key)
  const comparable = async (operation: object) => {
    const { statusCode, headers, body } = await service.inject({ ...operation, headers: other.headers })
    // What counts up or is a time differs between any two answers.
    const { date, 'x-request-id': id, 'ratelimit-remaining': remaining, 'ratelimit-reset': reset, ...rest } = headers
    return { statusCode, headers: rest, body }
  }

  const foreign = operations(sessionId).slice(1)
  const missing = operations(unknownSessionId).slice(1)
  for (const [i, operation] of foreign.entries()) {
    const answered = await comparable(operation)
    t.equal(answered.statusCode, 404, operation.method)
    t.strictSame(answered, await comparable(missing[i]!), operation.method)
  }
  const named = (id: string) => comparable({ url: '/v1/errors', headers: { ...other.headers, 'x-session-id': id } })
  t.strictSame(await named(sessionId), await named(unknownSessionId), 'X-Session-Id')

  const still = await service.inject({ url: `/v1/sessions/${sessionId}`, headers: owner.headers })
  t.strictSame(still.json().data.defaults, { chain: 'near' }, 'nothing was changed')
})

t.test('an expired session answers as one that never existed, by the database\'s clock', async t => {
  const { service, connectionString } = await startService(t)
  const { key, headers } = await createKey(service)
  const pool = createPool(t, connectionString)
  const sessionId = await createSession(service, key, {}, 60)

  await pool.query('update sipher_sessions.sessions set expires_at = now() + interval \'1 second\'')
  t.equal((await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)

  await pool.query('update sipher_sessions.sessions set expires_at = now()')
  for (const [i, operation] of operations(sessionId).slice(1).entries()) {
    t.strictSame(answer(await service.inject({ ...operation, headers })), answer(await service.inject({ ...operations(unknownSessionId)[i + 1]!, headers })))
  }
  const { rows } = await pool.query('select count(*)::int as sessions from sipher_sessions.sessions')
  t.strictSame(rows, [{ sessions: 1 }], 'the row is still there, and is refused all the same')
})

t.test('without a key every operation is a 401 that says how to send one', async t => {
  const { service } = await startService(t)
  for (const operation of operations(unknownSessionId)) {
    const response = await service.inject(operation)
    t.strictSame(answer(response), unauthorized, operation.method)
    t.equal(response.headers['www-authenticate'], 'Bearer realm="sipher-sessions"')
    for (const headers of [{ authorization: 'Basic c2s6' }, { authorization: 'Bearer' }, { 'x-api-key': '' }]) {
      t.strictSame(answer(await service.inject({ ...operation, headers })), unauthorized, JSON.stringify(headers))
    }
  }
})

t.test('unknown, malformed, revoked and expired keys are a 401', async t => {
  const { service, connectionString } = await startService(t)
  const revoked = await createKey(service)
  await service.apiKeyRepository.revoke(revoked.id)
  const expired = await createKey(service)
  await createPool(t, connectionString).query('update sipher_sessions.api_keys set expires_at = now() where id = $1', [expired.id])
  const elsewhere = await createKey((await startService(t)).service)

  const keys = [revoked.key, expired.key, elsewhere.key, 'garbage', `${elsewhere.key}0`, `"${elsewhere.key}"`, `Bearer ${elsewhere.key}`]
  for (const [i, key] of keys.entries()) {
    for (const operation of operations(unknownSessionId)) {
      t.strictSame(answer(await service.inject({ ...operation, headers: { 'x-api-key': key } })), i < 3 ? invalidKey : malformedKey)
    }
  }
})

t.test('X-API-Key and Authorization: Bearer are the same; where both are sent, X-API-Key counts', async t => {
  const { service } = await startService(t)
  const { key } = await createKey(service)
  const other = await createKey(service)
  const sessionId = await createSession(service, key)
  const status = async (headers: Record<string, string>) => (await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).statusCode
  t.equal(await status({ 'x-api-key': key }), 200)
  t.equal(await status({ authorization: `Bearer ${key}` }), 200)
  t.equal(await status({ authorization: `bearer  ${key}` }), 200)
  t.equal(await status({ 'x-api-key': key, authorization: `Bearer ${other.key}` }), 200)
  t.equal(await status({ 'x-api-key': other.key, authorization: `Bearer ${key}` }), 404)
})

t.test('a free key gets 403 on all four operations and in X-Session-Id', async t => {
  const { service, connectionString } = await startService(t)
  const { headers, id } = await createKey(service, 'free')
  const denied = failure(403, 'TIER_ACCESS_DENIED', 'This operation needs a key of tier pro or enterprise; this key is of tier free.')
  for (const operation of operations(unknownSessionId)) {
    t.strictSame(answer(await service.inject({ ...operation, headers })), denied, operation.method)
  }
  t.strictSame(answer(await service.inject({ url: '/v1/errors', headers: { ...headers, 'x-session-id': unknownSessionId } })), denied)

  const fallen = await createKey(service)
  const sessionId = await createSession(service, fallen.key)
  await createPool(t, connectionString).query('update sipher_sessions.api_keys set tier = \'free\' where id = $1', [fallen.id])
  t.strictSame(answer(await service.inject({ url: `/v1/sessions/${sessionId}`, headers: fallen.headers })), denied, 'a key that fell to free cannot use its sessions, at once')
  t.ok(id)
})

t.test('a key that is revoked stops working on every instance at once', async t => {
  const one = await startService(t)
  const two = await startService(t, { connectionString: one.connectionString })
  const { key, id, headers } = await createKey(one.service)
  const sessionId = await createSession(two.service, key)
  t.equal((await two.service.inject({ url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)
  await one.service.inject({ method: 'DELETE', url: `/v1/admin/keys/${id}`, headers: { 'x-api-key': 'admin-key-of-the-tests-0123456789abcdef' } })
  t.strictSame(answer(await two.service.inject({ url: `/v1/sessions/${sessionId}`, headers })), invalidKey)
})

t.test('a patch by a stranger at the same time as the owner\'s is refused, and changes nothing', async t => {
  const { service } = await startService(t)
  const owner = await createKey(service)
  const stranger = await createKey(service)
  for (const order of [[owner, stranger], [stranger, owner]]) {
    const url = `/v1/sessions/${await createSession(service, owner.key)}`
    const responses = await Promise.all(order.map(({ headers }) =>
      service.inject({ method: 'PATCH', url, headers, payload: { defaults: headers === owner.headers ? { privacyLevel: 'shielded' } : { chain: 'sui' } } })))
    t.strictSame(responses.map(({ statusCode }) => statusCode), order.map(key => key === owner ? 200 : 404))
    t.strictSame((await service.inject({ url, headers: owner.headers })).json().data.defaults, { chain: 'near', privacyLevel: 'shielded' })
    const removed = await Promise.all([...order].map(({ headers }) => service.inject({ method: 'DELETE', url, headers })))
    t.strictSame(removed.map(({ statusCode }) => statusCode), order.map(key => key === owner ? 200 : 404))
  }
})

t.test('what the operations do not take in their query strings is refused, and nothing is done', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const url = `/v1/sessions/${sessionId}`
  const reason = 'is not a known field: this operation takes none in its query string'
  for (const [method, path, payload] of [['POST', '/v1/sessions', { defaults: {} }], ['GET', url], ['PATCH', url, { defaults: { chain: 'sui' } }], ['DELETE', url]] as const) {
    const response = await service.inject({ method, url: `${path}?ttlSeconds=60`, headers, ...(payload && { payload }) })
    t.strictSame(answer(response), failure(400, 'VALIDATION_ERROR', `The query string is not valid: ttlSeconds ${reason}`, [{ field: 'ttlSeconds', reason }]), method)
  }
  t.strictSame((await service.inject({ url: `${url}?=1&a&b=2&a`, headers })).json().error.details, ['(empty)', 'a', 'b'].map(field => ({ field, reason })))
  const many = (await service.inject({ url: `${url}?${'x'.repeat(200)}&${Array.from({ length: 30 }, (_, n) => n).join('&')}`, headers })).json().error
  t.strictSame([many.details.length, many.details[0].field], [20, `${'x'.repeat(100)}…`], 'no more is said than of a body')
  t.equal((await service.inject({ url: `${url}?`, headers })).json().data.defaults.chain, 'near')
  t.equal((await service.inject({ url: '/v1/admin/tiers?tier=pro', headers: { 'x-api-key': adminKey } })).statusCode, 400)
  for (const probe of ['/v1/health', '/v1/ready', '/v1/resolve']) t.equal((await service.inject({ url: `${probe}?from=proxy`, headers })).statusCode, 200, 'who asks these has what it was asked in its query string')
})

t.test('a host\'s own parser of query strings may make of none what it likes', async t => {
  for (const querystringParser of [(query: string) => new URLSearchParams(query), () => undefined, (query: string) => query]) {
    const host = Fastify({ routerOptions: { querystringParser: querystringParser as never } })
    t.teardown(() => host.close())
    await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
    await host.ready()
    const { key, headers } = await createKey(host)
    const sessionId = await createSession(host, key)
    t.equal((await host.inject({ url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)
    t.equal((await host.inject({ url: `/v1/sessions/${sessionId}?a=1`, headers })).statusCode, 400)
  }
})
