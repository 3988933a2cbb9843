import Fastify, { type FastifyRequest } from 'fastify'
import t from 'tap'
import sipherSessions, { type Tier } from '../../src/index.js'
import { answer, createDatabase, createKey, createPool, createSession, encryptionKeys, failure, startService } from '../helpers.js'

const full = failure(409, 'SESSION_LIMIT_REACHED', 'This key may have 5 sessions at the same time, and has as many or more. Delete some, or wait until they expire.')
const limited = { tierLimits: { pro: { maxSessions: 5 }, enterprise: { maxSessions: 8 } } }

t.test('of 40 sessions that are created at once through two instances exactly as many are stored as the limit allows', async t => {
  const one = await startService(t, limited)
  const two = await startService(t, { ...limited, connectionString: one.connectionString })
  const pool = createPool(t, one.connectionString)
  const keys = [await createKey(one.service), await createKey(one.service), await createKey(one.service, 'enterprise')]
  const responses = await Promise.all(Array.from({ length: 120 }, (_, i) =>
    [one, two][i % 2]!.service.inject({ method: 'POST', url: '/v1/sessions', headers: keys[i % 3]!.headers, payload: { defaults: {} } })))
  for (const [i, max] of [5, 5, 8].entries()) {
    const own = responses.filter((_, number) => number % 3 === i)
    t.equal(own.filter(({ statusCode }) => statusCode === 201).length, max)
    t.equal(own.filter(({ statusCode }) => statusCode === 409).length, 40 - max)
  }
  const { rows } = await pool.query('select owner_id, count(*)::int as sessions from sipher_sessions.sessions group by 1 order by 1')
  t.strictSame(rows, (await pool.query('select owner_id, sessions from sipher_sessions.session_counts order by 1')).rows, 'and the counts are those of the rows')
})

t.test('a session that is deleted or has expired makes room for another, at once', async t => {
  const { service, connectionString } = await startService(t, limited)
  const pool = createPool(t, connectionString)
  const { key, headers } = await createKey(service)
  const create = () => service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
  const limits = async () => (await service.inject({ url: '/v1/limits', headers })).json().data.sessions
  const ids: string[] = []
  for (let i = 0; i < 5; i++) ids.push(await createSession(service, key))
  t.strictSame(answer(await create()), full)
  t.strictSame(await limits(), { live: 5, remaining: 0 })

  const remove = () => service.inject({ method: 'DELETE', url: `/v1/sessions/${ids[0]}`, headers })
  t.strictSame((await Promise.all([remove(), remove()])).map(({ statusCode }) => statusCode).sort(), [200, 404], 'of two that delete it one has')
  t.strictSame(await limits(), { live: 4, remaining: 1 })
  t.equal((await create()).statusCode, 201)
  t.equal((await create()).statusCode, 409)

  await pool.query('update sipher_sessions.sessions set expires_at = now() - interval \'1 second\' where id = $1', [Buffer.from(ids[1]!.slice(5), 'hex')])
  t.strictSame(await limits(), { live: 4, remaining: 1 }, 'what has expired and was not swept yet does not count')
  t.equal((await create()).statusCode, 201)
  t.equal((await create()).statusCode, 409)
  t.strictSame((await pool.query('select sessions from sipher_sessions.session_counts')).rows, [{ sessions: 5 }])

  await pool.query('update sipher_sessions.sessions set expires_at = now() - interval \'1 second\'')
  t.match(await service.sessionRepository.deleteExpired(10), { count: 5 }, 'and the sweep keeps count')
  t.strictSame((await pool.query('select sessions from sipher_sessions.session_counts')).rows, [{ sessions: 0 }])
})

t.test('what was deleted is taken off the count once, whoever comes to it, and never refused its room meanwhile', async t => {
  const one = await startService(t, { ...limited, sweepIntervalMs: 2 })
  const two = await startService(t, { ...limited, sweepIntervalMs: 2, connectionString: one.connectionString })
  const pool = createPool(t, one.connectionString)
  const keys = await Promise.all([1, 2, 3].map(() => createKey(one.service)))
  let running = true
  let most = 0
  const watching = (async () => {
    while (running) most = Math.max(most, ...(await pool.query('select count(*)::int from sipher_sessions.sessions group by owner_id')).rows.map(({ count }) => count))
  })()
  // Each key has as many sessions as it may, and replaces them over and over, at the same time and through both instances.
  await Promise.all(keys.flatMap(({ key, headers }) => Array.from({ length: 5 }, async (_, n) => {
    let id = await createSession(one.service, key)
    for (let i = 0; i < 60; i++) {
      const { service } = [one, two][(n + i) % 2]!
      const removed = await service.inject({ method: 'DELETE', url: `/v1/sessions/${id}`, headers })
      const created = await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
      if (removed.statusCode !== 200 || created.statusCode !== 201) throw new Error(`${removed.body} ${created.body}`)
      id = created.json().data.sessionId
    }
    await one.service.inject({ method: 'DELETE', url: `/v1/sessions/${id}`, headers })
  })))
  running = false
  await watching
  t.equal(most, 5)
  await Promise.all([one, two].map(({ service }) => service.close()))
  const { service } = await startService(t, { ...limited, connectionString: one.connectionString })
  await Promise.all([1, 2, 3].map(() => service.sessionRepository.uncountRemoved(1000)))
  t.strictSame((await pool.query('select sessions from sipher_sessions.session_counts')).rows, Array(3).fill({ sessions: 0 }))
})

