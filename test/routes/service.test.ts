import { readdirSync } from 'node:fs'
import t from 'tap'
import { errorCodes } from '../../src/errors.js'
import { answer, createDatabase, createPool, failure, startService } from '../helpers.js'

const unreachable = 'postgres://nobody@127.0.0.1:1/none'

t.test('GET /v1/health answers as long as the process lives', async t => {
  const alive = { status: 200, body: { success: true, data: { status: 'alive' } } }
  const { service } = await startService(t)
  t.strictSame(answer(await service.inject('/v1/health')), alive)
  const { service: cutOff } = await startService(t, { connectionString: unreachable, migrate: false })
  t.strictSame(answer(await cutOff.inject('/v1/health')), alive)
})

t.test('GET /v1/ready answers 200 only while the database answers and its schema is up to date', async t => {
  const { service, connectionString } = await startService(t)
  t.strictSame(answer(await service.inject('/v1/ready')), { status: 200, body: { success: true, data: { status: 'ready' } } })

  await createPool(t, connectionString).query('delete from sipher_sessions.migrations where version > 1')
  const behind = await service.inject('/v1/ready')
  t.strictSame(answer(behind), failure(503, 'SERVICE_UNAVAILABLE', `The database schema is at version 1 and this release needs ${readdirSync('migrations').length}. Run: npx sipher-sessions migrate`))
  t.equal(behind.headers['retry-after'], '1')

  const { service: unmigrated } = await startService(t, { connectionString: await createDatabase(t, { empty: true }), migrate: false })
  t.strictSame(answer(await unmigrated.inject('/v1/ready')), failure(503, 'SERVICE_UNAVAILABLE', 'The database has no tables of sipher-sessions yet. Run: npx sipher-sessions migrate'))

  const { service: cutOff } = await startService(t, { connectionString: unreachable, migrate: false })
  t.strictSame(answer(await cutOff.inject('/v1/ready')),
    failure(503, 'SERVICE_UNAVAILABLE', 'The service cannot reach its database at the moment. Try again in 1 s.'))
})

t.test('GET /v1/ready hides what the database says of an error', async t => {
  const { service, connectionString } = await startService(t)
  await createPool(t, connectionString).query('alter table sipher_sessions.migrations rename column version to renamed')
  t.strictSame(answer(await service.inject('/v1/ready')), failure(503, 'SERVICE_UNAVAILABLE', 'The service cannot use its database. Its log has the cause.'))
})

t.test('who asks GET /v1/ready takes up no connection that requests with a key wait for', async t => {
  const pool = createPool(t, await createDatabase(t))
  const { service } = await startService(t, { pool })
  let connections = 0
  pool.on('acquire', () => { connections++ })
  const answers = await Promise.all(Array.from({ length: 100 }, () => service.inject('/v1/ready')))
  t.ok(answers.every(({ statusCode }) => statusCode === 200))
  t.ok(connections <= 10, `${connections} statements for 100 requests`)
})

t.test('GET /v1/errors answers every code', async t => {
  const { service } = await startService(t)
  t.strictSame(answer(await service.inject('/v1/errors')), {
    status: 200,
    body: { success: true, data: { errors: Object.entries(errorCodes).map(([code, { status, description }]) => ({ code, status, description })) } }
  })
})

t.test('an unknown route is a 404 in the envelope, under the prefix and outside', async t => {
  const { service } = await startService(t)
  for (const url of ['/nope', '/v1/nope', '/v1/sessions/a/b']) {
    t.strictSame(answer(await service.inject({ url: `${url}?secret=1` })), failure(404, 'NOT_FOUND', `There is no GET ${url}. GET /v1/openapi.json lists the operations.`))
  }
  t.equal((await service.inject({ method: 'PUT', url: '/v1/sessions' })).json().error.code, 'NOT_FOUND', 'a wrong method')
})

t.test('a URL that cannot be decoded is a 400 in the envelope', async t => {
  const { service } = await startService(t)
  const details = [{ field: 'url', reason: 'holds a percent sign that begins no valid escape' }]
  t.strictSame(answer(await service.inject('/v1/sessions/%zz')), failure(400, 'VALIDATION_ERROR', `The request is not valid: url ${details[0]!.reason}`, details))

  const tooLong = [{ field: 'url', reason: 'holds a parameter that is too long' }]
  t.strictSame(answer(await service.inject(`/v1/sessions/${'x'.repeat(5000)}`)), failure(400, 'VALIDATION_ERROR', `The request is not valid: url ${tooLong[0]!.reason}`, tooLong))
})

t.test('what fails inside is a 500 that hides its cause', async t => {
  const lines: string[] = []
  const { service, connectionString } = await startService(t, { logLevel: 'error', logStream: { write: line => { lines.push(line) } } })
  const { headers } = { headers: { 'x-api-key': 'admin-key-of-the-tests-0123456789abcdef' } }
  await createPool(t, connectionString).query('alter table sipher_sessions.api_keys drop column metadata')
  const response = await service.inject({ url: '/v1/admin/keys', headers })
  t.strictSame(answer(response), failure(500, 'INTERNAL_SERVER_ERROR', 'The service failed to answer this request. The operator finds the cause under the request id in X-Request-Id.'))
  const [line] = lines.map(line => JSON.parse(line))
  t.match(line, { reqId: response.headers['x-request-id'], err: { code: '42703', message: /metadata/ } }, 'the log has the cause under the request\'s id')
})

t.test('CORS answers the origins that were given, and no others', async t => {
  const { service } = await startService(t, { corsOrigins: ['https://app.example.com'] })
  const preflight = (origin: string) => service.inject({
    method: 'OPTIONS', url: '/v1/sessions', headers: { origin, 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'x-session-id' }
  })
  const allowed = await preflight('https://app.example.com')
  t.equal(allowed.headers['access-control-allow-origin'], 'https://app.example.com')
  t.match(allowed.headers['access-control-allow-methods'], 'PATCH')
  t.match(allowed.headers['access-control-allow-headers'], 'X-Session-Id')
  t.equal((await preflight('https://evil.example.com')).headers['access-control-allow-origin'], undefined)
  for (const headers of [{}, { origin: '', 'access-control-request-method': 'PATCH' }, { origin: 'https://app.example.com' }, { 'access-control-request-method': 'PATCH' }]) {
    t.strictSame(answer(await service.inject({ method: 'OPTIONS', url: '/v1/sessions?x', headers })), failure(404, 'NOT_FOUND', 'There is no OPTIONS /v1/sessions. GET /v1/openapi.json lists the operations.'), 'what is no preflight is a request like any other')
  }

  const { service: open } = await startService(t, { corsOrigins: ['*'] })
  t.equal((await open.inject({ url: '/v1/health', headers: { origin: 'https://any.example.com' } })).headers['access-control-allow-origin'], '*')
})

t.test('an instance goes on being ready when a newer release has migrated the database', async t => {
  const { service, connectionString } = await startService(t)
  await createPool(t, connectionString).query('insert into sipher_sessions.migrations (version, name) values (9999, \'9999-future.sql\')')
  t.equal((await service.inject('/v1/ready')).statusCode, 200)
})
