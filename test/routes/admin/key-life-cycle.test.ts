import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { hashApiKey } from '../../../src/api-key.js'
import { createApiKeyRepository } from '../../../src/plugins/api-key-repository.js'
import { byteaArray } from '../../../src/repositories/sql.js'
import { adminKey, answer, createDatabase, createKey, createPool, createSession, failure, startService, unknownSessionId } from '../../helpers.js'

const admin = { 'x-api-key': adminKey }
const limits = { requestsPerHour: 10_000, sessions: true, maxSessions: 1_000 }
const revokedKey = failure(409, 'KEY_NOT_ACTIVE', 'This API key is revoked, which is for good. Create a new one with POST /v1/admin/keys.')
const day = 86_400

async function startTwo (t: Test) {
  const one = await startService(t, { rateLimit: false })
  const two = await startService(t, { rateLimit: false, connectionString: one.connectionString })
  return { one: one.service, two: two.service, connectionString: one.connectionString, pool: createPool(t, one.connectionString) }
}

const change = (service: FastifyInstance, method: 'POST' | 'PATCH' | 'DELETE', path: string, payload?: object) =>
  service.inject({ method, url: `/v1/admin/keys/${path}`, headers: admin, ...(payload && { payload }) })

const rotate = (service: FastifyInstance, id: string, payload?: object) => change(service, 'POST', `${id}/rotate`, payload)

const show = async (service: FastifyInstance, id: string) => (await service.inject({ url: `/v1/admin/keys/${id}`, headers: admin })).json().data

/** Whether an instance accepts a key: 404 for a session that does not exist, or 401. */
async function accepts (service: FastifyInstance, key: string): Promise<boolean> {
  const { statusCode } = await service.inject({ url: `/v1/sessions/${unknownSessionId}`, headers: { 'x-api-key': key } })
  if (statusCode !== 404 && statusCode !== 401) throw new Error(`answered ${statusCode}`)
  return statusCode === 404
}

t.test('a rotated key has a new secret, shown once, and the old one ends on every instance at once', async t => {
  const { one, two, pool } = await startTwo(t)
  const old = await createKey(one)
  const sessionId = await createSession(two, old.key)

  const response = await rotate(one, old.id)
  t.strictSame([await accepts(one, old.key), await accepts(two, old.key)], [false, false])
  const { key, createdAt, graceEndsAt } = response.json().data
  t.strictSame(answer(response), { status: 200, body: { success: true, data: { id: old.id, key, tier: 'pro', name: 'test pro', createdAt, graceEndsAt, limits } } })
  t.match(key, /^sk_pro_[0-9A-Za-z]{49}$/)
  t.not(key, old.key)
  t.ok(graceEndsAt >= createdAt && graceEndsAt <= Date.now() + 1000)

  for (const service of [one, two]) {
    const session = await service.inject({ url: `/v1/sessions/${sessionId}`, headers: { 'x-api-key': key } })
    t.strictSame(session.json().data.defaults, { chain: 'near' }, 'the sessions stay with the key')
  }
  const shown = await show(one, old.id)
  t.equal(shown.displayPrefix, key.slice(0, 11))
  t.notOk('graceEndsAt' in shown)
  const { rows } = await pool.query('select row_to_json(k)::text as row from sipher_sessions.api_keys k')
  t.notMatch(rows[0].row, key.slice(11), 'the new secret is not stored either')
})

t.test('within the grace period both secrets work, to the moment it ends by the database\'s clock', async t => {
  const { one, two, pool } = await startTwo(t)
  const old = await createKey(one)
  const { key, graceEndsAt } = (await rotate(one, old.id, { graceSeconds: 7 * day })).json().data
  const { rows: [row] } = await pool.query(`
    select floor(extract(epoch from previous_ends_at) * 1000)::float8 as ends, previous_ends_at - interval '7 days' <= now() as begun
    from sipher_sessions.api_keys`)
  t.strictSame(row, { ends: graceEndsAt, begun: true })
  t.equal((await show(two, old.id)).graceEndsAt, graceEndsAt)
  for (const service of [one, two]) t.strictSame([await accepts(service, old.key), await accepts(service, key)], [true, true])

  await pool.query('update sipher_sessions.api_keys set previous_ends_at = now() + interval \'30 seconds\'')
  t.ok(await accepts(two, old.key), 'before its end')
  await pool.query('update sipher_sessions.api_keys set previous_ends_at = now()')
  for (const service of [one, two]) t.strictSame([await accepts(service, old.key), await accepts(service, key)], [false, true], 'and not after')
  t.notOk('graceEndsAt' in await show(one, old.id))
})

