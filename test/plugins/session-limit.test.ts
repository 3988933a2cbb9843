import t from 'tap'
import { answer, createKey, createPool, createSession, failure, startService } from '../helpers.js'

const full = failure(409, 'SESSION_LIMIT_REACHED', 'This key has 5 sessions, which is as many as it may have at the same time. Delete one, or wait until one expires.')
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
  t.equal(await service.sessionRepository.deleteExpired(10), 5, 'and the sweep keeps count')
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
