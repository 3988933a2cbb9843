import t from 'tap'
import { adminKey, answer, createKey, createPool, failure, startService } from '../../helpers.js'

const admin = { 'x-api-key': adminKey }
const limits = { requestsPerHour: 10_000, sessions: true, maxSessions: 1_000 }
const keyNotFound = failure(404, 'KEY_NOT_FOUND', 'There is no API key with this id. GET /v1/admin/keys lists them.')
const unknownKeyId = `key_${'0'.repeat(32)}`

const operations = [
  { method: 'POST', url: '/v1/admin/keys', payload: { tier: 'pro', name: 'x' } },
  { method: 'GET', url: '/v1/admin/keys' },
  { method: 'GET', url: `/v1/admin/keys/${unknownKeyId}` },
  { method: 'PATCH', url: `/v1/admin/keys/${unknownKeyId}`, payload: { name: 'x' } },
  { method: 'POST', url: `/v1/admin/keys/${unknownKeyId}/rotate` },
  { method: 'DELETE', url: `/v1/admin/keys/${unknownKeyId}` },
  { method: 'GET', url: '/v1/admin/tiers' }
] as const

t.test('POST /v1/admin/keys creates a key that works, and shows it once', async t => {
  const { service, connectionString } = await startService(t)
  const expiresAt = Date.now() + 3_600_000
  const response = await service.inject({
    method: 'POST', url: '/v1/admin/keys', headers: admin, payload: { tier: 'pro', name: 'agent-7', expiresAt, metadata: { team: 'payments' } }
  })

  const { id, key, createdAt } = response.json().data
  t.strictSame(answer(response), { status: 201, body: { success: true, data: { id, key, tier: 'pro', name: 'agent-7', createdAt, expiresAt, limits } } })
  t.match(id, /^key_[0-9a-f]{32}$/)
  t.match(key, /^sk_pro_[0-9A-Za-z]{49}$/)
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers: { 'x-api-key': key }, payload: { defaults: {} } })).statusCode, 201)

  await service.apiKeyRepository.usesNoted()
  const shown = await service.inject({ url: `/v1/admin/keys/${id}`, headers: admin })
  const { lastUsedAt } = shown.json().data
  t.strictSame(answer(shown), {
    status: 200,
    body: { success: true, data: { id, displayPrefix: key.slice(0, 11), tier: 'pro', name: 'agent-7', metadata: { team: 'payments' }, status: 'active', createdAt, expiresAt, lastUsedAt, limits } }
  })
  t.ok(lastUsedAt >= createdAt)

  const { rows } = await createPool(t, connectionString).query('select row_to_json(k)::text as row from sipher_sessions.api_keys k')
  t.notMatch(rows[0].row, key.slice(11), 'the secret is not stored')
})

t.test('each tier\'s key says its tier', async t => {
  const { service } = await startService(t)
  for (const [tier, prefix] of [['free', 'sk_free_'], ['pro', 'sk_pro_'], ['enterprise', 'sk_ent_']] as const) {
    const { key } = (await service.inject({ method: 'POST', url: '/v1/admin/keys', headers: admin, payload: { tier, name: tier } })).json().data
    t.ok(key.startsWith(prefix), prefix)
  }
})