t.test('a second rotation ends the oldest secret at once, and never extends one', async t => {
  const { one, two } = await startTwo(t)
  const { key: first, id } = await createKey(one)
  const { key: second } = (await rotate(one, id, { graceSeconds: day })).json().data
  const { key: third, graceEndsAt } = (await rotate(two, id, { graceSeconds: 60 })).json().data
  for (const service of [one, two]) t.strictSame(await Promise.all([first, second, third].map(key => accepts(service, key))), [false, true, true])
  t.equal((await show(one, id)).graceEndsAt, graceEndsAt)

  const { key: fourth } = (await rotate(one, id, { graceSeconds: 0 })).json().data
  for (const service of [one, two]) t.strictSame(await Promise.all([first, second, third, fourth].map(key => accepts(service, key))), [false, false, false, true])
})

t.test('of rotations at the same time one wins, and no more than two secrets work', async t => {
  const { one, two } = await startTwo(t)
  const { key: first, id } = await createKey(one)
  const keys = (await Promise.all(Array.from({ length: 8 }, (_, i) => rotate(i % 2 ? one : two, id, { graceSeconds: 60 })))).map(response => response.json().data.key)
  t.equal(new Set(keys).size, 8)
  const accepted = await Promise.all([first, ...keys].map(key => accepts(one, key)))
  t.equal(accepted.filter(Boolean).length, 2)
})

