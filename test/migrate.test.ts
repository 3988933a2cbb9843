import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { migrate, relations } from '../src/migrate.js'
import { adminKey, createDatabase, createKey, createPool, createProxy, createSession, startService } from './helpers.js'

const files = readdirSync('migrations').sort()

t.test('five instances that start at once on an empty database migrate it once', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const services = await Promise.all(Array.from({ length: 5 }, () => startService(t, { connectionString })))
  for (const { service } of services) t.equal((await service.inject('/v1/ready')).statusCode, 200)
  const { rows } = await createPool(t, connectionString).query('select version, name from sipher_sessions.migrations order by version')
  t.strictSame(rows, files.map(name => ({ version: Number(name.slice(0, 4)), name })))
})

t.test('who has waited for another\'s migration sees it, however transactions of their user see each other', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const pool = createPool(t, connectionString)
  await pool.query(`alter database ${new URL(connectionString).pathname.slice(1)} set default_transaction_isolation = 'repeatable read'`)
  const blocker = await pool.connect()
  await blocker.query('begin')
  await blocker.query('select pg_advisory_xact_lock(7315402236)')
  const waiting: object[] = []
  const log = { info: (fields: object) => { waiting.push(fields) } } as never
  const migrated = Promise.all([1, 2].map(() => migrate(createPool(t, connectionString), log)))
  while (waiting.length < 2) await sleep(20)
  // Both wait for the lock, and not only to say so.
  while ((await pool.query('select from pg_locks where locktype = \'advisory\' and not granted and database = (select oid from pg_database where datname = current_database())')).rowCount !== 2) await sleep(20)
  await blocker.query('rollback')
  blocker.release()
  await migrated
  t.equal((await pool.query('select from sipher_sessions.migrations')).rowCount, files.length)
})

t.test('a user for whom the schema was made, and who may make none, migrates', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const pool = createPool(t, connectionString)
  const name = new URL(connectionString).pathname.slice(1)
  await pool.query(`create role ${name}; create schema sipher_sessions authorization ${name}`)
  t.teardown(async () => { await createPool(t, connectionString).query(`drop owned by ${name}; drop role ${name}`) })
  const user = createPool(t, connectionString, { max: 1 })
  await user.query(`set role ${name}`)
  await migrate(user)
  t.equal((await pool.query('select from sipher_sessions.migrations')).rowCount, files.length)
})

t.test('a second run changes nothing', async t => {
  const pool = createPool(t, await createDatabase(t, { empty: true }))
  const messages: object[] = []
  const log = { info: (fields: object) => { messages.push(fields) } }
  await migrate(pool, log as never)
  t.strictSame(messages, files.map(migration => ({ migration })))
  await migrate(pool, log as never)
  t.equal(messages.length, files.length)
})

t.test('a schema that a newer release made is refused with a sentence', async t => {
  const connectionString = await createDatabase(t)
  await createPool(t, connectionString).query('insert into sipher_sessions.migrations (version, name) values (9999, \'9999-future.sql\')')
  await t.rejects(startService(t, { connectionString }), {
    message: `The database schema is at version 9999, but this release knows versions up to ${Number(files.at(-1)!.slice(0, 4))} only: ` +
      'a newer release of sipher-sessions has migrated it. Start that release, or restore the database from before.'
  })
})

t.test('what the release needs is all that its migrations make, and nothing of what others keep beside it', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  const { rows } = await pool.query('select relname as name from pg_class where relnamespace = \'sipher_sessions\'::regnamespace and relkind in (\'r\', \'S\') order by relname')
  t.strictSame(rows.map(({ name }) => name), Object.keys(relations))
  const { rows: [{ role }] } = await pool.query('select \'backup_\' || current_database() as role')
  await pool.query(`create role "${role}"; grant create on schema sipher_sessions to "${role}"; create table sipher_sessions.sessions_backup (id int); alter table sipher_sessions.sessions_backup owner to "${role}"`)
  t.teardown(() => pool.query(`drop owned by "${role}"; drop role "${role}"`))
  const { service } = await startService(t, { connectionString })
  t.equal((await service.inject('/v1/ready')).statusCode, 200)
  await pool.query('alter table sipher_sessions.session_removals rename to hidden; alter table sipher_sessions.audit rename to hidden_too')
  const message = 'The database lacks sipher_sessions.audit, sipher_sessions.session_removals, which its migrations have made. Restore the schema sipher_sessions as a whole.'
  t.strictSame([(await service.inject('/v1/ready')).statusCode, (await service.inject('/v1/ready')).json().error.message], [503, message])
  await t.rejects(migrate(pool), { name: 'SchemaVersionError', message })
})

