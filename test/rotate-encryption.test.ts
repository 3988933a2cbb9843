import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from '@sinclair/typebox'
import type pg from 'pg'
import t from 'tap'
import { run } from '../src/commands/run.js'
import { createKeyRing, generateEncryptionKey } from '../src/encryption.js'
import { timePrefixedId } from '../src/ids.js'
import { createSessionSecrets } from '../src/repositories/session-secrets.js'
import { rotateEncryption } from '../src/rotate-encryption.js'
import { presetDefaults } from '../src/schemas/session.js'
import { createDatabase, createKey, createPool, createProxy, createSession, startService } from './helpers.js'

// Ten seconds, but a hundred where the machine has much else to do.
t.setTimeout(300_000)

const [old, current] = [generateEncryptionKey(), generateEncryptionKey()] as const
const currentPrefix = createKeyRing([current]).currentPrefix

/** Sessions of an owner with a secret each, under the old key; returns their ids. */
async function insertSessions (pool: pg.Pool, ownerId: string, count: number): Promise<string[]> {
  const secrets = createSessionSecrets(presetDefaults, createKeyRing([old]))
  const ids: Buffer[] = []
  for (let done = 0; done < count; done += 10_000) {
    const batch = Array.from({ length: Math.min(10_000, count - done) }, () => timePrefixedId(32))
    const sealed = batch.map((id, i) => JSON.stringify(secrets.seal({ id, ownerId }, { defaultViewingKey: `0x${done + i + 1_000_000}` }).secrets))
    await pool.query(`
      insert into sipher_sessions.sessions (id, owner_id, defaults, secrets, expires_at)
      select id, $2, '{"chain": "near"}', secrets, now() + interval '1 hour' from unnest($1::bytea[], $3::jsonb[]) as session (id, secrets)`, [batch, ownerId, sealed])
    ids.push(...batch)
  }
  return ids.map(id => `sess_${id.toString('hex')}`)
}

async function countUnder (pool: pg.Pool, prefix: string): Promise<number> {
  const { rows } = await pool.query('select count(*)::int as count from sipher_sessions.sessions where starts_with(secrets ->> \'defaultViewingKey\', $1)', [prefix])
  return rows[0].count
}

