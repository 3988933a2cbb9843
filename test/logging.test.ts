import { Type } from '@sinclair/typebox'
import { pino } from 'pino'
import t from 'tap'
import { loggerOptions, RequestLog, scrub } from '../src/logging.js'
import { adminKey, createKey, createPool, createSession, startService } from './helpers.js'

t.test('keys, viewing keys and session ids appear in no log line at any level, whatever goes wrong', async t => {
  const lines: string[] = []
  const { service, connectionString } = await startService(t, { logLevel: 'trace', logStream: { write: line => { lines.push(line) } }, defaults: Type.Object({ defaultViewingKey: Type.Optional(Type.String()) }) })
  const viewingKey = '0xfeedface00112233445566778899aabb'
  const { key, id, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { defaultViewingKey: viewingKey })
  const url = `/v1/sessions/${sessionId}`
  const payload = { defaults: { defaultViewingKey: viewingKey } }
  const basic = Buffer.from(`user:${key}`).toString('base64')

  const requests = [
    { url, headers },
    { url, headers: { authorization: `Bearer ${key}` } },
    { url, headers: { authorization: `Basic ${basic}` } },
    { url: `${url}?key=${key}&defaultViewingKey=${viewingKey}`, headers },
    { url: `/v1/${key}/${viewingKey}`, headers },
    { url: `/v1/${encodeURIComponent(key).replace('s', '%73')}/${viewingKey.replace('x', '%78')}`, headers },
    { url: `/%zz/${key.replace('_', '%5f')}/${key.replace('_', '%255F')}/${viewingKey.replace('x', '%78')}`, headers },
    { url: `/v1/sessions/${viewingKey}`, headers },
    { url: '/v1/errors', headers: { ...headers, 'x-session-id': sessionId } },
    { method: 'PATCH', url, headers, payload },
    { method: 'PATCH', url, headers, payload: { defaults: { defaultViewingKey: [viewingKey] } } },
    { method: 'POST', url: '/v1/sessions', headers: { ...headers, 'content-type': 'application/json' }, payload: `{"defaultViewingKey": ${viewingKey}}` },
    { method: 'POST', url: '/v1/sessions', headers, payload: { defaults: { defaultViewingKey: `${viewingKey}\u0000` } } },
    { method: 'POST', url: '/v1/admin/keys', headers: { 'x-api-key': adminKey }, payload: { tier: 'free', name: 'x' } },
    { method: 'DELETE', url: '/v1/sessions/%zz', headers },
    { method: 'DELETE', url, headers: { 'x-api-key': `${key}x` } }
  ] as const
  for (const request of requests) await service.inject(request)
  const pool = createPool(t, connectionString)
  // A row that is refused: PostgreSQL quotes it, with all its values, in the error.
  await pool.query('alter table sipher_sessions.sessions add check (false) not valid')
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload })).statusCode, 500)
  await pool.query('drop table sipher_sessions.sessions')
  t.equal((await service.inject({ url, headers })).statusCode, 503)

  const log = lines.join('')
  for (const [name, secret] of Object.entries({ key: key.slice(11), viewingKey: viewingKey.slice(6), sessionId: sessionId.slice(20), adminKey, basic })) {
    t.notOk(log.includes(secret), name)
  }
  t.ok(log.includes(id), 'the key\'s id says whose request it was')
  t.equal(lines.filter(line => JSON.parse(line).msg === 'request').length, requests.length + 3, 'one line for each request')
  const [first] = lines.map(line => JSON.parse(line)).filter(({ msg }) => msg === 'request')
  t.match(first, { level: 30, reqId: String, method: 'POST', path: '/v1/sessions', statusCode: 201, ms: Number, principal: id })
})

t.test('a request whose connection breaks is logged with the error, and without its query', async t => {
  const lines: string[] = []
  const log = pino(loggerOptions, { write: (line: string) => { lines.push(line) } })
  const request = { method: 'GET', url: '/v1/x?secret=1', principal: null, routeOptions: { url: undefined } }
  const reply = { statusCode: 200, elapsedTime: 1.23, log }
  const error = new Error('aborted')
  new RequestLog().requestCompleted(error, request as never, reply as never)
  new RequestLog().requestCompleted(error, { ...request, url: '/%zz' } as never, reply as never)
  const logged = lines.map(line => {
    const { time, pid, hostname, ...fields } = JSON.parse(line)
    return fields
  })
  t.strictSame(logged, ['/v1/x', '/%zz'].map(path => ({ level: 50, method: 'GET', path, statusCode: 200, ms: 1.2, err: { type: 'Error', message: 'aborted', stack: error.stack }, msg: 'request' })))
})

t.test('scrub leaves enough to compare by', async t => {
  t.equal(scrub(`sk_ent_${'a'.repeat(49)} sess_${'0'.repeat(64)} 0x${'f'.repeat(20)} plain`), 'sk_ent_aaaa… sess_000000000000… 0xffff… plain')
})

t.test('what an error says is logged without keys', async t => {
  const secret = `sk_pro_${'a'.repeat(49)}`
  const error = new Error(`no key ${secret}`)
  let line = ''
  const log = pino(loggerOptions, { write: text => { line = text } })
  for (const write of [() => log.error({ err: error }), () => log.error(error), () => log.error({ err: error }, 'failed'), () => log.error(error, 'failed')]) {
    write()
    t.match(line, '"message":"no key sk_pro_aaaa…"')
    t.notMatch(line, secret)
  }
  log.error(undefined)
  t.match(line, '"level":50')
})
