import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import pg from 'pg'
import t, { type Test } from 'tap'
import { waitingSince } from '../../src/plugins/database.js'
import { hashApiKey } from '../../src/api-key.js'
import { startEmbeddedPostgres } from '../../src/embedded-postgres.js'
import sipherSessions from '../../src/index.js'
import { adminKey, answer, createDatabase, createKey, createPool, createProxy, createSession, encryptionKeys, failure, startService } from '../helpers.js'
import { createDataDir } from '../server-process.js'

const unavailable = failure(503, 'SERVICE_UNAVAILABLE', 'The service cannot reach its database at the moment. Try again in 1 s.')

t.test('when Postgres goes away every request gets 503 within a second, and all is well once it is back', async t => {
  const dataDir = createDataDir(t)
  let postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.teardown(() => postgres.stop())
  const { service } = await startService(t, { connectionString: postgres.connectionString })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const requests = [
    { method: 'POST', url: '/v1/sessions', payload: { defaults: {} } },
    { method: 'GET', url: `/v1/sessions/${sessionId}` },
    { method: 'PATCH', url: `/v1/sessions/${sessionId}`, payload: { defaults: {} } },
    { method: 'DELETE', url: `/v1/sessions/${sessionId}` },
    { method: 'GET', url: '/v1/errors', headers: { 'x-session-id': sessionId } }
  ] as const

  await postgres.stop()
  for (const request of requests) {
    const began = performance.now()
    const response = await service.inject({ ...request, headers: { ...headers, ...('headers' in request && request.headers) } })
    t.ok(performance.now() - began < 1000, 'within a second')
    t.strictSame(answer(response), unavailable, `${request.method} ${request.url}`)
    t.equal(response.headers['retry-after'], '1')
  }
  t.equal((await service.inject('/v1/ready')).statusCode, 503)
  t.equal((await service.inject('/v1/health')).statusCode, 200)

  postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.equal((await service.inject('/v1/ready')).statusCode, 200)
  t.equal((await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200, 'what was acknowledged is still there')
})

t.test('a Postgres that accepts connections and says nothing costs a request less than a second', async t => {
  const silent = createServer(socket => socket.on('error', () => {}))
  await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
  t.teardown(() => { silent.close() })
  const { port } = silent.address() as AddressInfo
  const { service } = await startService(t, { connectionString: `postgres://nobody@127.0.0.1:${port}/none`, migrate: false, timeoutMs: undefined })
  const began = performance.now()
  t.equal((await service.inject('/v1/ready')).statusCode, 503)
  t.ok(performance.now() - began < 1000)
})

t.test('a statement that has to wait too long is given up, by Postgres as well', async t => {
  const { service, connectionString } = await startService(t, { timeoutMs: undefined })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const locker = await createPool(t, connectionString).connect()
  await locker.query('begin')
  await locker.query('lock table sipher_sessions.sessions')

  const began = performance.now()
  const responses = await Promise.all(Array.from({ length: 30 }, () => service.inject({ url: `/v1/sessions/${sessionId}`, headers })))
  t.ok(performance.now() - began < 1000)
  for (const response of responses) t.strictSame(answer(response), unavailable)
  const patch = await service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chain: 'sui' } } })
  t.equal(patch.statusCode, 503)

  await locker.query('rollback')
  locker.release()
  const after = await service.inject({ url: `/v1/sessions/${sessionId}`, headers })
  t.strictSame(after.json().data.defaults, { chain: 'near' }, 'a write that was answered 503 does not linger')
})

t.test('limits in the URL take no place of the service\'s own, nor do those of transactions', async t => {
  const url = new URL(await createDatabase(t))
  url.searchParams.set('statement_timeout', '30000')
  url.searchParams.set('idle_in_transaction_session_timeout', '0')
  const connectionString = url.href
  const owner = createPool(t, connectionString)
  await owner.query(`alter database ${new URL(connectionString).pathname.slice(1)} set default_transaction_isolation = 'serializable'`)
  for (const pooler of [undefined, 'transaction'] as const) {
    const { service } = await startService(t, { connectionString, pooler, timeoutMs: 1000 })
    const { rows } = await service.sessionDatabase.query('select current_setting(\'statement_timeout\') as statement, current_setting(\'transaction_isolation\') as isolation, current_setting(\'idle_in_transaction_session_timeout\') as idle')
    t.strictSame(rows, [{ statement: '500ms', isolation: 'read committed', idle: pooler ? '500ms' : '10s' }])
  }
})

