import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t from 'tap'
import { startEmbeddedPostgres } from '../../src/embedded-postgres.js'
import { deleteExpiredText } from '../../src/repositories/session-statements.js'
import { createPool, startService } from '../helpers.js'

const addSessions = `
  insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
  select decode(lpad(to_hex(n), 64, '0'), 'hex'), 'key', '{}', now() + interval '1 hour' * (case when n <= 1200 then -1 else 1 end)
  from generate_series(1, 1210) n`

/** Asks until there is an answer, for 30 s at most, and returns it. */
async function waitFor<T> (ask: () => Promise<T>): Promise<T> {
  const end = performance.now() + 30_000
  let answer: T
  while (!(answer = await ask()) && performance.now() < end) await sleep(2)
  return answer
}

t.test('instances together remove what has expired, in batches, and nothing else', async t => {
  const one = await startService(t)
  const pool = createPool(t, one.connectionString)
  await pool.query(addSessions)
  await startService(t, { connectionString: one.connectionString, sweepIntervalMs: 5 })
  await startService(t, { connectionString: one.connectionString, sweepIntervalMs: 5 })
  const left = async () => (await pool.query('select count(*)::int as left from sipher_sessions.sessions')).rows[0].left
  await waitFor(async () => await left() <= 10)
  t.equal(await left(), 10)
})

t.test('a sweep removes what the audit log has kept long enough', async t => {
  const { connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  await pool.query(`
    insert into sipher_sessions.changes (at, actor, action, key_ids)
      select now() - interval '91 days' * (n <= 220)::int, 'admin', 'key.update', '{key}' from generate_series(1, 300) n;
    insert into sipher_sessions.audit (at, actor, action, key_id, subject, properties)
      select now() - interval '91 days' * (n <= 220)::int, 'admin', 'key.update', 'key', 'key', '{}' from generate_series(1, 300) n`)
  await startService(t, { connectionString, sweepIntervalMs: 5 })
  const left = async () => (await pool.query('select (select count(*)::int from sipher_sessions.changes) as changes, (select count(*)::int from sipher_sessions.audit) as audit')).rows[0]
  await waitFor(async () => (await left()).audit <= 80)
  t.strictSame(await left(), { changes: 80, audit: 80 })
})

t.test('entries of a clock that has been moved back keep no others in the audit log', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  await pool.query(`
    insert into sipher_sessions.changes (at, actor, action, key_ids)
      select now() + interval '1 year' * (case when n <= 60 then 1 else -1 end), 'admin', 'key.update', '{key}' from generate_series(1, 120) n`)
  t.equal((await service.auditRepository.deleteExpired(50)).count, 50)
  t.equal((await service.auditRepository.deleteExpired(50)).count, 10)
  t.strictSame((await pool.query('select count(*)::int as left, min(at) > now() as future from sipher_sessions.changes')).rows, [{ left: 60, future: true }])
})

t.test('an app that closes during a sweep begins no other', async t => {
  const lines: string[] = []
  const { service } = await startService(t, { sweepIntervalMs: 5, logLevel: 'warn', logStream: { write: line => { lines.push(line) } } })
  const began: string[] = []
  const end = await new Promise<() => void>(resolve => {
    service.sessionDatabase.query = (text: string) => {
      began.push(text)
      return new Promise((_resolve, reject) => { resolve(() => { reject(new Error('silent')) }) })
    }
  })
  const closing = service.close()
  await sleep(50)
  end()
  await closing
  t.equal(began.length, 1)
  t.equal(lines.filter(line => line.includes('the next sweep tries again')).length, 1)
})

t.test('of sweeps at the same time one removes rows, whatever it removes', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  await pool.query(`
    ${addSessions};
    insert into sipher_sessions.request_counts select 'key', now() - interval '2 hours', 1;
    insert into sipher_sessions.changes (at, actor, action, key_ids) select now() - interval '91 days', 'admin', 'key.update', '{key}';
    insert into sipher_sessions.audit (at, actor, action, key_id, subject, properties) select now() - interval '91 days', 'admin', 'key.update', 'key', 'key', '{}'`)
  const { sessionRepository, requestCountRepository, auditRepository } = service
  const sweep = async () => {
    const counts = []
    for (const run of [sessionRepository.deleteExpired, requestCountRepository.deleteExpired, auditRepository.deleteExpired, auditRepository.deleteExpiredOlder]) counts.push((await run(500)).count)
    return counts
  }
  const other = await pool.connect()
  await other.query('begin')
  t.match((await other.query(deleteExpiredText, [100, null])).rows, [{ count: 100 }])
  t.strictSame(await sweep(), [0, 0, 0, 0])
  await other.query('commit')
  other.release()
  t.strictSame(await sweep(), [500, 1, 1, 1])
})

