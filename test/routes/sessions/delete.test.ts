import t from 'tap'
import { answer, createKey, createSession, failure, startService } from '../../helpers.js'

const notFound = failure(404, 'SESSION_NOT_FOUND', 'There is no such session for this key. It may have expired or been deleted; create a new one with POST /v1/sessions.')

t.test('DELETE /v1/sessions/{id} ends the session', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const url = `/v1/sessions/${sessionId}`

  t.strictSame(answer(await service.inject({ method: 'DELETE', url, headers })), { status: 200, body: { success: true, data: { sessionId, deleted: true } } })

  t.strictSame(answer(await service.inject({ method: 'DELETE', url, headers })), notFound)
  t.strictSame(answer(await service.inject({ url, headers })), notFound)
  t.strictSame(answer(await service.inject({ method: 'PATCH', url, headers, payload: { defaults: {} } })), notFound)
})

t.test('DELETE with a JSON content type and no body works, as generated clients send it', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const response = await service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers: { ...headers, 'content-type': 'application/json' } })
  t.strictSame(answer(response), { status: 200, body: { success: true, data: { sessionId, deleted: true } } })
})

t.test('what a client sends in the body of a DELETE is left unread', async t => {
  const { service } = await startService(t)
  const { key, headers } = await createKey(service)
  for (const [type, payload] of [['application/json', '{"defaults":'], ['text/plain', 'x'], ['application/json', 'x'.repeat(100_000)], ['a', 'x'], ['a', undefined]] as const) {
    const url = `/v1/sessions/${await createSession(service, key)}`
    t.equal((await service.inject({ method: 'DELETE', url, headers: { ...headers, 'content-type': type }, ...(payload && { payload }) })).statusCode, 200, type)
  }
})

t.test('once the 2xx of a delete is out, no instance uses the session: 1,000 rounds', async t => {
  const one = await startService(t, { rateLimit: false })
  const two = await startService(t, { rateLimit: false, connectionString: one.connectionString })
  const { key, headers } = await createKey(one.service)
  const use = (sessionId: string) => two.service.inject({ url: '/v1/errors', headers: { ...headers, 'x-session-id': sessionId } })
  let late = 0
  let served = 0

  const round = async (usesBefore: number) => {
    const sessionId = await createSession(one.service, key)
    let deleted = false
    let used = () => {}
    const usedEnough = new Promise<void>(resolve => { used = resolve })
    const user = (async () => {
      for (let uses = 1; ; uses++) {
        const begunAfterDelete = deleted
        const { statusCode } = await use(sessionId)
        if (statusCode !== 200) return
        served++
        if (begunAfterDelete) late++
        if (uses === usesBefore) used()
      }
    })()
    await usedEnough
    const { statusCode } = await one.service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })
    deleted = true
    const after = await use(sessionId)
    if (statusCode !== 200 || after.statusCode !== 404) late++
    await user
  }
  for (let i = 0; i < 1000; i += 25) await Promise.all(Array.from({ length: 25 }, (_, j) => round(1 + j % 4)))

  t.equal(late, 0, 'uses accepted after the 2xx')
  t.ok(served > 2500, `the race was on: ${served} uses`)
})
