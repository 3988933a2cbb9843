import t from 'tap'
import { deleteExpiredText } from '../../src/plugins/session-statements.js'
import { createPool, startService } from '../helpers.js'

const addSessions = `
  insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
  select decode(lpad(to_hex(n), 64, '0'), 'hex'), 'key', '{}', now() + interval '1 hour' * (case when n <= 1200 then -1 else 1 end)
  from generate_series(1, 1210) n`

t.test('instances together remove what has expired, in batches, and nothing else', async t => {
  const one = await startService(t)
  const pool = createPool(t, one.connectionString)
  await pool.query(addSessions)
  await startService(t, { connectionString: one.connectionString, sweepIntervalMs: 5 })
  await startService(t, { connectionString: one.connectionString, sweepIntervalMs: 5 })
  let left = 1210
  for (let i = 0; i < 500 && left > 10; i++) left = (await pool.query('select count(*)::int as left from sipher_sessions.sessions')).rows[0].left
  t.equal(left, 10)
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
  for (let i = 0; i < 500 && (await left()).audit > 80; i++);
  t.strictSame(await left(), { changes: 80, audit: 80 })
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
  const sweep = async () => [
    await sessionRepository.deleteExpired(500), await requestCountRepository.deleteExpired(500), await auditRepository.deleteExpired(500), await auditRepository.deleteExpiredOlder(500)
  ]
  const other = await pool.connect()
  await other.query('begin')
  t.strictSame((await other.query(deleteExpiredText, [100])).rows, [{ count: 100 }])
  t.strictSame(await sweep(), [0, 0, 0, 0])
  await other.query('commit')
  other.release()
  t.strictSame(await sweep(), [500, 1, 1, 1])
})

t.test('a sweep rests after each batch, longer than it took, and the end of the app does not wait for that', async t => {
  const { service, connectionString } = await startService(t, { sweepIntervalMs: 5 })
  const pool = createPool(t, connectionString)
  await pool.query(`
    create function take_a_while() returns trigger language plpgsql as $$ begin perform pg_sleep(0.1); return null; end $$;
    create trigger take_a_while before delete on sipher_sessions.sessions for each statement execute function take_a_while()`)
  await pool.query(addSessions)
  const left = async () => (await pool.query('select count(*)::int as left from sipher_sessions.sessions')).rows[0].left
  for (let i = 0; i < 5000 && await left() === 1210; i++);
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