t.test('what was deleted is taken off the counts some at a time, so that a sweep of much of it can rest', async t => {
  const { service, connectionString } = await startService(t, limited)
  const { id } = await createKey(service)
  await createPool(t, connectionString).query('insert into sipher_sessions.session_removals select array[$1] from generate_series(1, 3)', [id])
  for (const count of [2, 1, 0]) t.strictSame(await service.sessionRepository.uncountRemoved(2), { count, last: null })
})

t.test('room that another statement is about to make is waited for', async t => {
  const { service, connectionString } = await startService(t, limited)
  const pool = createPool(t, connectionString)
  const { id, key, headers } = await createKey(service)
  for (let i = 0; i < 5; i++) await createSession(service, key)
  // An instance has deleted one and ended.
  await pool.query('delete from sipher_sessions.sessions where id = (select id from sipher_sessions.sessions limit 1)')
  await pool.query('insert into sipher_sessions.session_removals values (array[$1])', [id])
  const other = await pool.connect()
  await other.query('begin')
  // The two halves of its one statement.
  await other.query('delete from sipher_sessions.session_removals')
  let statusCode = 0
  const created = service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } }).then(response => { statusCode = response.statusCode })
  while (statusCode === 0 && (await pool.query('select from pg_locks where not granted')).rowCount === 0);
  await other.query('update sipher_sessions.session_counts set sessions = sessions - 1')
  await other.query('commit')
  other.release()
  await created
  t.equal(statusCode, 201)
})

t.test('room that others take first is looked for again, while they make some', async t => {
  const { service, connectionString } = await startService(t, limited)
  const pool = createPool(t, connectionString)
  const { id, key, headers } = await createKey(service)
  for (let i = 0; i < 5; i++) await createSession(service, key)
  await pool.query('delete from sipher_sessions.sessions where id = (select id from sipher_sessions.sessions limit 1)')
  await pool.query('insert into sipher_sessions.session_removals values (array[$1])', [id])
  // Twice somebody else creates a session in the room that is made, and deletes one.
  await pool.query(`
    create table taken (time timestamptz);
    create function take () returns trigger language plpgsql as $$
      begin
        if new.sessions < old.sessions and (select count(*) from taken) < 2 then
          insert into taken values (now());
          insert into sipher_sessions.session_removals values (array[new.owner_id]);
          new.sessions = old.sessions;
        end if;
        return new;
      end $$;
    create trigger take before update on sipher_sessions.session_counts for each row execute function take()`)
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 201)
  t.equal((await pool.query('select from taken')).rowCount, 2)
})

t.test('where expired sessions cannot be removed for long, a client that needs their room is told to try again', async t => {
  const { service, connectionString } = await startService(t, limited)
  const pool = createPool(t, connectionString)
  const { key, headers } = await createKey(service)
  const create = () => service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
  for (let i = 0; i < 5; i++) await createSession(service, key)
  await pool.query('update sipher_sessions.sessions set expires_at = now() - interval \'1 second\'')
  const sweep = await pool.connect()
  await sweep.query('begin')
  await sweep.query('select from sipher_sessions.sessions for update')
  const response = await create()
  t.equal(response.statusCode, 503)
  t.equal(response.headers['retry-after'], '1')
  const created = create()
  await sweep.query('rollback')
  sweep.release()
  t.equal((await created).statusCode, 201)
})