t.test('who gives a statement more time gives it to what waits for others as well', async t => {
  const { service, connectionString } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const locker = await createPool(t, connectionString).connect()
  await locker.query('begin')
  await locker.query('lock table sipher_sessions.sessions, sipher_sessions.migrations')
  const answers: Promise<{ statusCode: number }>[] = []
  for (let i = 0; i < 6; i++) {
    for (const url of [`/v1/sessions/${sessionId}`, '/v1/ready']) answers.push(service.inject({ url, headers }).then())
    await sleep(20)
  }
  await sleep(600)
  await locker.query('rollback')
  locker.release()
  t.strictSame((await Promise.all(answers)).map(({ statusCode }) => statusCode), Array(12).fill(200))
})

t.test('and to what waits for a connection, however long it takes to make one', async t => {
  const { service, connectionString } = await startService(t, { maxConnections: 1 })
  const locker = await createPool(t, connectionString).connect()
  await locker.query('begin')
  await locker.query('lock table sipher_sessions.sessions')
  const first = service.sessionDatabase.query('select from sipher_sessions.sessions')
  const second = service.sessionDatabase.query('select 1')
  await sleep(3_200)
  await locker.query('rollback')
  locker.release()
  await first
  t.strictSame((await second).rowCount, 1)
})

t.test('a pool may be of another copy of the driver', async t => {
  const require = createRequire(import.meta.url)
  for (const path of Object.keys(require.cache)) if (/node_modules\/pg/.test(path)) delete require.cache[path]
  const copy = require('pg') as typeof pg
  t.not(copy.DatabaseError, pg.DatabaseError)
  const pool = createPool(t, await createDatabase(t), {}, copy)
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, adminKey, sweepIntervalMs: 0 })
  const response = await host.inject({ method: 'POST', url: '/v1/admin/keys', headers: { 'x-api-key': adminKey }, payload: { tier: 'pro', name: 'x', metadata: { x: '\0' } } })
  t.equal(response.json().error.code, 'VALIDATION_ERROR')
  t.equal(pool.totalCount, 1, 'nor is its connection broken')
})

t.test('how a host has the driver read types makes no difference to the service', async t => {
  for (const pooler of [undefined, 'transaction'] as const) {
    const connectionString = await createDatabase(t)
    const oids = [16, 20, 23, 25, 701, 1007, 1009, 1184, 3802]
    const before = oids.map(oid => pg.types.getTypeParser(oid, 'text'))
    for (const oid of oids) pg.types.setTypeParser(oid, () => 'of the host\'s own')
    try {
      const { service } = await startService(t, { connectionString, pooler })
      const { headers, id } = await createKey(service)
      const created = await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: { chain: 'near', defaultViewingKey: '0xab' } } })
      t.equal(created.statusCode, 201)
      const { sessionId, createdAt, expiresAt } = created.json().data
      t.equal(expiresAt - createdAt, 3_600_000)
      t.match((await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).json().data, { defaults: { chain: 'near', defaultViewingKey: '0xab' }, createdAt, expiresAt })
      t.equal((await service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)
      t.equal((await service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })).statusCode, 404)
      t.match((await service.inject({ url: '/v1/limits', headers })).json().data, { requests: { remaining: 9_995 }, sessions: { live: 0 } })
      const { data } = (await service.inject({ url: `/v1/admin/audit?key=${id}`, headers: { 'x-api-key': adminKey } })).json()
      t.match(data.entries, [{ action: 'session.delete', properties: [] }, { action: 'session.create', properties: ['chain', 'defaultViewingKey'] }, { action: 'key.create' }])
      t.match((await service.inject({ url: `/v1/admin/keys/${id}`, headers: { 'x-api-key': adminKey } })).json().data, { metadata: {}, status: 'active' })
    } finally {
      oids.forEach((oid, i) => { pg.types.setTypeParser(oid, before[i]!) })
    }
  }
})

