import t from 'tap'
import { adminKey, answer, createKey, createPool, createSession, failure, startService, unknownSessionId } from '../../helpers.js'

const admin = { 'x-api-key': adminKey }

interface Entry { id: string, keyId: string, actor: string, action: string, subject: string, properties: string[] }

async function readAll (service: Awaited<ReturnType<typeof startService>>['service'], query: string): Promise<Entry[]> {
  const entries: Entry[] = []
  for (let cursor = ''; ;) {
    const page = (await service.inject({ url: `/v1/admin/audit?${query}${cursor}`, headers: admin })).json().data
    entries.push(...page.entries)
    if (!page.nextCursor) return entries
    cursor = `&cursor=${page.nextCursor}`
  }
}

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
  const { rows } = await createPool(t, connectionString).query<{ text: string }>('select row_to_json(changes)::text as text from sipher_sessions.changes')
  t.equal(rows.length, expected.length)
  for (const value of ['seeded', '5eed', 'near', sessionId.slice(29)]) t.notOk(rows.some(({ text }) => text.includes(value)), value)
})

t.test('the log is read page by page, by key and by action', async t => {
  const { service } = await startService(t)
  const list = async (query: string) => (await service.inject({ url: `/v1/admin/audit${query}`, headers: admin })).json().data
  t.strictSame(await list(''), { entries: [] })
  const one = await createKey(service)
  const two = await createKey(service)
  for (const { key } of [one, two, one, one]) await createSession(service, key)
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
    ['?page=2', 'page', 'is not a known field; known are limit, cursor, key, action']
  ]
  for (const [query, field, reason] of cases) {
    t.strictSame(answer(await service.inject({ url: `/v1/admin/audit${query}`, headers: admin })),
      failure(400, 'VALIDATION_ERROR', `The query string is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
  t.equal((await service.inject({ url: '/v1/admin/audit', headers: one.headers })).json().error.code, 'INVALID_API_KEY')
  t.equal((await service.inject('/v1/admin/audit')).json().error.code, 'UNAUTHORIZED')
})

t.test('sessions that are changed at the same time have an entry each, on one page or several', async t => {
  const { service, connectionString } = await startService(t)
  const keys = [await createKey(service), await createKey(service)]
  // Each with a row of its own: a page that begins within a row ends with those.
  for (const { key } of [...keys, ...keys, ...keys]) await createSession(service, key, { chain: 'dydx' })
  const chains = ['near', 'sui', 'base', 'sei', 'zcash']
  const created = await Promise.all(chains.flatMap(chain => keys.map(async ({ key }) => createSession(service, key, { chain }))))
  await Promise.all(created.map((sessionId, i) => service.inject({
    method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers: keys[i % 2]!.headers, payload: { defaults: i < 5 ? { chain: 'aptos' } : { privacyLevel: 'shielded', backend: 'sip-native' } }
  })))
  await Promise.all(created.map((sessionId, i) => service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers: keys[i % 2]!.headers })))
  const { rows: [{ statements }] } = await createPool(t, connectionString).query('select count(*)::int as statements from sipher_sessions.changes where subjects is not null')
  t.ok(statements < 30, `${statements} statements made 36 changes`)

  const all = await readAll(service, 'limit=1000')
  t.equal(all.length, 38)
  t.strictSame(all.map(({ id }) => Number(id)), all.map(({ id }) => Number(id)).sort((a, b) => b - a), 'the newest first')
  const expected = created.flatMap((sessionId, i) => [
    ['session.create', ['chain']], ['session.update', i < 5 ? ['chain'] : ['backend', 'privacyLevel']], ['session.delete', []]
  ].map(([action, properties]) => [keys[i % 2]!.id, keys[i % 2]!.id, action, sessionId.slice(0, 29), properties]))
  t.strictSame(new Set(all.slice(0, 30).map(({ keyId, actor, action, subject, properties }) => JSON.stringify([keyId, actor, action, subject, properties.sort()]))),
    new Set(expected.map(entry => JSON.stringify(entry))))

  const ids = (entries: Entry[]) => entries.map(({ id }) => id)
  for (const limit of [1, 3, 7, 38]) {
    t.strictSame(ids(await readAll(service, `limit=${limit}`)), ids(all))
    for (const key of keys) {
      t.strictSame(ids(await readAll(service, `limit=${limit}&key=${key.id}`)), ids(all.filter(({ keyId }) => keyId === key.id)))
      for (const wanted of ['session.create', 'session.update']) {
        t.strictSame(ids(await readAll(service, `limit=${limit}&key=${key.id}&action=${wanted}`)), ids(all.filter(({ keyId, action }) => keyId === key.id && action === wanted)))
      }
    }
  }
})

t.test('entries from before rows were shared are read after the others', async t => {
  const { service, connectionString } = await startService(t)
  const { key, id } = await createKey(service)
  await createPool(t, connectionString).query(`
    insert into sipher_sessions.audit (actor, action, key_id, subject, properties) values
      ('admin', 'key.create', $1, $1, '{name,tier}'),
      ($1, 'session.create', $1, 'sess_000000000000000000000001', '{chain}'),
      ('admin', 'key.update', 'key_2', 'key_2', '{name}')`, [id])
  const subject = (await createSession(service, key, { chain: 'sui' })).slice(0, 29)
  const cases: [query: string, expected: [action: string, subject: string, properties: string[]][]][] = [
    ['', [['session.create', subject, ['chain']], ['key.create', id, ['name', 'tier']], ['key.update', 'key_2', ['name']], ['session.create', 'sess_000000000000000000000001', ['chain']], ['key.create', id, ['name', 'tier']]]],
    [`&key=${id}`, [['session.create', subject, ['chain']], ['key.create', id, ['name', 'tier']], ['session.create', 'sess_000000000000000000000001', ['chain']], ['key.create', id, ['name', 'tier']]]],
    ['&action=session.create', [['session.create', subject, ['chain']], ['session.create', 'sess_000000000000000000000001', ['chain']]]],
    ['&action=key.create', [['key.create', id, ['name', 'tier']], ['key.create', id, ['name', 'tier']]]],
    ['&key=key_2&action=key.update', [['key.update', 'key_2', ['name']]]]
  ]
  for (const [query, expected] of cases) {
    for (const limit of [1, 2, 5]) {
      t.strictSame((await readAll(service, `limit=${limit}${query}`)).map(({ action, subject, properties }) => [action, subject, properties.sort()]), expected, `${limit} ${query}`)
    }
  }
})

t.test('what a key did long ago is found in a long log, on a later page if that takes a while', async t => {
  const { service, connectionString } = await startService(t)
  const one = await createKey(service)
  const other = await createKey(service)
  const sessionId = await createSession(service, one.key)
  const pool = createPool(t, connectionString)
  await pool.query(`
    insert into sipher_sessions.changes (action, key_ids, subjects, properties)
    select 'session.update', array[$1], array['\\x000000000000000000000001'::bytea], '[["chain"]]' from generate_series(1, 50000)`, [other.id])
  await createSession(service, one.key)
  const entries = await readAll(service, `key=${one.id}`)
  t.strictSame(entries.map(({ action }) => action), ['session.create', 'session.create', 'key.create'])
  t.strictSame(await readAll(service, 'action=session.delete'), [])

  // The same where each statement takes its time.
  await pool.query(`
    alter table sipher_sessions.changes rename to hidden;
    create view sipher_sessions.changes as select * from sipher_sessions.hidden where (select pg_sleep(0.08)) is not null`)
  const first = (await service.inject({ url: `/v1/admin/audit?key=${one.id}`, headers: admin })).json().data
  t.equal(first.entries.length, 1)
  t.ok(first.nextCursor)
  const all = await readAll(service, `key=${one.id}`)
  t.strictSame(all, entries)
  t.equal(all[1]!.subject, sessionId.slice(0, 29))
})

t.test('a change whose entry cannot be written is not made', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  const { key, id, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { chain: 'near' })
  await pool.query('alter table sipher_sessions.changes add check (false) not valid')
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
  const pool = createPool(t, connectionString)
  for (const table of ['changes', 'audit']) {
    if (table === 'changes') for (let i = 0; i < 5; i++) await createKey(service)
    else await pool.query('insert into sipher_sessions.audit (actor, action, key_id, subject, properties) select \'admin\', \'key.create\', \'key_1\', \'key_1\', \'{}\' from generate_series(1, 5)')
    await pool.query(`update sipher_sessions.${table} set at = now() - interval '8 days' where id in (select id from sipher_sessions.${table} order by id limit 3)`)
    const { deleteExpired, deleteExpiredOlder } = service.auditRepository
    const remove = table === 'changes' ? deleteExpired : deleteExpiredOlder
    t.match(await remove(2), { count: 2 }, 'so many at a time')
    t.match(await remove(500), { count: 1 })
    t.match(await remove(500), { count: 0 })
  }
  t.equal((await readAll(service, '')).length, 4)
})