t.test('100,000 sessions are encrypted anew while the service reads, patches and deletes them, and nothing is lost', async t => {
  // Whatever else the machine does meanwhile, this is not about the time that a request may take.
  const options = { rateLimit: false, timeoutMs: 10_000 }
  const { service, connectionString } = await startService(t, { ...options, encryptionKeys: [current, old] })
  const { service: behind } = await startService(t, { ...options, connectionString, encryptionKeys: [old, current] })
  const { id: ownerId, key, headers } = await createKey(service)
  const pool = createPool(t, connectionString)
  const ids = await insertSessions(pool, ownerId, 100_000)
  const expected = new Map(ids.map((id, i) => [id, `0x${i + 1_000_000}`]))
  t.equal(await countUnder(pool, currentPrefix), 0)

  let finished = false
  const batches = new EventEmitter()
  const counts = { read: 0, patched: 0, deleted: 0, other: 0 }
  /** Requests one after another, anywhere among the sessions, a few during each batch. */
  async function work (instance: typeof service, number: number): Promise<void> {
    let sent = 0
    for (let i = number; !finished; i += 7919) {
      // Every other one is about where the next batch is.
      const at = sent % 2 === 0 ? i * 104_729 : (progress.at(-1) ?? 0) + i % 1000
      const sessionId = ids[at % ids.length]!
      if (!expected.has(sessionId)) continue
      const defaultViewingKey = `0x${randomBytes(6).toString('hex')}`
      const url = `/v1/sessions/${sessionId}`
      const kind = i % 5
      // The other one may be at work on the same session: each has sessions of its own.
      if (Number.parseInt(sessionId.slice(-2), 16) % 2 !== number) continue
      if (++sent % 5 === 0) await once(batches, 'batch')
      const response = kind === 0
        ? await instance.inject({ method: 'DELETE', url, headers })
        : await instance.inject({ method: kind < 3 ? 'PATCH' : 'GET', url, headers, ...(kind < 3 && { payload: { defaults: kind === 1 ? { defaultViewingKey } : { chain: 'sui' } } }) })
      if (response.statusCode !== 200) counts.other++
      else if (kind === 0) counts.deleted++
      else if (response.json().data.defaults.defaultViewingKey !== (kind === 1 ? defaultViewingKey : expected.get(sessionId))) counts.other++
      else if (kind < 3) counts.patched++
      else counts.read++
      if (kind === 0) expected.delete(sessionId)
      if (kind === 1) expected.set(sessionId, defaultViewingKey)
    }
  }
  const progress: number[] = []
  const working = [work(service, 0), work(behind, 1)]
  const result = await rotateEncryption(pool, [current, old], {
    onProgress (rotated) {
      progress.push(rotated)
      batches.emit('batch')
    }
  })
  finished = true
  batches.emit('batch')
  await Promise.all(working)

  t.strictSame({ ...result, rotated: 0 }, { rotated: 0, unreadable: [], busy: 0 })
  t.ok(result.rotated > 90_000, `${result.rotated} rotated`)
  t.ok(progress.length >= 200 && progress.every((rotated, i) => i === 0 || rotated >= progress[i - 1]!), 'progress goes up')
  t.equal(counts.other, 0, 'no request failed or was answered another value')
  t.ok(counts.read > 10 && counts.patched > 10 && counts.deleted > 10, JSON.stringify(counts))

  // What the instance that was behind has patched since; the next run finds just that.
  await rotateEncryption(pool, [current, old])
  t.equal(await countUnder(pool, currentPrefix), expected.size, 'all of those that are left, and no deleted one came back')
  const { service: after } = await startService(t, { ...options, connectionString, encryptionKeys: [current] })
  const secrets = createSessionSecrets(presetDefaults, createKeyRing([current]))
  const { rows } = await pool.query('select id, owner_id as "ownerId", secrets from sipher_sessions.sessions')
  t.equal(rows.length, expected.size)
  t.ok(rows.every(row => secrets.open(row, {}, row.secrets).defaultViewingKey === expected.get(`sess_${row.id.toString('hex')}`)), 'each with the value that was last acknowledged')
  const [sessionId] = expected.keys()
  t.equal((await after.inject({ url: `/v1/sessions/${sessionId}`, headers })).json().data.defaults.defaultViewingKey, expected.get(sessionId!), 'without the old key')

  const before = await pool.query('select xmin::text from sipher_sessions.sessions where id = decode($1, \'hex\')', [sessionId!.slice(5)])
  t.strictSame(await rotateEncryption(pool, [current, old]), { rotated: 0, unreadable: [], busy: 0 }, 'another run')
  t.strictSame((await pool.query('select xmin::text from sipher_sessions.sessions where id = decode($1, \'hex\')', [sessionId!.slice(5)])).rows, before.rows, 'touches nothing')
  t.ok(await createSession(service, key))
})

t.test('what was stopped is gone on with, and two runs at once share the work', async t => {
  const pool = createPool(t, await createDatabase(t))
  await insertSessions(pool, 'ann', 500)
  await t.rejects(rotateEncryption(pool, [current, old], { batchSize: 50, onProgress: rotated => { if (rotated >= 100) throw new Error('stopped') } }), { message: 'stopped' })
  t.equal(await countUnder(pool, currentPrefix), 100)
  const results = await Promise.all([1, 2].map(() => rotateEncryption(pool, [current, old], { batchSize: 50 })))
  t.equal(results[0]!.rotated + results[1]!.rotated, 400)
  t.equal(await countUnder(pool, currentPrefix), 500)
})