t.test('a statement of a sweep goes on where the one before it ended', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  const { sessionRepository, requestCountRepository, auditRepository } = service
  const expired = [
    {
      add: 'insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at) select decode(lpad(to_hex($1::int), 64, \'0\'), \'hex\'), \'key\', \'{}\', now() - make_interval(mins => 10 - $1::int)',
      run: sessionRepository.deleteExpired
    },
    { add: 'insert into sipher_sessions.request_counts select $1::text, now() - interval \'2 hours\' + make_interval(mins => $1::int), 1', run: requestCountRepository.deleteExpired },
    {
      add: 'insert into sipher_sessions.changes (id, at, actor, action, key_ids) overriding system value select $1::int * 1000, now() - interval \'91 days\', \'admin\', \'key.update\', \'{key}\'',
      run: auditRepository.deleteExpired
    },
    {
      add: 'insert into sipher_sessions.audit (id, at, actor, action, key_id, subject, properties) overriding system value select $1::int, now() - interval \'91 days\', \'admin\', \'key.update\', \'key\', \'key\', \'{}\'',
      run: auditRepository.deleteExpiredOlder
    }
  ]
  for (const { add, run } of expired) {
    for (const n of [2, 3, 4, 5]) await pool.query(add, [n])
    const { count, last } = await run(2)
    t.equal(count, 2)
    await pool.query(add, [1])
    t.match(await run(500, last), { count: 2 }, 'not what came before')
    t.match(await run(500), { count: 1, last: /./ }, 'which the next sweep removes')
    t.strictSame(await run(500), { count: 0, last: null })
  }
})

t.test('a sweep goes on where its last batches ended', async t => {
  const { connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  await pool.query(`
    ${addSessions};
    create table removed (n serial, id bytea);
    create function note_removal() returns trigger language plpgsql as $$ begin insert into removed (id) values (old.id); return null; end $$;
    create trigger note_removal after delete on sipher_sessions.sessions for each row execute function note_removal();
    create function add_older() returns trigger language plpgsql as $$ begin
      if (select count(*) from removed) = 1100 then
        insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at) values (sha256('older'), 'key', '{}', now() - interval '2 hours') on conflict do nothing;
      end if;
      return null;
    end $$;
    create trigger add_older after delete on sipher_sessions.sessions for each statement execute function add_older()`)
  await startService(t, { connectionString, sweepIntervalMs: 200 })
  const place = async () => (await pool.query('select n from removed where id = sha256(\'older\')')).rows[0]?.n
  t.equal(await waitFor(place), 1201, 'one that comes to be there before where the sweep is goes with the next')
})

t.test('a sweep does not go on for the few that expire while it is at work', async t => {
  const { connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  await pool.query(`
    ${addSessions};
    create function one_more() returns trigger language plpgsql as $$ begin
      insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at) values (sha256(random()::text::bytea), 'key', '{}', now());
      return null;
    end $$;
    create trigger one_more after delete on sipher_sessions.sessions for each statement execute function one_more()`)
  const lines: string[] = []
  await startService(t, { connectionString, sweepIntervalMs: 2000, logLevel: 'debug', logStream: { write: line => { lines.push(line) } } })
  const swept = () => lines.map(line => JSON.parse(line) as { msg: string, deleted: number }).find(({ msg }) => msg === 'expired sessions swept')
  await waitFor(async () => swept() !== undefined)
  t.equal(swept()!.deleted, 1212, 'a batch of those that came during the twelve, and no more')
})

t.test('who looks from the beginning does not visit what a sweep has removed', async t => {
  // Postgres marks only what nobody can see any more, and does not look anew while a transaction writes to any database that it has: this
  // one is alone on its server, and nobody looks while it is swept, autovacuum neither.
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-sweep-'))
  chmodSync(dataDir, 0o755)
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }))
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.teardown(() => postgres.stop())
  const { connectionString } = postgres
  const pool = new pg.Pool({ connectionString })
  t.teardown(() => pool.end())
  const client = await pool.connect()
  // As a service has it: Postgres marks what is gone once that is on the disk.
  await client.query('do $$ begin execute format(\'alter database %I set synchronous_commit = on\', current_database()); end $$')
  await startService(t, { connectionString })
  await client.query(`
    alter table sipher_sessions.sessions set (autovacuum_enabled = off);
    insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
    select decode(lpad(to_hex(n), 64, '0'), 'hex'), 'key', '{}', now() - make_interval(hours => 1, secs => n * 7919 % 5000) from generate_series(1, 5000) n;
    analyze sipher_sessions.sessions`)
  const swept: { deleted: number }[] = []
  const logStream = { write: (line: string) => { if (line.includes('expired sessions swept')) swept.push(JSON.parse(line)) } }
  await startService(t, { connectionString, sweepIntervalMs: 1000, logLevel: 'debug', logStream })
  t.ok(await waitFor(async () => swept.length > 0))
  t.equal(swept[0]?.deleted, 5000, 'in one sweep')
  await client.query('set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off')
  const { rows: [{ 'QUERY PLAN': [{ Plan: plan }] }] } = await client.query('explain (analyze, buffers, format json) select from sipher_sessions.sessions where expires_at <= now() order by expires_at')
  t.match(plan, { 'Node Type': /^Index/, 'Index Name': 'sessions_expires_at' })
  const pages = plan['Shared Hit Blocks'] + plan['Shared Read Blocks']
  // What of its last ten batches somebody could see still when it ended is not marked yet.
  t.ok(pages < 1500, `${pages} pages, where 5000 rows were`)
  client.release()
})