t.test('tables without the record of what made them are told of', async t => {
  const pool = createPool(t, await createDatabase(t))
  await pool.query('delete from sipher_sessions.migrations')
  await t.rejects(migrate(pool), {
    name: 'SchemaVersionError',
    message: 'The schema sipher_sessions has tables, and no record of the migrations that made them. Restore it with the rows of sipher_sessions.migrations, or drop it: drop schema sipher_sessions cascade'
  })
})

t.test('after a move by logical replication, which copies no sequences, changes are logged on', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  const { service } = await startService(t, { connectionString })
  await createKey(service)
  const { key } = await createKey(service)
  await pool.query('alter sequence sipher_sessions.changes_id_seq restart')
  await t.rejects(createSession(service, key), /INTERNAL_SERVER_ERROR/)
  await pool.query('alter sequence sipher_sessions.changes_id_seq restart')
  await migrate(pool)
  t.ok(await createSession(service, key))
  const ids = async () => (await pool.query('select id from sipher_sessions.changes order by id')).rows.map(({ id }) => Number(id))
  const before = await ids()
  await migrate(pool)
  t.ok(await createSession(service, key))
  t.strictSame(await ids(), [...before, before.at(-1)! + 1000], 'and nothing is left out')

  await pool.query('alter sequence sipher_sessions.changes_id_seq restart; delete from sipher_sessions.migrations where version = 10')
  await migrate(pool)
  t.ok(await createSession(service, key), 'where there is something to migrate as well')

  const newest = (await ids()).at(-1)
  const { rows: [{ role }] } = await pool.query('select \'app_\' || current_database() as role')
  await pool.query(`create role "${role}" login; grant usage on schema sipher_sessions to "${role}"; grant select, insert, update, delete on all tables in schema sipher_sessions to "${role}"; grant usage on all sequences in schema sipher_sessions to "${role}"; alter sequence sipher_sessions.changes_id_seq restart`)
  t.teardown(() => pool.query(`drop owned by "${role}"; drop role "${role}"`))
  const asUser = createPool(t, connectionString.replace(/\/\/[^@]*@/, `//${role}@`))
  await t.rejects(migrate(asUser), {
    name: 'SchemaVersionError',
    message: 'The log of changes is ahead of the sequence of its ids, as after logical replication, and the sequence cannot be set (permission denied for sequence changes_id_seq). ' +
      `As the user who migrates: select setval('sipher_sessions.changes_id_seq', ${newest})`
  })
  await pool.query(`revoke all on sequence sipher_sessions.changes_id_seq from "${role}"; grant update on sequence sipher_sessions.changes_id_seq to "${role}"`)
  await t.resolves(migrate(asUser), 'who may not look at it leaves it alone')
})

t.test('of instances that find it so at the same time none sets back what another has logged since', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  const { service } = await startService(t, { connectionString })
  const { key } = await createKey(service)
  const { rows: [{ newest }] } = await pool.query('select max(id)::text as newest from sipher_sessions.changes')
  await pool.query('alter sequence sipher_sessions.changes_id_seq restart')
  const first = await createPool(t, connectionString).connect()
  await first.query('begin')
  await first.query('select pg_advisory_xact_lock(7315402236)')
  // What a pool lets requests take is not for this.
  const second = migrate(createPool(t, connectionString, { statement_timeout: 100 }))
  for (let waiting = 0; waiting === 0;) waiting = (await first.query('select from pg_locks where locktype = \'advisory\' and not granted and database = (select oid from pg_database where datname = current_database())')).rowCount!
  await sleep(300)
  await first.query('select setval(\'sipher_sessions.changes_id_seq\', $1)', [newest])
  await createSession(service, key)
  await first.query('commit')
  first.release()
  await second
  t.ok(await createSession(service, key))
})

t.test('deletes are counted in a database that is published as a whole', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  const { rows } = await pool.query('select relname from pg_class where relnamespace = \'sipher_sessions\'::regnamespace and relkind = \'r\' and relpersistence = \'p\' and relreplident = \'d\' and not exists (select from pg_index where indrelid = pg_class.oid and indisprimary)')
  t.strictSame(rows, [], 'each table tells its rows apart')
})

t.test('a database that does not hold all characters is refused with a sentence', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const owner = createPool(t, connectionString)
  const name = `${new URL(connectionString).pathname.slice(1)}_latin1`
  await owner.query(`create database ${name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`)
  t.teardown(() => owner.query(`drop database ${name} with (force)`))
  await t.rejects(migrate(createPool(t, connectionString.replace(/test_[0-9a-f]+/, name))), {
    name: 'SchemaVersionError',
    message: `The encoding of the database "${name}" is LATIN1, and sipher-sessions needs one in UTF8, such as: createdb --encoding UTF8 --template template0 sipher`
  })
})

