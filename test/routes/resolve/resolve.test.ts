import { METHODS } from 'node:http'
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import t from 'tap'
import sipherSessions, { secret } from '../../../src/index.js'
import { answer, createDatabase, createKey, createSession, encryptionKeys, failure, startService, unknownSessionId } from '../../helpers.js'

const held = { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' }

t.test('GET /v1/resolve answers a session\'s defaults as JSON and as headers, without the secret ones', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, held)
  const response = await service.inject({ url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId } })
  t.strictSame(answer(response), { status: 200, body: { success: true, data: { defaults: { chain: 'near', privacyLevel: 'shielded' } } } })
  const sent = Object.entries(response.headers).filter(([name]) => name.startsWith('x-session-default'))
  t.strictSame(sent, [['x-session-default-chain', 'near'], ['x-session-default-privacy-level', 'shielded']])
})

t.test('GET /v1/resolve says who makes the request, and no two ids are the same header', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, {
    connectionString: await createDatabase(t),
    encryptionKeys,
    sweepIntervalMs: 0,
    identify: request => ({ id: decodeURIComponent(String(request.headers['x-user'])), tier: 'enterprise' })
  })
  const principalOf = async (user: string) => {
    const { headers } = await host.inject({ url: '/v1/resolve', headers: { 'x-user': encodeURIComponent(user) } })
    return [headers['x-principal-id'], headers['x-principal-tier']]
  }
  t.strictSame(await principalOf('ann@example.org'), ['ann@example.org', 'enterprise'])
  t.strictSame(await principalOf('zoë'), ['"zo\\u00eb"', 'enterprise'])
  t.strictSame(await principalOf('"zo\\u00eb"'), ['"\\"zo\\\\u00eb\\""', 'enterprise'])
})

t.test('a refusal is in a header as well, for proxies that pass on no body', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service)
  const resolve = async (headers: object, method: 'GET' | 'HEAD' = 'GET') => service.inject({ method, url: '/v1/resolve', headers: { ...headers } })
  for (const [status, sent] of [[400, { ...headers, 'x-session-id': 'ü' }], [401, {}], [403, { ...(await createKey(service, 'free')).headers, 'x-session-id': unknownSessionId }], [404, { ...headers, 'x-session-id': unknownSessionId }]] as const) {
    const response = await resolve(sent)
    t.equal(response.statusCode, status)
    t.equal(response.headers['x-resolve-error'], response.body)
  }
  await service.sessionDatabase.query('alter table sipher_sessions.sessions rename to hidden')
  const down = await resolve({ ...headers, 'x-session-id': unknownSessionId })
  t.strictSame([down.statusCode, down.headers['x-resolve-error']], [503, down.body])
  t.strictSame([down.headers['retry-after'], (await resolve(headers)).headers['x-resolve-error']], ['1', undefined])
  t.equal((await resolve({}, 'HEAD')).statusCode, 401)
})

t.test('a proxy that keeps the request\'s method and path is answered the same below /v1/resolve/', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, held)
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'] as const) {
    for (const more of [{}, { 'content-type': 'application/json', 'content-length': '0' }, { 'content-type': 'multipart/form-data; boundary=b', 'content-length': '0' }]) {
      const response = await service.inject({ method, url: '/v1/resolve/transfer/5?chain=sui', headers: { ...headers, ...more, 'x-session-id': sessionId } })
      t.equal(response.statusCode, 200, method)
      t.equal(response.headers['x-session-default-chain'], 'near')
      t.equal(response.headers['x-session-applied'], undefined)
      if (method !== 'HEAD') t.strictSame(response.json(), { success: true, data: { defaults: { chain: 'near', privacyLevel: 'shielded' } } })
    }
    const refused = await service.inject({ method, url: '/v1/resolve/', headers: { ...headers, 'x-session-id': unknownSessionId } })
    t.equal(refused.statusCode, 404)
    t.equal((await service.inject({ method, url: '/v1/resolve/transfer' })).statusCode, 401)
  }
  for (const method of METHODS.filter(method => method !== 'CONNECT')) {
    t.equal((await service.inject({ method: method as 'GET', url: '/v1/resolve/transfer', headers: { ...headers, 'x-session-id': sessionId } })).headers['x-session-default-chain'], 'near', method)
  }
  const bytes = await service.inject({ method: 'POST', url: '/v1/resolve/x', headers: { ...headers, 'content-type': 'application/json' }, payload: 'not read' })
  t.equal(bytes.statusCode, 200)
})

t.test('a session whose header is misspelt is not passed over', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service)
  for (const url of ['/v1/resolve', '/v1/resolve/transfer']) {
    const refused = await service.inject({ url, headers: { ...headers, x_session_id: unknownSessionId } })
    const reason = 'is no header that is read; write X-Session-Id'
    t.strictSame(answer(refused), failure(400, 'VALIDATION_ERROR', `The request is not valid: x_session_id ${reason}`, [{ field: 'x_session_id', reason }]))
    t.equal(refused.headers['x-resolve-error'], refused.body)
  }
})

