import t from 'tap'
import { adminKey, answer, createKey, createPool, createSession, failure, startService, unknownSessionId } from '../../helpers.js'

const admin = { 'x-api-key': adminKey }

t.test('every change to a key and to a session leaves an entry: who, what, when, and names, never values', async t => {
  const { service, connectionString } = await startService(t)
  const send = (method: 'POST' | 'PATCH' | 'DELETE', url: string, headers: object, payload?: object) => service.inject({ method, url, headers: { ...headers }, ...(payload && { payload }) })
  const created = (await send('POST', '/v1/admin/keys', admin, { tier: 'pro', name: 'agent-7', metadata: { note: 'seeded-note' } })).json().data
  const key = `/v1/admin/keys/${created.id}`
  await send('PATCH', key, admin, { name: 'seeded-name' })
  const headers = { 'x-api-key': (await send('POST', `${key}/rotate`, admin, {})).json().data.key }
  const sessionId = (await send('POST', '/v1/sessions', headers, { defaults: { chain: 'near', defaultViewingKey: '0x5eededda7a' } })).json().data.sessionId
  await send('PATCH', `/v1/sessions/${sessionId}`, headers, { defaults: { defaultViewingKey: '0x5eededda7b' } })
  await send('DELETE', `/v1/sessions/${sessionId}`, headers)
  // What changes nothing leaves nothing.
  await send('DELETE', `/v1/sessions/${sessionId}`, headers)
  await send('PATCH', `/v1/sessions/${unknownSessionId}`, headers, { defaults: { chain: 'sui' } })
  await send('PATCH', key, admin, { tier: 'gold' })
  await send('DELETE', key, admin)
  await send('DELETE', key, admin)

  const response = await service.inject({ url: '/v1/admin/audit', headers: admin })
  const { entries } = response.json().data
  const session = sessionId.slice(0, 29)
  const expected = [
    ['admin', 'key.create', created.id, ['metadata', 'name', 'tier']],
    ['admin', 'key.update', created.id, ['name']],
    ['admin', 'key.rotate', created.id, ['secret']],
    [created.id, 'session.create', session, ['chain', 'defaultViewingKey']],
    [created.id, 'session.update', session, ['defaultViewingKey']],
    [created.id, 'session.delete', session, []],
    ['admin', 'key.revoke', created.id, []]
  ]
  t.strictSame(entries.map(({ actor, action, subject, properties }: Record<string, string[]>) => [actor, action, subject, [...properties!].sort()]).reverse(), expected)
  for (const { at, keyId } of entries) {
    t.ok(Math.abs(at - Date.now()) < 60_000)
    t.equal(keyId, created.id)
  }
  const { rows } = await createPool(t, connectionString).query<{ text: string }>('select row_to_json(audit)::text as text from sipher_sessions.audit')
  for (const value of ['seeded', '5eed', 'near', sessionId.slice(29)]) t.notOk(rows.some(({ text }) => text.includes(value)), value)
})

t.test('the log is read page by page, by key and by action', async t => {
  const { service } = await startService(t)
  const one = await createKey(service)
  const two = await createKey(service)
  for (const { key } of [one, two, one, one]) await createSession(service, key)
  const list = async (query: string) => (await service.inject({ url: `/v1/admin/audit${query}`, headers: admin })).json().data
  const all = await list('')
  t.equal(all.entries.length, 6)
  t.strictSame(Object.keys(all), ['entries'])

  const collected = []
  for (let cursor = '', pages = 0; pages < 4; pages++) {
    const page = await list(`?limit=2${cursor}`)
    collected.push(...page.entries)
    if (!page.nextCursor) break
    cursor = `&cursor=${page.nextCursor}`
  }
  t.strictSame(collected, all.entries)
  t.strictSame((await list(`?key=${one.id}`)).entries.map(({ action }: { action: string }) => action), ['session.create', 'session.create', 'session.create', 'key.create'])
  t.strictSame((await list(`?key=${one.id}&action=session.create&limit=1`)).entries.length, 1)
  t.strictSame((await list('?action=key.create')).entries.map(({ keyId }: { keyId: string }) => keyId), [two.id, one.id])
  t.strictSame(await list('?key=nobody'), { entries: [] })

  const cases: [query: string, field: string, reason: string][] = [
    ['?limit=0', 'limit', 'must be >= 1'],
    ['?cursor=x', 'cursor', 'must match pattern "^[1-9][0-9]{0,17}$"'],
    ['?action=key.creat', 'action', 'must be one of key.create, key.update, key.rotate, key.revoke, session.create, session.update, session.delete; did you mean "key.create"?'],
    ['?key=%00', 'key', 'must match pattern "^[^\\u0000]+$"'],
    ['?page=2', 'page', 'is not a known field']
  ]
  for (const [query, field, reason] of cases) {
    t.strictSame(answer(await service.inject({ url: `/v1/admin/audit${query}`, headers: admin })),
      failure(400, 'VALIDATION_ERROR', `The query string is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
  t.equal((await service.inject({ url: '/v1/admin/audit', headers: one.headers })).json().error.code, 'INVALID_API_KEY')
  t.equal((await service.inject('/v1/admin/audit')).json().error.code, 'UNAUTHORIZED')
})

t.test('a change whose entry cannot be written is not made', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  const { key, id, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { chain: 'near' })
  await pool.query('alter table sipher_sessions.audit add check (false) not valid')
  const requests = [
    { method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } },
    { method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chain: 'sui' } } },
    { method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers },
    { method: 'POST', url: '/v1/admin/keys', headers: admin, payload: { tier: 'pro', name: 'x' } },
    { method: 'DELETE', url: `/v1/admin/keys/${id}`, headers: admin }
  ] as const
  for (const request of requests) t.equal((await service.inject(request)).statusCode, 500, `${request.method} ${request.url}`)
  t.strictSame((await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).json().data.defaults, { chain: 'near' })
  t.strictSame((await pool.query('select (select count(*)::int from sipher_sessions.sessions) as sessions, (select count(*)::int from sipher_sessions.api_keys) as keys')).rows, [{ sessions: 1, keys: 1 }])
})

t.test('entries are removed when they are older than they are kept', async t => {
  const { service, connectionString } = await startService(t, { auditRetentionDays: 7 })
  for (let i = 0; i < 5; i++) await createKey(service)
  const pool = createPool(t, connectionString)
  await pool.query('update sipher_sessions.audit set at = now() - interval \'8 days\' where id <= (select min(id) + 2 from sipher_sessions.audit)')
  t.equal(await service.auditRepository.deleteExpired(2), 2, 'so many at a time')
  t.equal(await service.auditRepository.deleteExpired(500), 1)
  t.equal(await service.auditRepository.deleteExpired(500), 0)
})