t.test('a deletion is soon taken off the count, and one whose instance has ended by the sweep', async t => {
  const { service, connectionString } = await startService(t, limited)
  const pool = createPool(t, connectionString)
  const { id, key, headers } = await createKey(service)
  const counted = async () => (await pool.query('select sessions, (select count(*)::int from sipher_sessions.session_removals) as removals from sipher_sessions.session_counts')).rows
  const ids = await Promise.all([1, 2, 3].map(() => createSession(service, key)))
  await Promise.all(ids.slice(1).map(id => service.inject({ method: 'DELETE', url: `/v1/sessions/${id}`, headers })))
  await service.sessionRepository.settled()
  t.strictSame(await counted(), [{ sessions: 1, removals: 0 }])

  await pool.query('delete from sipher_sessions.sessions')
  await pool.query('insert into sipher_sessions.session_removals values (array[$1])', [id])
  await startService(t, { connectionString, sweepIntervalMs: 5 })
  while ((await counted())[0].removals > 0);
  t.strictSame(await counted(), [{ sessions: 0, removals: 0 }])
})

t.test('where deletions cannot be taken off the counts a warning says so, and nothing is lost', async t => {
  const lines: { msg: string }[] = []
  const { service, connectionString } = await startService(t, { ...limited, logLevel: 'warn', logStream: { write: line => { lines.push(JSON.parse(line)) } } })
  const pool = createPool(t, connectionString)
  const { key, headers } = await createKey(service)
  const remove = async () => service.inject({ method: 'DELETE', url: `/v1/sessions/${await createSession(service, key)}`, headers })
  await pool.query('alter table sipher_sessions.session_counts add constraint none check (sessions > 0)')
  t.equal((await remove()).statusCode, 200)
  await service.sessionRepository.settled()
  t.strictSame(lines.map(({ msg }) => msg), ['taking deleted sessions off the counts failed; the next sweep tries again'])
  await pool.query('alter table sipher_sessions.session_counts drop constraint none')
  t.equal((await remove()).statusCode, 200)
  await service.sessionRepository.settled()
  t.strictSame((await pool.query('select sessions from sipher_sessions.session_counts')).rows, [{ sessions: 0 }])
})

t.test('a limit that is lowered takes no session away, and lets none be added', async t => {
  const { service, connectionString } = await startService(t, limited)
  const { key, headers } = await createKey(service)
  for (let i = 0; i < 3; i++) await createSession(service, key)
  const { service: lower } = await startService(t, { connectionString, tierLimits: { pro: { maxSessions: 2 } } })
  t.strictSame((await lower.inject({ url: '/v1/limits', headers })).json().data.sessions, { live: 3, remaining: 0 })
  t.equal((await lower.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 409)
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 201)
})

t.test('of sessions that are created at once one that cannot be stored fails alone', async t => {
  const { Type } = await import('@sinclair/typebox')
  const { service } = await startService(t, { defaults: Type.Object({ text: Type.String() }) })
  const { headers } = await createKey(service)
  const responses = await Promise.all(['a', 'b\u0000', 'c', 'd'].map(text =>
    service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: { text } } })))
  t.strictSame(responses.map(({ statusCode }) => statusCode), [201, 400, 201, 201])
  const ids = responses.filter(({ statusCode }) => statusCode === 201).map(response => response.json().data.sessionId as string)
  const patches = await Promise.all(['x', 'y\u0000', 'z'].map((text, i) =>
    service.inject({ method: 'PATCH', url: `/v1/sessions/${ids[i]}`, headers, payload: { defaults: { text } } })))
  t.strictSame(patches.map(response => response.json().data?.defaults ?? response.statusCode), [{ text: 'x' }, 400, { text: 'z' }])
  t.strictSame((await service.inject({ url: '/v1/limits', headers })).json().data.sessions.live, 3, 'and counts as none')
})

t.test('who is refused a session by a lowered limit changes no count', async t => {
  const { service, connectionString } = await startService(t)
  const { key, headers } = await createKey(service)
  for (let i = 0; i < 3; i++) await createSession(service, key)
  const { service: lower } = await startService(t, { connectionString, tierLimits: { pro: { maxSessions: 1 } } })
  t.equal((await lower.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })).statusCode, 409)
  t.strictSame((await lower.inject({ url: '/v1/limits', headers })).json().data.sessions, { live: 3, remaining: 0 })
})

t.test('of creations at the same time by different limits none goes by another one\'s', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  const identify = ({ headers }: FastifyRequest) => ({ id: 'ann', tier: headers['x-tier'] as Tier })
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, identify, tierLimits: { pro: { maxSessions: 2 }, enterprise: { maxSessions: 4 } } })
  const create = async (tier: string) => (await host.inject({ method: 'POST', url: '/v1/sessions', headers: { 'x-tier': tier }, payload: { defaults: {} } })).statusCode
  for (let i = 0; i < 3; i++) t.equal(await create('enterprise'), 201)
  t.strictSame(await Promise.all(['pro', 'enterprise', 'pro'].map(create)), [409, 201, 409])
  t.strictSame(await Promise.all(['enterprise', 'pro'].map(create)), [409, 409])
})