t.test('a pool whose answers are binary is refused, and one may be given to many', async t => {
  const connectionString = await createDatabase(t)
  const register = async (pool: pg.Pool) => {
    const host = Fastify()
    t.teardown(() => host.close())
    await host.register(sipherSessions, { pool, encryptionKeys, sweepIntervalMs: 0 })
    await host.ready()
    return host
  }
  await t.rejects(register(createPool(t, connectionString, { binary: true } as pg.PoolConfig)), { message: 'The option pool is of connections with binary: true, whose answers are not read; give another one, or connectionString.' })
  const pool = createPool(t, connectionString)
  const warnings: string[] = []
  const note = ({ name }: Error) => { warnings.push(name) }
  process.on('warning', note)
  const before = pool.getMaxListeners()
  const hosts = await Promise.all(Array.from({ length: 12 }, () => register(pool)))
  await sleep(10)
  process.off('warning', note)
  t.strictSame(warnings, [])
  await Promise.all(hosts.map(host => host.close()))
  t.equal(pool.getMaxListeners(), before)
})

t.test('times that are none are refused at the start', async t => {
  const connectionString = await createDatabase(t)
  for (const timeoutMs of [0, -1, NaN, Infinity, 3_600_001]) {
    await t.rejects(async () => { await Fastify().register(sipherSessions, { encryptionKeys, connectionString, timeoutMs }) }, { message: `The option timeoutMs is ${timeoutMs}; it must be a number from 1 to 3600000` })
  }
  for (const sweepIntervalMs of [-1, NaN, Infinity, 604_800_001]) {
    const host = Fastify()
    t.teardown(() => host.close())
    await t.rejects(async () => { await host.register(sipherSessions, { encryptionKeys, connectionString, sweepIntervalMs }) }, { message: `The option sweepIntervalMs is ${sweepIntervalMs}; it must be a number from 0, for never, to 604800000` })
  }
})

t.test('connections that Postgres ends do not end the process', async t => {
  const { service, connectionString } = await startService(t)
  const { headers } = await createKey(service)
  const pool = createPool(t, connectionString)
  await pool.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()')
  // The first request may still meet a broken connection; the pool has new ones after it.
  await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 201)
})

t.test('a connection that is cut under a statement is a 503, and does not end the process', async t => {
  const { connectionString, cut } = await createProxy(t, await createDatabase(t))
  const { service } = await startService(t, { connectionString })
  const { headers } = await createKey(service)
  const cutOff = t.rejects(service.sessionDatabase.query('select pg_sleep(0.5)'), { code: 'SERVICE_UNAVAILABLE' })
  setTimeout(cut, 100)
  await cutOff
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 201)
})

t.test('an answer that was there in time counts, though the process stood still until later', async t => {
  const { service } = await startService(t, { timeoutMs: 200, maxConnections: 1 })
  const answers = [service.sessionDatabase.query('select pg_sleep(0.05)'), service.sessionDatabase.query('select 1 as one')]
  // The first has been sent, the other waits for its connection.
  await new Promise(resolve => setImmediate(resolve))
  const until = performance.now() + 400
  while (performance.now() < until);
  t.equal((await answers[0]!).rowCount, 1)
  t.strictSame((await answers[1]!).rows, [{ one: 1 }])
})

t.test('a pool that was given is used within the time allowed, and stays open', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1 })
  const host = Fastify()
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0, timeoutMs: 1000 })
  await host.ready()
  const { headers } = await createKey(host)

  const busy = await pool.connect()
  const response = await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
  t.strictSame(answer(response), unavailable, 'no connection became free')
  busy.release()
  t.equal((await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 201)
  t.strictSame((await pool.query('select count(*)::int as sessions from sipher_sessions.sessions')).rows, [{ sessions: 1 }], 'what was given up was not done')

  await host.close()
  t.strictSame((await pool.query('select 1 as one')).rows, [{ one: 1 }], 'whoever makes a pool ends it')
})

t.test('a statement that outlasts the time allowed on a pool without a limit of its own is given up', async t => {
  const pool = createPool(t, await createDatabase(t))
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0, timeoutMs: 1000 })
  await host.ready()
  await t.rejects(host.sessionDatabase.query('select pg_sleep(5)'), { code: 'SERVICE_UNAVAILABLE' })
  t.strictSame((await host.sessionDatabase.query('select 1 as one')).rows, [{ one: 1 }])
})

