import t from 'tap'
import { noteAccessText } from '../../../src/repositories/session-statements.js'
import { answer, createKey, createPool, createSession, failure, startService } from '../../helpers.js'

t.test('GET /v1/sessions/{id} answers what the session holds', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { chain: 'sui', backend: 'sip-native' })

  const response = await service.inject({ url: `/v1/sessions/${sessionId}`, headers })

  const { createdAt, expiresAt, lastAccessedAt } = response.json().data
  t.strictSame(answer(response), {
    status: 200,
    body: { success: true, data: { sessionId, defaults: { chain: 'sui', backend: 'sip-native' }, createdAt, expiresAt, lastAccessedAt } }
  })
  t.equal(expiresAt - createdAt, 3_600_000)
  t.equal(lastAccessedAt, createdAt)
})

t.test('lastAccessedAt moves when the owner uses the session, at most once a minute', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  const { key, headers } = await createKey(service)
  const other = await createKey(service)
  const sessionId = await createSession(service, key)
  const writes = async () => (await pool.query('select xmin::text from sipher_sessions.sessions')).rows[0].xmin
  const get = async (headers: Record<string, string>) => (await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).json().data

  const created = await writes()
  await get(headers)
  t.equal(await writes(), created, 'within a minute nothing is written')

  await pool.query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'61 seconds\'')
  const aged = await writes()
  await get(other.headers)
  await service.sessionRepository.settled()
  t.equal(await writes(), aged, 'another key\'s probe moves nothing')

  const now = async () => (await pool.query('select floor(extract(epoch from clock_timestamp()) * 1000)::float8 as now')).rows[0].now
  const before = await now()
  const answers = await Promise.all(Array.from({ length: 20 }, () => get(headers)))
  const after = await now()
  for (const { lastAccessedAt } of answers) t.ok(lastAccessedAt >= before && lastAccessedAt <= after, 'the answer has the time of this access')
  await service.sessionRepository.settled()
  t.not(await writes(), aged)
  const { lastAccessedAt } = await get(headers)
  t.ok(answers.every(answer => answer.lastAccessedAt <= lastAccessedAt), 'and a later one never an earlier time')
  t.ok(lastAccessedAt - before < 5_000)
})

t.test('what names a session uses it: that is noted at most once a minute, and waited for by nobody', async t => {
  const lines: string[] = []
  const { service, connectionString } = await startService(t, { logLevel: 'warn', logStream: { write: line => { lines.push(line) } } })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const pool = createPool(t, connectionString)
  const age = async () => pool.query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'61 seconds\'')
  const isStale = async () => (await pool.query('select last_accessed_at < now() - interval \'1 minute\' as stale from sipher_sessions.sessions')).rows[0].stale
  const use = async () => t.equal((await service.inject({ url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId } })).statusCode, 200)

  await age()
  await Promise.all([use(), use()])
  await service.sessionRepository.settled()
  t.equal(await isStale(), false)

  await age()
  const changing = await pool.connect()
  await changing.query('begin')
  await changing.query('select 1 from sipher_sessions.sessions for update')
  await use()
  await service.sessionRepository.settled()
  await changing.query('rollback')
  changing.release()
  t.equal(await isStale(), true, 'a row that is held is left alone')
  t.strictSame(lines, [])

  await pool.query('create function refuse() returns trigger language plpgsql as $$ begin raise \'no\'; end $$; create trigger refuse before update on sipher_sessions.sessions execute function refuse()')
  await use()
  await service.sessionRepository.settled()
  t.match(lines.map(line => JSON.parse(line)), [{ msg: 'noting when sessions were last used failed; their next use tries again', err: { message: 'no' } }])
  await pool.query('drop trigger refuse on sipher_sessions.sessions')
  await use()
  await service.close()
  t.equal(await isStale(), false, 'what is under way when the service ends is still noted')
})

t.test('an access to a session that is being changed is not noted, and waits for nothing', async t => {
  const { service, connectionString } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const pool = createPool(t, connectionString)
  await pool.query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'1 hour\'')
  const changing = await pool.connect()
  await changing.query('begin')
  await changing.query('select 1 from sipher_sessions.sessions for update')
  const { lastAccessedAt } = (await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).json().data
  await service.sessionRepository.settled()
  await changing.query('rollback')
  changing.release()
  t.ok(Date.now() - lastAccessedAt < 60_000)
  const { rows: [{ age }] } = await pool.query('select extract(epoch from now() - last_accessed_at)::float8 as age from sipher_sessions.sessions')
  t.ok(age > 3_500)
})

t.test('an access is noted of the session that was read, not of one that has taken its place since', async t => {
  const { service, connectionString } = await startService(t)
  const { key } = await createKey(service)
  const [sessionId, successor] = [await createSession(service, key), await createSession(service, key)]
  const pool = createPool(t, connectionString)
  await pool.query('update sipher_sessions.sessions set last_accessed_at = now() - interval \'1 hour\'')
  const bytes = (id: string) => `\\x${id.slice('sess_'.length)}`
  const { rows: [{ ctid }] } = await pool.query('select ctid from sipher_sessions.sessions where id = $1', [bytes(successor)])
  const noteAt = async (id: string) => (await service.sessionDatabase.query(noteAccessText, [[ctid], `{"\\${bytes(id)}"}`])).rowCount
  t.equal(await noteAt(sessionId), 0)
  t.equal(await noteAt(successor), 1)
  t.equal(await noteAt(successor), 0, 'where it was')
})

t.test('a bad id is a 400', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service)
  for (const id of ['nope', `sess_${'0'.repeat(63)}`, `sess_${'A'.repeat(64)}`, `sess_${'0'.repeat(2000)}`, '%00']) {
    const details = [{ field: 'id', reason: 'must match pattern "^sess_[0-9a-f]{64}$"' }]
    for (const method of ['GET', 'PATCH', 'DELETE'] as const) {
      const response = await service.inject({ method, url: `/v1/sessions/${id}`, headers, ...(method === 'PATCH' && { payload: { defaults: {} } }) })
      t.strictSame(answer(response), failure(400, 'VALIDATION_ERROR', `The path is not valid: id ${details[0]!.reason}`, details), `${method} ${id.slice(0, 70)}`)
    }
  }
})

t.test('HEAD is a GET without its body', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const url = `/v1/sessions/${await createSession(service, key)}`
  t.equal((await service.inject({ method: 'HEAD', url, headers })).statusCode, 200)
  t.equal((await service.inject({ method: 'HEAD', url })).statusCode, 401)
})