t.test('a sweep rests after each batch, longer than it took, and the end of the app does not wait for that', async t => {
  const { service, connectionString } = await startService(t, { sweepIntervalMs: 5 })
  const pool = createPool(t, connectionString)
  await pool.query(`
    create function take_a_while() returns trigger language plpgsql as $$ begin perform pg_sleep(0.1); return null; end $$;
    create trigger take_a_while before delete on sipher_sessions.sessions for each statement execute function take_a_while()`)
  await pool.query(addSessions)
  const left = async () => (await pool.query('select count(*)::int as left from sipher_sessions.sessions')).rows[0].left
  await waitFor(async () => await left() < 1210)
  await service.close()
  t.equal(await left(), 1110, 'one batch of 100, and no second one began')
})

t.test('a sweep that fails is logged and tried again', async t => {
  const lines: { msg: string }[] = []
  const { service, connectionString } = await startService(t, { sweepIntervalMs: 5, logLevel: 'debug', logStream: { write: line => { lines.push(JSON.parse(line)) } } })
  const pool = createPool(t, connectionString)
  const logged = async (message: string) => {
    while (!lines.some(({ msg }) => msg === message)) await new Promise(resolve => setImmediate(resolve))
  }
  await pool.query('alter table sipher_sessions.sessions rename to hidden')
  await logged('sweeping expired sessions failed; the next sweep tries again')
  await pool.query('alter table sipher_sessions.hidden rename to sessions')
  await pool.query(addSessions)
  await logged('expired sessions swept')
  t.ok(service)
})

t.test('a sweep removes counts whose hour is over, whatever else it cannot remove', async t => {
  const { connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  await pool.query('insert into sipher_sessions.request_counts select \'key\' || n, now() - interval \'2 hours\', 1 from generate_series(1, 150) n')
  await pool.query('alter table sipher_sessions.sessions rename column expires_at to hidden')
  await startService(t, { connectionString, sweepIntervalMs: 5 })
  const left = async () => (await pool.query('select count(*)::int as left from sipher_sessions.request_counts')).rows[0].left
  for (const end = performance.now() + 5_000; await left() > 0 && performance.now() < end;);
  t.equal(await left(), 0)
})