t.test('a user who may make no tables starts where there are none to make', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const owner = createPool(t, connectionString)
  const { rows: [{ role }] } = await owner.query('select \'app_\' || current_database() as role')
  await owner.query(`create role "${role}" login`)
  t.teardown(async () => {
    await owner.query(`drop owned by "${role}"; drop role "${role}"`)
  })
  const url = new URL(connectionString.replace('@/', '@host/'))
  url.username = role
  const asUser = url.href.replace('@host/', '@/')
  await t.rejects(migrate(createPool(t, asUser)), { code: '42501' })
  await migrate(owner)
  await t.rejects(migrate(createPool(t, asUser)), { code: '42501' }, 'nor look')
  await owner.query(`grant usage on schema sipher_sessions to "${role}"; grant select, insert, update, delete on all tables in schema sipher_sessions to "${role}"; grant usage on all sequences in schema sipher_sessions to "${role}"`)
  await migrate(createPool(t, asUser))
  const { service } = await startService(t, { connectionString: asUser })
  const { key } = await createKey(service)
  t.ok(await createSession(service, key))
  await owner.query(`revoke all on sipher_sessions.sessions from "${role}"; revoke all on all sequences in schema sipher_sessions from "${role}"`)
  const lacking = `The user "${role}" may not use sipher_sessions.audit_id_seq, sipher_sessions.changes_id_seq, sipher_sessions.sessions. As the user who migrates: ` +
    `grant usage on schema sipher_sessions to "${role}"; grant select, insert, update, delete on all tables in schema sipher_sessions to "${role}"; grant usage on all sequences in schema sipher_sessions to "${role}"`
  await t.rejects(migrate(createPool(t, asUser)), { name: 'SchemaVersionError', message: lacking }, 'and is told what it may not use')
  const ready = await service.inject('/v1/ready')
  t.equal(ready.statusCode, 503)
  t.equal(ready.json().error.message, lacking)
  await owner.query('insert into sipher_sessions.migrations (version, name) values (9999, \'9999-future.sql\')')
  await t.rejects(migrate(createPool(t, asUser)), { name: 'SchemaVersionError' }, 'and is told of a newer schema what others are')
  t.equal((await service.inject('/v1/ready')).statusCode, 200, 'while an instance of the release before goes on: what the newer one has added is not for it')
})

t.test('a user with what is needed of each table and no more runs the service, and is told of each that it lacks', async t => {
  const connectionString = await createDatabase(t)
  const owner = createPool(t, connectionString)
  const { rows: [{ role }] } = await owner.query('select \'least_\' || current_database() as role')
  await owner.query(`create role "${role}" login; grant usage on schema sipher_sessions to "${role}"`)
  t.teardown(() => owner.query(`drop owned by "${role}"; drop role "${role}"`))
  const grant = (name: string, privilege: string, verb = 'grant', to = 'to') =>
    owner.query(`${verb} ${privilege} on ${name.endsWith('_seq') ? 'sequence' : 'table'} sipher_sessions.${name} ${to} "${role}"`)
  for (const [name, privileges] of Object.entries(relations)) await grant(name, name.endsWith('_seq') ? 'usage' : privileges.join(', '))
  const url = new URL(connectionString.replace('@/', '@host/'))
  url.username = role
  const asUser = url.href.replace('@host/', '@/')

  const lines: string[] = []
  const { service } = await startService(t, { connectionString: asUser, sweepIntervalMs: 20, auditRetentionDays: 1, logLevel: 'warn', logStream: { write: line => { lines.push(line) } } })
  await owner.query(`
    insert into sipher_sessions.audit (at, actor, action, key_id, subject, properties) values (now() - interval '2 days', 'admin', 'key.create', 'old', 'old', '{}');
    insert into sipher_sessions.changes (at, actor, action, key_ids) values (now() - interval '2 days', 'admin', 'key.create', '{old}');
    insert into sipher_sessions.request_counts (principal_id, window_start, requests) values ('old', now() - interval '2 hours', 1)`)
  const { key, id } = await createKey(service)
  const sessionId = await createSession(service, key)
  const send = async (method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object, by = key) => {
    const response = await service.inject({ method, url, headers: { 'x-api-key': by }, ...(payload && { payload }) })
    t.equal(response.statusCode < 300, true, `${method} ${url}: ${response.body}`)
    return response.json().data
  }
  await send('PATCH', `/v1/sessions/${sessionId}`, { defaults: { chain: 'sui' } })
  await owner.query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'1 hour\'')
  await send('GET', `/v1/sessions/${sessionId}`)
  await createSession(service, key)
  await owner.query('update sipher_sessions.sessions set expires_at = now() where id <> decode($1, \'hex\')', [sessionId.slice(5)])
  await send('DELETE', `/v1/sessions/${sessionId}`)
  await send('GET', '/v1/limits')
  await send('PATCH', `/v1/admin/keys/${id}`, { name: 'other' }, adminKey)
  await send('GET', '/v1/admin/audit', undefined, adminKey)
  await send('POST', `/v1/admin/keys/${id}/rotate`, {}, adminKey)
  await send('DELETE', `/v1/admin/keys/${id}`, undefined, adminKey)
  const left = `select
    (select count(*) from sipher_sessions.sessions) + (select count(*) from sipher_sessions.session_removals) + (select count(*) from sipher_sessions.audit)
    + (select count(*) from sipher_sessions.changes where at < now() - interval '1 day') + (select count(*) from sipher_sessions.request_counts where principal_id = 'old') as rows`
  for (let rows = 1; rows > 0;) rows = Number((await owner.query(left)).rows[0].rows)
  await service.close()
  t.strictSame(lines, [], 'nothing fails in the background either')

  for (const [name, privileges] of Object.entries(relations)) {
    for (const privilege of name.endsWith('_seq') ? ['usage'] : privileges) {
      await grant(name, privilege, 'revoke', 'from')
      await t.rejects(migrate(createPool(t, asUser)), name === 'migrations' ? { code: '42501' } : { name: 'SchemaVersionError', message: `may not use sipher_sessions.${name}.` }, `${privilege} on ${name}`)
      await grant(name, privilege)
    }
  }
})