t.test('two defaults that would be one header are refused at the start', async t => {
  const host = Fastify()
  const { String } = Type
  await t.rejects(async () => host.register(sipherSessions, { connectionString: 'postgres://unused', migrate: false, defaults: Type.Object({ feeLimit: String(), fee_limit: String() }) }),
    { message: 'The defaults "feeLimit" and "fee_limit" would both be the header X-Session-Default-Fee-Limit of GET /v1/resolve; rename one' })
})

t.test('a request that names no session has no defaults, and still needs a key', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service, 'free')
  t.strictSame(answer(await service.inject({ url: '/v1/resolve', headers })), { status: 200, body: { success: true, data: { defaults: {} } } })
  t.strictSame(answer(await service.inject({ method: 'POST', url: '/v1/resolve', headers, payload: { a: 1 } })),
    { status: 200, body: { success: true, data: { body: { a: 1 }, origin: { a: 'request' } } } })
  for (const method of ['GET', 'POST'] as const) {
    t.equal((await service.inject({ method, url: '/v1/resolve' })).json().error.code, 'UNAUTHORIZED')
  }
})

t.test('POST /v1/resolve answers the merged body and where each field came from', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, held)
  const resolve = (payload: object | undefined, query = '') =>
    service.inject({ method: 'POST', url: `/v1/resolve${query}`, headers: { ...headers, 'x-session-id': sessionId }, ...(payload && { payload }) })
  const merged = (body: object, origin: object) => ({ status: 200, body: { success: true, data: { body, origin } } })

  const response = await resolve({ amount: 5, privacyLevel: null })
  t.strictSame(answer(response), merged({ amount: 5, privacyLevel: null, chain: 'near' }, { amount: 'request', privacyLevel: 'request', chain: 'session' }))
  t.equal(response.headers['x-session-applied'], 'chain')
  t.strictSame(answer(await resolve(undefined)), merged({ chain: 'near', privacyLevel: 'shielded' }, { chain: 'session', privacyLevel: 'session' }), 'no body is an empty one')
  t.strictSame(answer(await resolve({}, '?properties=defaultViewingKey,chain')),
    merged({ chain: 'near', defaultViewingKey: '0xabc' }, { chain: 'session', defaultViewingKey: 'session' }), 'a secret one is given to who takes it')
  t.strictSame(answer(await resolve({}, '?properties=privacyLevel,%20chain,')), merged({ chain: 'near', privacyLevel: 'shielded' }, { chain: 'session', privacyLevel: 'session' }))
  t.strictSame(answer(await resolve({}, '?properties=')), merged({}, {}))
  for (const memo of ['x'.repeat(900_000), '['.repeat(200)]) t.equal((await resolve({ memo })).statusCode, 200, 'as large as what APIs take, and brackets in a text nest nothing')

  const reason = 'names "chian", which sessions do not hold; they hold chain, privacyLevel, rpcProvider, backend, defaultViewingKey'
  t.strictSame(answer(await resolve({}, '?properties=chian')), failure(400, 'VALIDATION_ERROR', `The query string is not valid: properties ${reason}`, [{ field: 'properties', reason }]))
  t.strictSame(answer(await resolve([1])), failure(400, 'VALIDATION_ERROR', 'The body is not valid: (root) must be a JSON object', [{ field: '(root)', reason: 'must be a JSON object' }]))
})

t.test('what goes to two places is told of once', async t => {
  const { service } = await startService(t, { mapping: { chain: ['chain', 'transfers[].chain'] } })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const response = await service.inject({ method: 'POST', url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId }, payload: { transfers: [{}] } })
  t.strictSame(response.json().data.body, { transfers: [{ chain: 'near' }], chain: 'near' })
  t.equal(response.headers['x-session-applied'], 'chain')
})

t.test('a session that is not the caller\'s is refused, as anywhere', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service)
  const free = await createKey(service, 'free')
  for (const method of ['GET', 'POST'] as const) {
    const code = async (headers: Record<string, string>) => (await service.inject({ method, url: '/v1/resolve', headers })).json().error.code
    t.equal(await code({ ...headers, 'x-session-id': 'nope' }), 'VALIDATION_ERROR')
    t.equal(await code({ ...headers, 'x-session-id': unknownSessionId }), 'SESSION_NOT_FOUND')
    t.equal(await code({ ...free.headers, 'x-session-id': unknownSessionId }), 'TIER_ACCESS_DENIED')
  }
})

t.test('headers carry any value of a host\'s schema without breaking out of their line', async t => {
  const { String, Optional } = Type
  const defaults = Type.Object({
    region_name: Optional(String()),
    injected: Optional(String()),
    padded: Optional(String()),
    count: Optional(Type.Integer()),
    token: Optional(secret(String()))
  })
  const { service } = await startService(t, { defaults })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { region_name: 'Zürich', injected: 'a\r\nSet-Cookie: b', padded: ' ', count: 7, token: 'hidden' })
  const response = await service.inject({ url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId } })
  const sent = Object.entries(response.headers).filter(([name]) => name.startsWith('x-session-default'))
  t.strictSame(sent, [
    ['x-session-default-region-name', '"Z\\u00fcrich"'],
    ['x-session-default-injected', '"a\\r\\nSet-Cookie: b"'],
    ['x-session-default-padded', '" "'],
    ['x-session-default-count', '7']
  ])
  t.equal(response.headers['set-cookie'], undefined)
})