/** Makes requests that take every statement that has a name, one after the other, and answers what Postgres has kept of these. */
async function useStatements (t: Test, options: { stored: number, rounds: number }) {
  const { service, connectionString } = await startService(t, { maxConnections: 1 })
  const { sessionDatabase, apiKeyRepository, requestCountRepository } = service
  const { key, headers } = await createKey(service)
  const pool = createPool(t, connectionString)
  await pool.query(`
    with somebody as (
      insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name)
      select 'key_' || md5(n::text), sha256(n::text::bytea), '', 'pro', 'somebody' from generate_series(1, $1::int) n
      returning id, secret_hash
    ), counted as (
      insert into sipher_sessions.request_counts (principal_id, window_start, requests) select id, now(), 1 from somebody
    )
    insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
    select secret_hash, id, '{}', now() + interval '1 day' from somebody`, [options.stored])
  // What Postgres knows nothing of it takes for larger than it is.
  await pool.query('analyze')
  for (let round = 0; round < options.rounds; round++) {
    const sessionId = await createSession(service, key)
    await pool.query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'1 hour\' where id = decode(substr($1, 6), \'hex\')', [sessionId])
    for (const request of [
      { method: 'POST', url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId } },
      { method: 'GET', url: `/v1/sessions/${sessionId}`, headers },
      { method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chain: 'sui' } } },
      { method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers }
    ] as const) {
      t.equal((await service.inject(request)).statusCode, 200)
      await service.sessionRepository.settled()
    }
    await apiKeyRepository.authenticate(hashApiKey(key))
    await requestCountRepository.increment('x')
  }
  const { rows } = await sessionDatabase.query<{ name: string, types: string[], kept: boolean }>(
    'select name, to_jsonb(parameter_types::text[]) as types, generic_plans > 0 as kept from pg_prepared_statements order by name')
  t.strictSame(rows.map(({ name }) => name), ['authenticate', 'authenticate-and-count', 'count', 'create-sessions', 'delete-sessions', 'get-sessions', 'note-access', 'patch-sessions', 'use-sessions'])
  return { sessionDatabase, statements: rows }
}

t.test('statements that are kept find their rows by an index, though they were planned while the tables were small', async t => {
  const { sessionDatabase, statements } = await useStatements(t, { stored: 0, rounds: 1 })
  await sessionDatabase.query('set plan_cache_mode = force_generic_plan')
  for (const { name, types } of statements) {
    const { rows: lines } = await sessionDatabase.query<{ 'QUERY PLAN': string }>(`explain execute "${name}" (${types.map(type => `null::${type}`).join()})`)
    const plan = lines.map(line => line['QUERY PLAN']).join('\n')
    t.notMatch(plan, /Seq Scan|sessions_expires_at/, name)
    // Each of them by the ids, and not all of them in the order of the ids.
    for (const [, condition] of plan.matchAll(/Index Scan using .*\n\s*(.*)/g)) t.match(condition, 'Index Cond', name)
  }
})

t.test('single requests are not planned each time, however much is stored', async t => {
  // The first five times Postgres plans each for the values that it is given.
  const { statements } = await useStatements(t, { stored: 20_000, rounds: 6 })
  for (const { name, kept } of statements) t.ok(kept, name)
})

t.test('behind a pooler a connection asks for nothing, and each statement has its limit all the same', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1 })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, pooler: 'transaction', sweepIntervalMs: 0 })
  await host.ready()
  await host.sessionDatabase.query('select 1', [], 'one')
  t.strictSame((await pool.query('select name from pg_prepared_statements')).rows, [])
  t.strictSame((await host.sessionDatabase.query('select current_setting(\'statement_timeout\') as limit, current_setting(\'idle_in_transaction_session_timeout\') as idle')).rows, [{ limit: '400ms', idle: '400ms' }], 'so that who stops in the middle holds others up for no longer')
  t.strictSame((await pool.query('select current_setting(\'statement_timeout\') as limit')).rows, [{ limit: '0' }], 'which ends with it')

  await t.rejects(host.sessionDatabase.query('select 1 / 0'), { code: '22012' })
  t.strictSame((await pool.query('select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and state like \'idle in transaction%\'')).rows, [], 'and so does its transaction')
})