t.test('a migration that is cut off leaves nothing behind, and the next one does it all', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const other = createPool(t, connectionString)
  // Stops the migration after the first of its files: it waits for a name that another transaction has taken.
  const blocker = await other.connect()
  await blocker.query('begin')
  await blocker.query('create schema sipher_sessions')
  await blocker.query('create table sipher_sessions.sessions ()')

  const { connectionString: proxied, cut } = await createProxy(t, connectionString)
  const cutOff = migrate(createPool(t, proxied))
  cutOff.catch(() => {})
  const waiting = 'select 1 from pg_stat_activity where datname = current_database() and wait_event_type = \'Lock\''
  while ((await other.query(waiting)).rows.length === 0);
  cut()
  await t.rejects(cutOff)
  await blocker.query('rollback')
  blocker.release()

  t.strictSame((await other.query('select nspname from pg_namespace where nspname = \'sipher_sessions\'')).rows, [])
  await migrate(other)
  t.equal((await other.query('select count(*)::int as count from sipher_sessions.migrations')).rows[0].count, files.length)
})

t.test('a migration may take longer than a request, and waits for who migrates', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const other = await createPool(t, connectionString).connect()
  await other.query('begin')
  await other.query('select pg_advisory_xact_lock(7315402236)')
  const { rows: limits } = await other.query('select from pg_settings where name = \'transaction_timeout\'')
  // Since PostgreSQL 17.
  const options = limits.length > 0 ? '-c transaction_timeout=300' : ''
  const migrated = migrate(createPool(t, connectionString, { statement_timeout: 200, lock_timeout: 200, options }))
  let done = false
  void migrated.then(() => { done = true }, () => {})
  await sleep(600)
  t.equal(done, false)
  await other.query('commit')
  other.release()
  await t.resolves(migrated)
})

t.test('what an earlier release has stored counts after the migration', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const pool = createPool(t, connectionString)
  await pool.query('create schema sipher_sessions; create table sipher_sessions.migrations (version int primary key, name text not null, applied_at timestamptz not null default now())')
  for (const name of readdirSync('migrations').sort().slice(0, 5)) {
    await pool.query(readFileSync(`migrations/${name}`, 'utf8'))
    await pool.query('insert into sipher_sessions.migrations (version, name) values ($1, $2)', [Number(name.slice(0, 4)), name])
  }
  await pool.query('insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at) select sha256(n::text::bytea), \'ann\', \'{"chain": "near"}\', now() + interval \'1 hour\' from generate_series(1, 3) n')
  const { service } = await startService(t, { connectionString, identify: () => ({ id: 'ann', tier: 'pro' }), tierLimits: { pro: { maxSessions: 3 } } })
  t.strictSame((await service.inject('/v1/limits')).json().data.sessions, { live: 3, remaining: 0 })
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', payload: { defaults: {} } })).statusCode, 409)
})

t.test('a migration that fails leaves the pool that it was given usable', async t => {
  const pool = createPool(t, await createDatabase(t, { empty: true }), { max: 1 })
  await pool.query('create schema sipher_sessions; create type sipher_sessions.api_keys as (id text)')
  await t.rejects(migrate(pool), { code: '42P07' })
  t.strictSame((await pool.query('select 1 as one')).rows, [{ one: 1 }])
})