t.test('a session that is being changed is left alone and come back to', async t => {
  const pool = createPool(t, await createDatabase(t))
  const [sessionId] = await insertSessions(pool, 'ann', 10)
  const locker = await pool.connect()
  await locker.query('begin')
  await locker.query('select 1 from sipher_sessions.sessions where id = decode($1, \'hex\') for update', [sessionId!.slice(5)])
  t.strictSame(await rotateEncryption(pool, [current, old], { patienceMs: 10 }), { rotated: 9, unreadable: [], busy: 1 })
  const patient = rotateEncryption(pool, [current, old])
  await locker.query('rollback')
  locker.release()
  t.strictSame(await patient, { rotated: 1, unreadable: [], busy: 0 })
})

t.test('a session that cannot be read is left as it is and told of, without its values', async t => {
  const pool = createPool(t, await createDatabase(t))
  const [sessionId] = await insertSessions(pool, 'ann', 3)
  await pool.query('update sipher_sessions.sessions set secrets = \'{"defaultViewingKey": "0xfeed"}\' where id = decode($1, \'hex\')', [sessionId!.slice(5)])
  const { rotated, unreadable, busy } = await rotateEncryption(pool, [current, old])
  t.strictSame({ rotated, busy }, { rotated: 2, busy: 0 })
  t.match(unreadable, [/^The secret "defaultViewingKey" of the session sess_[0-9a-f]{12}… is no ciphertext/])
  t.equal(unreadable.length, 1)
  t.notMatch(unreadable[0], '0xfeed')

  const lost = await rotateEncryption(pool, [generateEncryptionKey()])
  t.equal(lost.rotated, 0)
  t.equal(lost.unreadable.length, 3, 'without the key before it nothing is written')
  t.equal(await countUnder(pool, currentPrefix), 2)
})

t.test('what has expired, holds no secret or is under the first key already is not touched', async t => {
  const { service, connectionString } = await startService(t, { encryptionKeys: [current], defaults: Type.Object({ a: Type.Optional(Type.String()), ...presetDefaults.properties }) })
  const { key } = await createKey(service)
  const pool = createPool(t, connectionString)
  const [expired] = await insertSessions(pool, 'ann', 1)
  await pool.query('update sipher_sessions.sessions set expires_at = now() where id = decode($1, \'hex\')', [expired!.slice(5)])
  await createSession(service, key, { a: 'b' })
  await createSession(service, key, { defaultViewingKey: '0x1' })
  t.strictSame(await rotateEncryption(pool, [current, old]), { rotated: 0, unreadable: [], busy: 0 })
})

t.test('without a key there is nothing to encrypt under', async t => {
  await t.rejects(rotateEncryption({ query: async () => t.fail('asks nothing') as never }, []), { name: 'KeyRingError', message: 'there is no key.' })
})

/** The built command, as `npm run rotate-encryption` runs it. */
function runCommand (environment: Record<string, string>, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/cli.js', 'rotate-encryption', ...args], { env: { ...process.env, ...environment }, encoding: 'utf8' })
  return { status, stdout, stderr }
}

t.test('the command says how far it is and how it ended', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  const environment = { DATABASE_URL: connectionString, SESSION_ENCRYPTION_KEYS: `${current},${old}` }
  const ids = await insertSessions(pool, 'ann', 10_012)
  t.strictSame(runCommand(environment), {
    status: 0,
    stdout: '10000 sessions encrypted anew so far\n10012 sessions encrypted anew. All are under the first key now.\n',
    stderr: ''
  })
  t.strictSame(runCommand(environment, '--json'), { status: 0, stdout: '{"rotated":0,"unreadable":0,"busy":0}\n', stderr: '' })

  await pool.query('update sipher_sessions.sessions set secrets = \'{"defaultViewingKey": "0xfeed"}\' where id = any ($1)', [ids.slice(0, 12).map(id => Buffer.from(id.slice(5), 'hex'))])
  const { status, stdout, stderr } = runCommand(environment)
  t.equal(status, 1)
  t.equal(stdout, '0 sessions encrypted anew. 12 could not be read, 0 were being changed all the time; run it again when that is mended.\n')
  t.match(stderr, /^(?:The secret "defaultViewingKey" of the session sess_[0-9a-f]{12}… is no ciphertext.*\n){10}… and 2 more\.\n$/)
})