t.test('behind a pooler the error of a statement is told even if its transaction cannot be ended, which its connection does not outlive', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1 })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, pooler: 'transaction', sweepIntervalMs: 0 })
  await host.ready()
  const pid = async () => (await host.sessionDatabase.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]!.pid
  const before = await pid()
  pool.once('acquire', client => {
    const query = client.query.bind(client) as (...values: unknown[]) => Promise<never>
    client.query = ((...values: unknown[]) => values[0] === 'rollback' ? query('select 1') : query(...values)) as typeof client.query
  })
  await t.rejects(host.sessionDatabase.query('select 1 / 0'), { code: '22012' })
  t.not(await pid(), before)
})

t.test('behind a pooler a write that was answered 503 is not carried out', async t => {
  const { service, connectionString } = await startService(t, { pooler: 'transaction', timeoutMs: undefined })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const locker = await createPool(t, connectionString).connect()
  await locker.query('begin')
  await locker.query('lock table sipher_sessions.sessions')
  const began = performance.now()
  const payload = { defaults: { chain: 'sui' } }
  t.strictSame(answer(await service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload })), unavailable)
  t.ok(performance.now() - began < 1000)
  await locker.query('rollback')
  locker.release()
  t.strictSame((await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).json().data.defaults, { chain: 'near' })
})

t.test('behind a pooler nothing is committed whose answer was not there in time, even if Postgres knows no limit', async t => {
  const pool = createPool(t, await createDatabase(t))
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, pooler: 'transaction', sweepIntervalMs: 0, timeoutMs: 200 })
  await host.ready()
  await pool.query('create table written (id int)')
  // It takes the cancellation for an ordinary error, and goes on.
  await pool.query('create function slowly() returns int language plpgsql as $$ begin begin perform pg_sleep(60); exception when query_canceled then perform pg_sleep(0.3); end; return 1; end $$')
  await t.rejects(host.sessionDatabase.query('insert into written select slowly()'), { code: 'SERVICE_UNAVAILABLE' })
  for (let busy = true; busy;) busy = (await pool.query('select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and state <> \'idle\'')).rows.length > 0
  t.strictSame((await pool.query('select * from written')).rows, [])
})

t.test('without a database the registration fails with a sentence', async t => {
  const host = Fastify()
  await t.rejects(async () => { await host.register(sipherSessions, {}) }, { message: 'sipher-sessions needs a database: give it `pool` (a pg.Pool) or `connectionString`.' })
})

t.test('a queryable that knows nothing of waiting is used as it is', async t => {
  const pool = createPool(t, await createDatabase(t))
  t.equal(waitingSince(pool, 0), pool)
})

t.test('what says that the database is not to be had at the moment is a 503, whatever it is', async t => {
  const { service } = await startService(t)
  for (const code of ['08006', '0A000', '25006', '25P04', '28P01', '3D000', '40001', '40P01', '42501', '53300', '55P03', '57P03', '58030']) {
    await t.rejects(service.sessionDatabase.query(`do $$ begin raise exception using errcode = '${code}'; end $$`), { code: 'SERVICE_UNAVAILABLE', headers: { 'retry-after': '1' } }, code)
  }
})

t.test('a connection whose server is a standby by what it says is not kept', async t => {
  const { service } = await startService(t, { maxConnections: 1 })
  const backend = async () => (await service.sessionDatabase.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]!.pid
  const before = await backend()
  t.equal(await backend(), before)
  await t.rejects(service.sessionDatabase.query('do $$ begin raise exception using errcode = \'0A000\'; end $$'))
  t.not(await backend(), before)
})