t.test('a grace period that is not valid is a 400, and the secret stays', async t => {
  const { service } = await startService(t)
  const { key, id } = await createKey(service)
  const cases: [payload: object, field: string, reason: string][] = [
    [{ graceSeconds: -1 }, 'graceSeconds', 'must be >= 0'],
    [{ graceSeconds: 7 * day + 1 }, 'graceSeconds', 'must be <= 604800'],
    [{ graceSeconds: 1.5 }, 'graceSeconds', 'must be integer'],
    [{ graceSeconds: '60' }, 'graceSeconds', 'must be integer'],
    [{ grace: 60 }, 'grace', 'is not a known field; did you mean "graceSeconds"?']
  ]
  for (const [payload, field, reason] of cases) {
    t.strictSame(answer(await rotate(service, id, payload)), failure(400, 'VALIDATION_ERROR', `The body is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
  const empty = await service.inject({ method: 'POST', url: `/v1/admin/keys/${id}/rotate`, headers: { ...admin, 'content-type': 'application/json' }, payload: 'null' })
  t.equal(empty.statusCode, 400)
  t.ok(await accepts(service, key))
})

t.test('PATCH /v1/admin/keys/{id} changes what is given, and nothing else', async t => {
  const { service } = await startService(t)
  const { key, id } = await createKey(service)
  const before = await show(service, id)
  const expiresAt = Date.now() + day * 1000
  const steps: [payload: object, changed: object][] = [
    [{ name: 'agent-8' }, { name: 'agent-8' }],
    [{ tier: 'enterprise' }, { tier: 'enterprise', limits: { requestsPerHour: 100_000, sessions: true, maxSessions: 100_000 } }],
    [{ metadata: { team: 'payments' } }, { metadata: { team: 'payments' } }],
    [{ metadata: { note: 'x' }, expiresAt }, { metadata: { note: 'x' }, expiresAt }],
    [{ expiresAt: null }, { expiresAt: undefined }]
  ]
  let expected = before
  for (const [payload, changed] of steps) {
    expected = JSON.parse(JSON.stringify({ ...expected, ...changed }))
    const response = await change(service, 'PATCH', id, payload)
    t.strictSame(answer(response), { status: 200, body: { success: true, data: expected } }, JSON.stringify(payload))
    t.strictSame(await show(service, id), expected)
  }
  t.ok(await accepts(service, key), 'the secret stays')
  const { key: rotated } = (await rotate(service, id)).json().data
  t.match(rotated, /^sk_ent_/, 'and says the tier from the next rotation on')
})

t.test('a key that falls to free can no longer use its sessions, on every instance at once', async t => {
  const { one, two } = await startTwo(t)
  const { key, id, headers } = await createKey(one)
  const sessionId = await createSession(two, key)
  t.equal((await change(one, 'PATCH', id, { tier: 'free' })).statusCode, 200)
  const denied = failure(403, 'TIER_ACCESS_DENIED', 'This operation needs a key of tier pro or enterprise; this key is of tier free.')
  for (const service of [one, two]) {
    t.strictSame(answer(await service.inject({ url: `/v1/sessions/${sessionId}`, headers })), denied)
    t.strictSame(answer(await service.inject({ method: 'POST', url: '/v1/resolve', payload: {}, headers: { ...headers, 'x-session-id': sessionId } })), denied)
  }
  await change(two, 'PATCH', id, { tier: 'pro' })
  t.equal((await one.inject({ url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200, 'and gets them back')
})

t.test('a change that is not valid is a 400 that names why, and nothing is changed', async t => {
  const { service } = await startService(t)
  const { id } = await createKey(service)
  const before = await show(service, id)
  const cases: [payload: object, field: string, reason: string][] = [
    [{}, '(root)', 'must have at least one of tier, name, expiresAt, metadata'],
    [{ tier: 'gold' }, 'tier', 'must be one of free, pro, enterprise'],
    [{ name: '' }, 'name', 'must NOT have fewer than 1 characters'],
    [{ nmae: 'x' }, 'nmae', 'is not a known field; did you mean "name"?'],
    [{ name: 'x', expiresAt: Date.now() - 1000 }, 'expiresAt', 'lies in the past'],
    [{ expiresAt: '2030-01-01' }, 'expiresAt', 'must be integer,null'],
    [{ name: 'x', metadata: { note: 'a\u0000b' } }, 'metadata', 'holds a character that cannot be stored (NUL or half a surrogate pair)']
  ]
  for (const [payload, field, reason] of cases) {
    t.strictSame(answer(await change(service, 'PATCH', id, payload)), failure(400, 'VALIDATION_ERROR', `The body is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
  t.strictSame(await show(service, id), before)
})

t.test('a key is rotated by clients that name a type for no body', async t => {
  const { service } = await startService(t)
  const { id } = await createKey(service)
  const headers = { 'x-api-key': adminKey, 'content-type': 'application/x-www-form-urlencoded', 'content-length': '0' }
  t.equal((await service.inject({ method: 'POST', url: `/v1/admin/keys/${id}/rotate`, headers })).statusCode, 200)
})

t.test('what is not JSON or too large is refused by both', async t => {
  const { service } = await startService(t)
  const { id, key } = await createKey(service)
  for (const [method, path] of [['PATCH', id], ['POST', `${id}/rotate`]] as const) {
    const send = (payload: string, type = 'application/json') => service.inject({ method, url: `/v1/admin/keys/${path}`, headers: { ...admin, 'content-type': type }, payload })
    const unreadable = '{"__proto__": 1}'
    t.strictSame(answer(await send(unreadable)), failure(400, 'INVALID_JSON', 'The body is not valid JSON: it sets __proto__ or constructor.prototype. Send one JSON object.'))
    t.strictSame(answer(await send(JSON.stringify({ name: 'x'.repeat(65 * 1024) }))), failure(413, 'PAYLOAD_TOO_LARGE', 'The body is larger than the 65536 bytes that this operation takes. Send a smaller one.'))
    t.strictSame(answer(await send('name=x', 'application/x-www-form-urlencoded')), failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'This operation takes JSON. Send it with Content-Type: application/json.'))
  }
  t.ok(await accepts(service, key))
})

t.test('a revoked key is revoked for good: with its grace period, and against every change', async t => {
  const { one, two } = await startTwo(t)
  const { key: old, id } = await createKey(one)
  const { key } = (await rotate(one, id, { graceSeconds: day })).json().data
  t.equal((await change(one, 'DELETE', id)).statusCode, 200)
  for (const service of [one, two]) t.strictSame([await accepts(service, old), await accepts(service, key)], [false, false])

  const shown = await show(one, id)
  t.strictSame([shown.status, 'graceEndsAt' in shown], ['revoked', false])
  t.strictSame(answer(await rotate(two, id)), revokedKey)
  t.strictSame(answer(await change(two, 'PATCH', id, { expiresAt: null })), revokedKey)
  t.strictSame(await show(one, id), shown)
})

t.test('an expired key has no new secret until it gets a later expiry', async t => {
  const { one, two, pool } = await startTwo(t)
  const { key, id } = await createKey(one)
  await pool.query('update sipher_sessions.api_keys set expires_at = now()')
  t.notOk(await accepts(two, key))
  t.equal((await show(one, id)).status, 'expired')
  t.strictSame(answer(await rotate(one, id)), failure(409, 'KEY_NOT_ACTIVE', 'This API key has expired. Give it a later expiresAt, then rotate it.'))
  t.equal((await change(one, 'PATCH', id, { expiresAt: null })).json().data.status, 'active')
  t.ok(await accepts(two, key))
})

t.test('a use is noted at most once a minute for each key, in one statement for all', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  const keys = await Promise.all(Array.from({ length: 20 }, () => createKey(service)))
  t.notOk('lastUsedAt' in await show(service, keys[0]!.id))
  const useAll = async () => {
    await Promise.all([...keys, ...keys].map(({ key }) => accepts(service, key)))
    await service.apiKeyRepository.usesNoted()
    const { rows } = await pool.query('select distinct last_used_at::text as at, xmin::text as transaction from sipher_sessions.api_keys')
    return rows
  }
  const noted = await useAll()
  t.equal(noted.length, 1, 'one transaction wrote them all')
  const { lastUsedAt } = await show(service, keys[0]!.id)
  t.equal(lastUsedAt, Math.floor(new Date(`${noted[0].at.replace(' ', 'T')}:00`).getTime()))
  t.strictSame(await useAll(), noted, 'within the minute nothing is written')

  await pool.query('update sipher_sessions.api_keys set last_used_at = now() - interval \'61 seconds\'')
  await useAll()
  t.ok((await show(service, keys[0]!.id)).lastUsedAt > lastUsedAt)
})

t.test('more keys than fit into one statement are noted all the same', async t => {
  const { service, connectionString } = await startService(t, { rateLimit: false })
  const keys: { key: string }[] = []
  while (keys.length < 600) keys.push(...await Promise.all(Array.from({ length: 50 }, () => createKey(service))))
  await Promise.all(keys.map(({ key }) => service.apiKeyRepository.authenticate(hashApiKey(key))))
  await service.apiKeyRepository.usesNoted()
  t.strictSame((await createPool(t, connectionString).query('select count(*)::int as unused from sipher_sessions.api_keys where last_used_at is null')).rows, [{ unused: 0 }])
})

t.test('a use that cannot be noted fails no request, waits for nobody, and is logged', async t => {
  const lines: string[] = []
  const { service, connectionString } = await startService(t, { logLevel: 'warn', logStream: { write: line => { lines.push(line) } } })
  const { key, id } = await createKey(service)
  const pool = createPool(t, connectionString)
  const locker = await pool.connect()
  await locker.query('begin')
  await locker.query('select from sipher_sessions.api_keys for update')
  t.ok(await accepts(service, key))
  await service.apiKeyRepository.usesNoted()
  t.notOk('lastUsedAt' in await show(service, id), 'a row that is held is left alone')
  await locker.query('rollback')
  locker.release()
  t.strictSame(lines, [])

  await pool.query('create function refuse() returns trigger language plpgsql as $$ begin raise \'no\'; end $$; create trigger refuse before update on sipher_sessions.api_keys execute function refuse()')
  t.ok(await accepts(service, key))
  await service.apiKeyRepository.usesNoted()
  t.match(lines.map(line => JSON.parse(line)), [{ msg: 'noting when keys were last used failed; their next use tries again', err: { message: 'no' } }])
  await pool.query('drop trigger refuse on sipher_sessions.api_keys')
  t.ok(await accepts(service, key))
  await service.close()
  t.ok((await pool.query('select last_used_at from sipher_sessions.api_keys')).rows[0].last_used_at, 'what is under way when the service ends is still noted')
})

t.test('in 200 rounds of revoking or rotating a key while it is used, it is never accepted after the 2xx', async t => {
  const { one, two } = await startTwo(t)
  let acceptedBefore = 0
  for (let round = 0; round < 200; round++) {
    const { key, id } = await createKey(one)
    let ended = false
    // Those that are sent after the 2xx is out count; those before may go either way.
    const use = async (service: FastifyInstance) => {
      for (let late = false; !late;) {
        late = ended
        if (!await accepts(service, key)) return
        if (late) t.fail(`round ${round}: accepted after the 2xx`)
        acceptedBefore++
      }
    }
    const uses = [use(one), use(two), use(two)]
    // Not always at once: on a busy machine the change could then be the first in every round.
    await sleep(round % 8)
    const { statusCode } = await (round % 2 ? change(one, 'DELETE', id) : rotate(one, id))
    ended = true
    if (statusCode !== 200) t.fail(`round ${round}: answered ${statusCode}`)
    uses.push(use(one), use(two))
    await Promise.all(uses)
  }
  t.ok(acceptedBefore > 0, 'some were accepted before')
})

t.test('the batch of an authentication is found through indexes, whatever the number of keys', async t => {
  const pool = createPool(t, await createDatabase(t))
  await pool.query(`
    insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name, previous_secret_hash, previous_ends_at)
    select 'key_' || md5(n::text), sha256(n::text::bytea), 'sk_pro_x', 'pro', 'x',
      case when n % 100 = 0 then sha256(('p' || n)::bytea) end, case when n % 100 = 0 then now() + interval '1 day' end
    from generate_series(1, 20000) n`)
  await pool.query('analyze sipher_sessions.api_keys')
  const statements: { text: string, values: unknown[] }[] = []
  const recorder = { query: async (text: string, values: unknown[] = []) => { statements.push({ text, values }); return pool.query(text, values) } }
  const repository = createApiKeyRepository(recorder as never, 'test', error => { throw error })
  await repository.authenticate(hashApiKey('sk_pro_0'))
  // Made here and not of 500 calls: how many of those share a statement depends on how fast they come.
  const batch = Array.from({ length: 500 }, (_, i) => hashApiKey(`sk_pro_${i}`))
  t.equal(statements.length, 1)
  t.same(statements[0]!.values, [byteaArray(batch.slice(0, 1))])
  const { rows } = await pool.query(`explain ${statements[0]!.text}`, [byteaArray(batch)])
  const plan = rows.map(row => row['QUERY PLAN']).join('\n')
  t.notMatch(plan, /Seq Scan|Parallel/)
  t.match(plan, /api_keys_secret_hash_key/)
  t.match(plan, /api_keys_previous_secret_hash/)
})

t.test('a use that cannot be noted is silent where there is nobody to tell', async t => {
  const { service, connectionString } = await startService(t)
  const { key, id } = await createKey(service)
  const pool = createPool(t, connectionString)
  let refused = 0
  const database = {
    query: async (text: string, values: unknown[] = []) => {
      if (!text.includes('update')) return pool.query(text, values)
      refused++
      throw new Error('read-only')
    }
  }
  const repository = createApiKeyRepository(database as never, 'test')
  t.strictSame(await repository.authenticate(hashApiKey(key)), { principal: { id, tier: 'pro' } })
  await repository.usesNoted()
  t.equal(refused, 1)
})