t.test('the command works beside the service whatever the user of the database is set to', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  await insertSessions(pool, 'ann', 1)
  const name = new URL(connectionString).pathname.slice(1)
  await pool.query(`
    alter database ${name} set default_transaction_isolation = 'repeatable read';
    alter database ${name} set statement_timeout = '20s';
    alter database ${name} set lock_timeout = '1ms';
    create function refuse_settings () returns trigger language plpgsql as $$
    begin
      if (current_setting('transaction_isolation'), current_setting('statement_timeout'), current_setting('lock_timeout')) <> ('read committed', '0', '0') then
        raise 'a statement is bound by settings';
      end if;
      return new;
    end $$;
    create trigger refuse_settings before update on sipher_sessions.sessions for each row execute function refuse_settings()`)
  const environment = { DATABASE_URL: connectionString, SESSION_ENCRYPTION_KEYS: `${current},${old}` }
  t.strictSame(runCommand(environment), { status: 0, stdout: '1 sessions encrypted anew. All are under the first key now.\n', stderr: '' })
  await pool.query('create or replace function refuse_settings () returns trigger language plpgsql as $$ begin raise \'refused\'; end $$')
  await insertSessions(pool, 'ann', 1)
  t.match(runCommand(environment), { status: 1, stdout: '', stderr: /refused/ })
  await pool.query('create or replace function refuse_settings () returns trigger language plpgsql as $$ begin perform pg_sleep(60); return new; end $$')
  const { connectionString: proxied, cut } = await createProxy(t, connectionString)
  let told = ''
  const ended = run(['rotate-encryption'], { environment: { ...environment, DATABASE_URL: proxied }, out: () => {}, err: text => { told += text } })
  while ((await pool.query('select from pg_stat_activity where datname = current_database() and wait_event = \'PgSleep\'')).rowCount === 0) await sleep(20)
  cut()
  t.equal(await ended, 1)
  t.equal(told, 'The database of DATABASE_URL cannot be used: what answers there ended the connection (Connection terminated unexpectedly). Is it a PostgreSQL?\n')
})

t.test('the command has failed while others are changing sessions all the time', async t => {
  const connectionString = await createDatabase(t)
  const pool = createPool(t, connectionString)
  const [sessionId] = await insertSessions(pool, 'ann', 2)
  const locker = await pool.connect()
  await locker.query('begin')
  await locker.query('select 1 from sipher_sessions.sessions where id = decode($1, \'hex\') for update', [sessionId!.slice(5)])
  t.strictSame(runCommand({ DATABASE_URL: connectionString, SESSION_ENCRYPTION_KEYS: `${current},${old}` }), {
    status: 1,
    stdout: '1 sessions encrypted anew. 0 could not be read, 1 were being changed all the time; run it again when that is mended.\n',
    stderr: ''
  })
  locker.release(true)
})

t.test('what is wrong with the command\'s arguments and environment is told in a sentence', async t => {
  const connectionString = await createDatabase(t)
  const environment = { DATABASE_URL: connectionString, SESSION_ENCRYPTION_KEYS: current }
  const cases: [environment: Record<string, string>, args: string[], status: number, stderr: string][] = [
    [environment, ['--jsn'], 2, 'Unknown option \'--jsn\'. See: sipher-sessions rotate-encryption --help\n'],
    [{ ...environment, DATABASE_URL: '' }, [], 1, 'Set DATABASE_URL to the database to go through.\n'],
    [{ ...environment, SESSION_ENCRYPTION_KEYS: '' }, [], 1, 'Set SESSION_ENCRYPTION_KEYS as for the service: the new key first, then those before it.\n']
  ]
  for (const [environment, args, status, stderr] of cases) t.strictSame(runCommand(environment, ...args), { status, stdout: '', stderr })
})