t.test('a connection that has become read-only is not kept', async t => {
  const { service, connectionString } = await startService(t)
  const name = new URL(connectionString).pathname.slice(1)
  const pool = createPool(t, connectionString)
  const { headers } = await createKey(service)
  const ask = async (url: string) => (await service.inject({ url, headers })).statusCode
  t.equal(await ask('/v1/ready'), 200)
  await pool.query(`alter database ${name} set default_transaction_read_only = on`)
  await pool.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = \'sipher-sessions\'')
  t.equal(await ask('/v1/limits'), 503)
  for (const url of ['/v1/ready', '/v1/ready']) t.equal(await ask(url), 503, 'nothing can be counted')
  await pool.query(`alter database ${name} reset default_transaction_read_only`)
  for (const url of ['/v1/ready', '/v1/limits']) {
    let status: number | undefined
    for (let tries = 0; status !== 200 && tries < 3; tries++) status = await ask(url)
    t.equal(status, 200, url)
  }
})

t.test('a standby, which is behind, serves nothing, and is used once it is the primary', async t => {
  const dataDir = createDataDir(t)
  let postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.teardown(() => postgres.stop())
  const settings = { rateLimitFailOpen: true, connectionString: postgres.connectionString }
  const { service: primary } = await startService(t, settings)
  const { key, headers } = await createKey(primary)
  const asked = { url: '/v1/resolve', headers: { ...headers, 'x-session-id': await createSession(primary, key) } }
  await primary.close()
  await postgres.stop()
  writeFileSync(join(dataDir, 'postgres', 'standby.signal'), '')
  postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  const behind = 'The database is a standby, which takes no writes and may be behind. Set DATABASE_URL, or connectionString, to an address that always leads to the primary.'
  await t.rejects(startService(t, settings), { message: behind })
  const { service } = await startService(t, { ...settings, migrate: false })
  for (const url of ['/v1/resolve', '/v1/ready']) t.strictSame(answer(await service.inject({ ...asked, url })).status, 503, url)
  // Of connections that a host makes it is known once something has failed.
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool: createPool(t, postgres.connectionString), rateLimitFailOpen: true, sweepIntervalMs: 0, timeoutMs: 10_000 })
  t.equal((await host.inject('/v1/ready')).statusCode, 503)

  const pool = createPool(t, postgres.connectionString)
  await pool.query('select pg_promote()')
  for (const app of [service, host]) {
    for (const url of ['/v1/ready', '/v1/resolve']) t.equal((await app.inject({ ...asked, url })).statusCode, 200, url)
  }
})

t.test('times are exact, however the user has numbers written', async t => {
  const connectionString = await createDatabase(t)
  await createPool(t, connectionString).query(`alter database ${new URL(connectionString).pathname.slice(1)} set extra_float_digits = -15`)
  const { service } = await startService(t, { connectionString })
  const { headers } = await createKey(service)
  const began = Date.now()
  const { createdAt, expiresAt } = (await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {}, ttlSeconds: 60 } })).json().data
  t.ok(Math.abs(createdAt - began) < 60_000)
  t.equal(expiresAt - createdAt, 60_000)
})

t.test('a pool that was given keeps no statement', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1 })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0 })
  await host.ready()
  const { headers } = await createKey(host)
  t.equal((await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 201)
  t.strictSame((await pool.query('select name from pg_prepared_statements')).rows, [], 'it may lead through a pooler')
})

t.test('a connection of the service\'s own has the settings that its plans need, whatever the database says', async t => {
  const connectionString = await createDatabase(t)
  await createPool(t, connectionString).query('do $$ begin execute format(\'alter database %I set jit = on\', current_database()); execute format(\'alter database %I set enable_seqscan = on\', current_database()); end $$')
  const { service } = await startService(t, { connectionString })
  const { rows } = await service.sessionDatabase.query('select current_setting(\'jit\') as jit, current_setting(\'enable_seqscan\') as scan')
  t.strictSame(rows, [{ jit: 'off', scan: 'off' }])
})

t.test('a connection that is made behind a pooler asks for no setting', async t => {
  const { service } = await startService(t, { pooler: 'transaction', maxConnections: 1 })
  const { rows } = await service.sessionDatabase.query('select name, reset_val, current_setting(\'enable_seqscan\') as scan from pg_settings where name in (\'statement_timeout\', \'idle_in_transaction_session_timeout\') order by name')
  t.strictSame(rows, [{ name: 'idle_in_transaction_session_timeout', reset_val: '0', scan: 'on' }, { name: 'statement_timeout', reset_val: '0', scan: 'on' }])
})