t.test('a key that is not valid is a 400 that names why, and none is made', async t => {
  const { service } = await startService(t)
  const cases: [payload: object, field: string, reason: string][] = [
    [{ name: 'x' }, 'tier', 'is missing'],
    [{ tier: 'gold', name: 'x' }, 'tier', 'must be one of free, pro, enterprise'],
    [{ tier: 'pro' }, 'name', 'is missing'],
    [{ tier: 'pro', name: '' }, 'name', 'must NOT have fewer than 1 characters'],
    ...['a\u009bb', 'a\u202eb', 'a\ud800', '\udc00\ud800'].map((name): [object, string, string] => [{ tier: 'pro', name }, 'name', 'must have no control characters, line breaks, and characters that turn the direction of text']),
    [{ tier: 'pro', name: 'x', expires: 1 }, 'expires', 'is not a known field; did you mean "expiresAt"?'],
    [{ tier: 'pro', name: 'x', expiresAt: '2030-01-01' }, 'expiresAt', 'must be integer'],
    [{ tier: 'pro', name: 'x', expiresAt: Date.now() - 1000 }, 'expiresAt', 'lies in the past'],
    [{ tier: 'pro', name: 'x', expiresAt: Math.floor(Date.now() / 1000) + 86_400 }, 'expiresAt', 'lies in the past; it is in milliseconds since the epoch, and this looks like seconds'],
    [{ tier: 'pro', name: 'x', expiresAt: 86_400 }, 'expiresAt', 'lies in the past'],
    [{ tier: 'pro', name: 'x', metadata: { note: 'a\u0000b' } }, 'metadata', 'holds a character that cannot be stored (NUL or half a surrogate pair)']
  ]
  for (const [payload, field, reason] of cases) {
    const response = await service.inject({ method: 'POST', url: '/v1/admin/keys', headers: admin, payload })
    t.strictSame(answer(response), failure(400, 'VALIDATION_ERROR', `The body is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
  t.strictSame((await service.inject({ url: '/v1/admin/keys', headers: admin })).json().data, { keys: [] })
})

t.test('GET /v1/admin/keys lists all keys page by page', async t => {
  const { service } = await startService(t)
  for (let i = 0; i < 5; i++) await createKey(service)
  const list = async (query: string) => (await service.inject({ url: `/v1/admin/keys${query}`, headers: admin })).json().data
  const all = await list('')
  t.equal(all.keys.length, 5)
  t.strictSame(Object.keys(all), ['keys'])
  t.strictSame(Object.keys(all.keys[0]), ['id', 'displayPrefix', 'tier', 'name', 'metadata', 'status', 'createdAt', 'limits'])

  const collected = []
  for (let cursor = '', pages = 0; pages < 4; pages++) {
    const page = await list(`?limit=2${cursor}`)
    collected.push(...page.keys)
    if (!page.nextCursor) break
    cursor = `&cursor=${page.nextCursor}`
  }
  t.strictSame(collected, all.keys)
  t.strictSame(collected.map(({ id }) => id), collected.map(({ id }) => id).sort(), 'the oldest first')

  for (const [query, field, reason] of [['?limit=0', 'limit', 'must be >= 1'], ['?limit=x', 'limit', 'must be integer'], ['?limit=1e999', 'limit', 'must be a finite number'], ['?page=2', 'page', 'is not a known field; known are limit, cursor']] as const) {
    t.strictSame(answer(await service.inject({ url: `/v1/admin/keys${query}`, headers: admin })),
      failure(400, 'VALIDATION_ERROR', `The query string is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
})

t.test('DELETE /v1/admin/keys/{id} revokes a key for good', async t => {
  const { service } = await startService(t)
  const { id, headers } = await createKey(service)
  const revoked = { status: 200, body: { success: true, data: { revoked: true } } }
  t.strictSame(answer(await service.inject({ method: 'DELETE', url: `/v1/admin/keys/${id}`, headers: admin })), revoked)
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 401)

  const { revokedAt } = (await service.inject({ url: `/v1/admin/keys/${id}`, headers: admin })).json().data
  t.type(revokedAt, 'number')
  t.strictSame(answer(await service.inject({ method: 'DELETE', url: `/v1/admin/keys/${id}`, headers: admin })), revoked, 'again')
  t.equal((await service.inject({ url: `/v1/admin/keys/${id}`, headers: admin })).json().data.revokedAt, revokedAt, 'the first time stands')
})

t.test('an unknown key is a 404, a bad id a 400', async t => {
  const { service } = await startService(t)
  for (const [method, path, payload] of [['GET', ''], ['DELETE', ''], ['PATCH', '', { name: 'x' }], ['POST', '/rotate']] as const) {
    t.strictSame(answer(await service.inject({ method, url: `/v1/admin/keys/${unknownKeyId}${path}`, headers: admin, payload })), keyNotFound, method)
    const reason = 'must match pattern "^key_[0-9a-f]{32}$"'
    t.strictSame(answer(await service.inject({ method, url: `/v1/admin/keys/7${path}`, headers: admin, payload })),
      failure(400, 'VALIDATION_ERROR', `The path is not valid: id ${reason}`, [{ field: 'id', reason }]), method)
  }
})

t.test('GET /v1/admin/tiers answers what each tier includes', async t => {
  const { service } = await startService(t)
  t.strictSame(answer(await service.inject({ url: '/v1/admin/tiers', headers: { authorization: `Bearer ${adminKey}` } })), {
    status: 200,
    body: {
      success: true,
      data: {
        tiers: [
          { tier: 'free', limits: { requestsPerHour: 100, sessions: false, maxSessions: 0 } },
          { tier: 'pro', limits },
          { tier: 'enterprise', limits: { requestsPerHour: 100_000, sessions: true, maxSessions: 100_000 } }
        ]
      }
    }
  })
})

t.test('the admin operations take the admin key alone', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service, 'enterprise')
  for (const operation of operations) {
    t.strictSame(answer(await service.inject(operation)),
      failure(401, 'UNAUTHORIZED', 'This operation needs the admin key. Send it as X-API-Key: <key> or Authorization: Bearer <key>.'))
    for (const wrong of [headers, { 'x-api-key': `${adminKey}x` }, { 'x-api-key': adminKey.slice(0, -1) }, { 'x-api-key': adminKey.toUpperCase() }]) {
      const refused = await service.inject({ ...operation, headers: wrong })
      t.strictSame(answer(refused), failure(401, 'INVALID_API_KEY', 'This operation takes the admin key alone, and this is not it.'))
      t.equal(refused.headers['www-authenticate'], 'Bearer realm="sipher-sessions"')
    }
  }
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers: admin, payload: { defaults: {} } })).statusCode, 401, 'and it is no API key')
  const reason = 'is not for admin operations, which take no session; leave it out'
  for (const operation of operations) {
    t.strictSame(answer(await service.inject({ ...operation, headers: { ...admin, 'x-session-id': 'any' } })),
      failure(400, 'VALIDATION_ERROR', `The request is not valid: X-Session-Id ${reason}`, [{ field: 'X-Session-Id', reason }]))
  }
})

t.test('without an admin key the admin operations are off, whatever is sent', async t => {
  for (const adminKey of [undefined, '', ' ']) {
    const { service } = await startService(t, { adminKey })
    for (const operation of operations) {
      for (const headers of [{}, { 'x-api-key': '' }, { 'x-api-key': ' ' }, { authorization: 'Bearer ' }, { 'x-api-key': 'undefined' }]) {
        const response = await service.inject({ ...operation, headers })
        t.strictSame(answer(response), failure(503, 'ADMIN_DISABLED', 'The admin operations are off: the service was started without ADMIN_API_KEY.'))
        t.equal(response.headers['retry-after'], '3600')
      }
    }
  }
})
