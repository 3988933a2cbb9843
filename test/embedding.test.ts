import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { Type, type TObject } from '@sinclair/typebox'
import swagger from '@fastify/swagger'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import sipherSessions from '../src/index.js'
import { answer, createDatabase, createKey, createPool, createSession, encryptionKeys, failure, sendInTwo } from './helpers.js'

t.test('two apps with two databases live in one process and know nothing of each other', async t => {
  const apps = await Promise.all(['a', 'b'].map(async () => {
    const host = Fastify()
    t.teardown(() => host.close())
    await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
    host.post('/echo', async request => request.body)
    await host.ready()
    const { key, headers } = await createKey(host)
    return { host, headers, sessionId: await createSession(host, key) }
  }))
  for (const [i, { host, headers, sessionId }] of apps.entries()) {
    const other = apps[1 - i]!
    const send = (host: typeof other.host, headers: object) => host.inject({ method: 'POST', url: '/echo', headers: { ...headers, 'x-session-id': sessionId } })
    t.strictSame(answer(await send(host, headers)), { status: 200, body: { chain: 'near' } })
    t.equal((await send(other.host, headers)).json().error.code, 'INVALID_API_KEY')
    t.equal((await send(other.host, other.headers)).json().error.code, 'SESSION_NOT_FOUND')
  }
})

t.test('a host\'s error handler, 404 handler, validator and parsers stay as they were', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  host.setErrorHandler((error: Error, _request, reply) => reply.code(418).send({ host: error.message }))
  host.setNotFoundHandler((_request, reply) => reply.code(404).send({ host: 'not found' }))
  // As the documentation of @fastify/jwt has it.
  host.decorate('authenticate', async () => {})
  host.addSchema({ $id: 'ErrorResponse', type: 'object', properties: { mine: { type: 'string' } } })
  let described: unknown
  host.addHook('onRoute', function ({ method, url }) {
    if (method === 'POST' && url === '/v1/sessions') described = this.getSchema('ErrorResponse')
  })
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.get('/fails', async () => { throw new Error('own') })
  host.post('/lenient', { schema: { body: Type.Object({ count: Type.Integer() }, { additionalProperties: false }) } }, async request => request.body)
  host.get('/mine', { schema: { response: { 200: { $ref: 'ErrorResponse#' } } } }, async () => ({ mine: 'x', other: 'y' }))
  await host.ready()
  const json = { 'content-type': 'application/json' }

  t.strictSame(answer(await host.inject('/fails')), { status: 418, body: { host: 'own' } })
  t.strictSame(answer(await host.inject('/nowhere')), { status: 404, body: { host: 'not found' } })
  t.strictSame(answer(await host.inject({ method: 'POST', url: '/lenient', payload: { count: '3', unknown: 1 } })), { status: 200, body: { count: 3 } }, 'converts and drops as it did')
  t.equal((await host.inject({ method: 'POST', url: '/lenient', headers: json, payload: '' })).statusCode, 418, 'an empty JSON body is an error as it was')
  t.strictSame(answer(await host.inject('/mine')), { status: 200, body: { mine: 'x' } }, 'a schema of the same name is the host\'s')
  t.match(described, { required: ['success', 'error'] }, 'and the API\'s is what it refers to')

  t.equal((await host.inject('/v1/nowhere')).json().error.code, 'NOT_FOUND', 'the API answers in its own way')
  const { headers } = await createKey(host)
  t.equal((await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {}, unknown: 1 } })).json().error.code, 'VALIDATION_ERROR')
})

t.test('a host brings its own schema of what sessions hold', async t => {
  const defaults = Type.Object({
    region: Type.String({ minLength: 2 }),
    options: Type.Optional(Type.Object({ verbose: Type.Boolean() }, { additionalProperties: false })),
    list: Type.Optional(Type.Array(Type.Union([Type.Object({ name: Type.String() }), Type.Null()]))),
    labels: Type.Optional(Type.Record(Type.String({ pattern: '^x-' }), Type.String(), { additionalProperties: false }))
  }, { additionalProperties: true })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults, prefix: '/api/' })
  host.get('/where', { schema: { querystring: Type.Object({ region: Type.String() }) } }, async request => request.query as object)
  await host.ready()
  const { headers } = await createKey(host)
  const create = (defaults: object) => host.inject({ method: 'POST', url: '/api/sessions', headers, payload: { defaults } })

  t.match((await host.inject('/api/nowhere')).json(), { error: { message: 'There is no GET /api/nowhere. GET /api/openapi.json lists the operations.' } })
  const { sessionId } = (await create({ region: 'eu', options: { verbose: true } })).json().data
  t.strictSame((await host.inject({ url: '/where', headers: { ...headers, 'x-session-id': sessionId } })).json(), { region: 'eu' })
  t.strictSame((await create({ options: { verbose: true } })).json().error.details, [{ field: 'defaults.region', reason: 'is missing' }])
  t.strictSame((await create({ region: 'eu', chain: 'near' })).json().error.details, [{ field: 'defaults.chain', reason: 'is not a known field; known are region, options, list, labels' }], 'it is closed')
  t.equal((await create({ region: 'eu', list: [{ name: 'a' }, null] })).statusCode, 201)
  t.equal((await create({ region: 'eu', list: [{ name: 'a', nmae: 'b' }] })).statusCode, 400, 'and so are the objects in it')
  t.equal((await create({ region: 'eu', labels: { 'x-a': 'b' } })).statusCode, 201)
  t.strictSame((await create({ region: 'eu', labels: { a: 'b' } })).json().error.details, [{ field: 'defaults.labels.a', reason: 'is not a known field' }])
  const patch = await host.inject({ method: 'PATCH', url: `/api/sessions/${sessionId}`, headers, payload: { defaults: { options: { verbose: false } } } })
  t.strictSame(patch.json().data.defaults, { region: 'eu', options: { verbose: false } }, 'a patch may leave out what is required')
  await host.sessionDatabase.query('alter table sipher_sessions.sessions rename to hidden')
  for (const region of ['a\u0000', 'a\ud800']) {
    const refused = await create({ region })
    t.strictSame([refused.statusCode, refused.json().error.details], [400, [{ field: 'defaults', reason: 'holds a character that cannot be stored (NUL or half a surrogate pair)' }]], 'and holds up no statement')
  }
  t.equal((await create({ region: 'a\\u0000' })).statusCode, 503)
})

t.test('what a union of values or types takes is told in one sentence', async t => {
  const { Union, Literal, Null } = Type
  const defaults = Type.Object({
    network: Type.Optional(Union([Literal('mainnet'), Literal('testnet')])),
    fee: Type.Optional(Union([Type.Number(), Null()])),
    mode: Type.Optional(Union([Literal('auto'), Type.Integer()])),
    level: Type.Optional(Union([Type.Unsafe({ enum: ['low', 'high'] }), Literal(3)])),
    address: Type.Optional(Union([Type.String({ pattern: '^0x' }), Null()])),
    shape: Type.Optional(Union([Type.Object({ a: Type.String() }), Null()]))
  })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults })
  await host.ready()
  const { headers } = await createKey(host)
  const reasons = async (name: string, value: unknown) => {
    const { error } = (await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: { [name]: value } } })).json()
    return error.details.map(({ field, reason }: { field: string, reason: string }) => `${field} ${reason}`)
  }
  t.strictSame(await reasons('network', 'c'), ['defaults.network must be one of mainnet, testnet'])
  t.strictSame(await reasons('network', 'Testnet'), ['defaults.network must be one of mainnet, testnet; did you mean "testnet"?'])
  t.strictSame(await reasons('fee', 'x'), ['defaults.fee must be number or null'])
  t.strictSame(await reasons('mode', 1.5), ['defaults.mode must be "auto" or integer'])
  t.strictSame(await reasons('level', 'mid'), ['defaults.level must be one of low, high, 3'])
  t.strictSame(await reasons('address', 'x'), ['defaults.address must match pattern "^0x"', 'defaults.address must be null', 'defaults.address must match a schema in anyOf'])
  t.strictSame(await reasons('shape', { a: 1 }), ['defaults.shape.a must be string', 'defaults.shape must be null', 'defaults.shape must match a schema in anyOf'], 'of another one, each part')
})

t.test('where a default that is required has no example, none is given', async t => {
  const examplesOf = async (examples?: string[]) => {
    const host = Fastify()
    t.teardown(() => host.close())
    const defaults = Type.Object({ network: Type.String({ ...(examples && { examples }) }), chain: Type.Optional(Type.String({ examples: ['near'] })) })
    await host.register(sipherSessions, { encryptionKeys, connectionString: 'postgres://unused', migrate: false, sweepIntervalMs: 0, defaults })
    const { schemas } = (await host.inject('/v1/openapi.json')).json().components
    return ['CreateSessionRequest', 'UpdateSessionRequest', 'GetSession200Response', 'DeleteSession200Response'].map(name => schemas[name].examples?.length)
  }
  t.strictSame(await examplesOf(), [undefined, undefined, undefined, 1])
  t.strictSame(await examplesOf(['a']), [1, 1, 1, 1])
})

t.test('a session is answered as it is filled in, whatever the host\'s schema says by then', async t => {
  const connectionString = await createDatabase(t)
  const identify = () => ({ id: 'ann', tier: 'pro' as const })
  const start = async (defaults: TObject) => {
    const host = Fastify()
    t.teardown(() => host.close())
    await host.register(sipherSessions, { connectionString, sweepIntervalMs: 0, identify, defaults })
    host.post('/echo', async request => request.body)
    await host.ready()
    return host
  }
  const one = await start(Type.Object({ level: Type.Optional(Type.String({ default: 'maximum' })), count: Type.Optional(Type.String()) }))
  const created = (await one.inject({ method: 'POST', url: '/v1/sessions', payload: { defaults: { count: '1' } } })).json().data
  t.strictSame(created.defaults, { count: '1' }, 'what was not given is not held, though it has a default')
  const later = Type.Object({ count: Type.Optional(Type.Integer()), kind: Type.Union([Type.Literal('a'), Type.Literal('b')]) })
  for (const host of [one, await start(later)]) {
    const url = `/v1/sessions/${created.sessionId}`
    t.strictSame((await host.inject(url)).json().data.defaults, { count: '1' })
    t.strictSame((await host.inject({ method: 'POST', url: '/echo', headers: { 'x-session-id': created.sessionId } })).json(), { count: '1' })
    t.strictSame((await host.inject({ method: 'PATCH', url, payload: { defaults: {} } })).json().data.defaults, { count: '1' })
  }
})

t.test('what a host adds to its schemas after the registration changes nothing of the API', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  for (const $id of ['mine', 'SessionDefaults', 'GetSession200Response']) host.addSchema({ $id, type: 'object', properties: { chain: { type: 'string' }, mine: { type: 'string' } } })
  host.post('/echo', { schema: { body: { $ref: 'mine#' } } }, async ({ body }) => body)
  const { headers } = await createKey(host)
  const create = (payload: object) => host.inject({ method: 'POST', url: '/v1/sessions', headers, payload })

  t.strictSame(answer(await create({ defaults: { chian: 'near', privacyLevel: 'maximum' }, ttlSeconds: '3600' })).body, failure(400, 'VALIDATION_ERROR', 'The body is not valid: defaults.chian is not a known field; did you mean "chain"? (and 1 more, in details)', [
    { field: 'defaults.chian', reason: 'is not a known field; did you mean "chain"?' }, { field: 'ttlSeconds', reason: 'must be integer' }
  ]).body)
  const created = await create({ defaults: { chain: 'near', privacyLevel: 'maximum' } })
  const { sessionId, defaults } = created.json().data
  t.strictSame(defaults, { chain: 'near', privacyLevel: 'maximum' })
  const get = await host.inject({ url: `/v1/sessions/${sessionId}`, headers })
  t.strictSame(get.json().data.defaults, defaults, 'what is answered neither')
  t.equal((await host.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chian: 'sui' } } })).statusCode, 400)
  t.strictSame((await host.inject({ method: 'POST', url: '/echo', headers: { ...headers, 'x-session-id': sessionId }, payload: { mine: 1 } })).json(), { mine: '1', chain: 'near' }, 'and the host\'s schemas are its own')
})

t.test('a host brings its own identity, and needs no table of keys', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  const down = new Error('identity is down')
  host.setErrorHandler((error: Error, _request, reply) => reply.code(500).send({ host: error.message }))
  await host.register(sipherSessions, {
    encryptionKeys,
    connectionString: await createDatabase(t),
    sweepIntervalMs: 0,
    identify (request) {
      const { 'x-user': user, 'x-tier': tier = 'pro' } = request.headers
      if (user === 'broken') throw down
      if (user === 'status') throw Object.assign(new Error('says the host'), { statusCode: Number(request.headers['x-status']), ...(request.headers['x-status'] === '429' && { headers: { 'retry-after': 7 } }) })
      if (user === 'late') throw Object.assign(new Error('token expired'), { statusCode: 401 })
      const id = { nobody: '', nul: 'ann\0', half: 'ann\ud800', whole: 'ann🔑', long: 'é'.repeat(250), longer: 'é'.repeat(250) + 'e' }[String(user)]
      if (id !== undefined) return { id, tier: 'pro' }
      return user === undefined ? null : { id: String(user), tier: tier as 'pro' | 'free' }
    }
  })
  host.post('/echo', async request => ({ body: request.body, principal: request.principal }))
  await host.ready()
  await host.sessionDatabase.query('drop table sipher_sessions.api_keys')
  const created = await host.inject({ method: 'POST', url: '/v1/sessions', headers: { 'x-user': 'ann' }, payload: { defaults: { chain: 'sui' } } })
  const echo = (headers: object) => host.inject({ method: 'POST', url: '/echo', headers: { 'x-session-id': created.json().data.sessionId, ...headers } })
  t.strictSame((await echo({ 'x-user': 'ann' })).json(), { body: { chain: 'sui' }, principal: { id: 'ann', tier: 'pro' } })
  t.equal((await echo({ 'x-user': 'bob' })).json().error.code, 'SESSION_NOT_FOUND')
  t.equal((await echo({ 'x-user': 'ann', 'x-tier': 'free' })).json().error.code, 'TIER_ACCESS_DENIED')
  t.strictSame(answer(await echo({})), failure(401, 'UNAUTHORIZED', 'This operation is for callers whom this API knows. Authenticate as its documentation says.'))
  t.strictSame(answer(await echo({ 'x-user': 'broken' })), { status: 500, body: { host: 'identity is down' } }, 'what the host throws is the host\'s to answer')
  t.strictSame(answer(await echo({ 'x-user': 'late' })), { status: 500, body: { host: 'token expired' } })
  const refused = await host.inject({ url: '/v1/limits', headers: { 'x-user': 'late' } })
  t.strictSame([answer(refused), refused.headers['www-authenticate']], [failure(401, 'UNAUTHORIZED', 'token expired'), 'Bearer realm="sipher-sessions"'], 'but where it is the API\'s')
  t.equal((await host.inject({ url: '/v1/nothing', headers: { 'x-user': 'late' } })).json().error.code, 'NOT_FOUND', 'and that there is no such operation needs nobody to be known')
  for (const [status, code, message, retryAfter] of [
    [403, 'TIER_ACCESS_DENIED', 'says the host', undefined], [429, 'RATE_LIMIT_EXCEEDED', 'says the host', '7'],
    [503, 'SERVICE_UNAVAILABLE', 'The service cannot answer this request at the moment. Try again later.', '1']
  ] as const) {
    const response = await host.inject({ url: '/v1/limits', headers: { 'x-user': 'status', 'x-status': String(status) } })
    t.strictSame([answer(response), response.headers['retry-after']], [failure(status, code, message), retryAfter])
  }
  const failed = await host.inject({ url: '/v1/limits', headers: { 'x-user': 'broken' } })
  t.equal(failed.json().error.code, 'INTERNAL_SERVER_ERROR')
  t.match(failed.headers['x-request-id'], /^req-/, 'by which the log has the cause')
  for (const user of ['nobody', 'nul', 'half', 'longer']) {
    t.strictSame((await echo({ 'x-user': user })).json(), { host: 'identify answered a principal whose id is not a string of 1 to 500 bytes, without NUL and half a surrogate pair' })
  }
  for (const user of ['whole', 'long']) t.equal((await echo({ 'x-user': user })).json().error.code, 'SESSION_NOT_FOUND')
  t.strictSame((await echo({ 'x-user': 'ann', 'x-tier': 'gold' })).json(), { host: 'identify answered a principal whose tier is gold; the tiers are free, pro, enterprise' })
  const failures = []
  for (let i = 0; i < 101; i++) failures.push((await host.inject({ url: '/v1/limits', headers: { 'x-user': 'late' } })).statusCode)
  t.strictSame([failures[0], failures.at(-1)], [401, 429], 'such failures are counted, as those of keys are')
})

t.test('a host protects its own routes with API keys and tiers', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.post('/paid', { onRequest: [host.requirePrincipal, host.requireTier('enterprise')] }, async request => request.principal)
  host.get('/tier', { onRequest: host.requireTier('enterprise') }, async request => request.principal)
  await host.ready()
  const { key, id, headers } = await createKey(host, 'enterprise')
  const sessionId = await createSession(host, key)
  const response = await host.inject({ method: 'POST', url: '/paid', headers: { ...headers, 'x-session-id': sessionId } })
  t.strictSame(response.json(), { id, tier: 'enterprise' })
  t.equal(response.headers['ratelimit-remaining'], '99998', 'a request counts once')
  t.equal((await host.inject({ method: 'POST', url: '/paid' })).json().code, 'UNAUTHORIZED')
  t.equal((await host.inject({ method: 'POST', url: '/paid', headers: (await createKey(host)).headers })).json().code, 'TIER_ACCESS_DENIED')
  const alone = await host.inject({ url: '/tier', headers })
  t.strictSame([alone.json(), alone.headers['ratelimit-remaining']], [{ id, tier: 'enterprise' }, '99997'], 'a tier hook alone authenticates as well')
  t.equal((await host.inject('/tier')).json().code, 'UNAUTHORIZED')
})

t.test('of several tier hooks of a route all hold for a key that changes while a body is on its way', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  const tiers = [host.requireTier('enterprise'), host.requireTier('pro', 'enterprise')]
  host.post('/narrow-first', { onRequest: [host.requirePrincipal, ...tiers] }, async () => 'served')
  host.post('/narrow-last', { onRequest: [host.requirePrincipal, ...tiers.reverse()] }, async () => 'served')
  await host.listen({ port: 0, host: '127.0.0.1' })
  for (const path of ['/narrow-first', '/narrow-last']) {
    const { id, headers } = await createKey(host, 'enterprise')
    t.match(await sendInTwo(t, host, id, { path, headers, body: '{}' }, async () => {}), 'served')
    t.match(await sendInTwo(t, host, id, { path, headers, body: '{}' }, async () => { await host.apiKeyRepository.update(id, { tier: 'pro' }) }), 'needs a key of tier enterprise;')
  }
})

t.test('a host\'s OpenAPI document shows the header on the routes that take defaults, and the API with its schemas', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(swagger, { openapi: { openapi: '3.1.0', components: { securitySchemes: { ApiKeyAuth: { type: 'apiKey', in: 'header', name: 'X-API-Key' }, BearerAuth: { type: 'http', scheme: 'bearer' }, AdminKeyAuth: { type: 'apiKey', in: 'header', name: 'X-API-Key' } } } } })
  await host.register(sipherSessions, { encryptionKeys, connectionString: 'postgres://unused', migrate: false })
  const handler = async () => null
  host.get('/quote', { schema: { querystring: Type.Object({ chain: Type.String(), amount: Type.Number() }), headers: Type.Object({ 'x-own': Type.String() }) } }, handler)
  host.post('/transfer', { schema: { body: Type.Object({ privacyLevel: Type.String(), chain: Type.String() }) } }, handler)
  host.post('/free', handler)
  host.get('/plain', { schema: { querystring: Type.Object({ amount: Type.Number() }) } }, handler)
  host.get('/none', handler)
  host.addSchema({ $id: 'headers', type: 'object', properties: {} })
  host.post('/referred', { schema: { headers: { $ref: 'headers#' } } }, handler)
  await host.ready()
  const { paths } = host.swagger() as unknown as { paths: Record<string, Record<string, { parameters?: { in: string, name: string, description?: string }[] }>> }
  const headersOf = (method: string, path: string) => paths[path]![method]!.parameters?.filter(parameter => parameter.in === 'header').map(({ name, description }) => `${name}: ${description}`) ?? []
  const fills = (names: string) => `X-Session-Id: Fills in what the request leaves out, from this session: ${names}.`

  t.strictSame(headersOf('get', '/quote'), ['x-own: undefined', fills('chain')])
  t.strictSame(headersOf('post', '/transfer'), [fills('chain, privacyLevel')])
  t.strictSame(headersOf('post', '/free'), [fills('chain, privacyLevel, rpcProvider, backend, defaultViewingKey')])
  for (const [method, path] of [['get', '/plain'], ['get', '/none'], ['post', '/referred'], ['post', '/v1/sessions']] as const) {
    t.notOk(headersOf(method, path).some(header => header.startsWith('X-Session-Id')), path)
  }
  t.ok(paths['/v1/sessions'], 'the API is in it')
})

t.test('a host whose validator and serializer know no JSON Schema keeps them', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  const seen: unknown[] = []
  host.setValidatorCompiler(({ schema }) => {
    seen.push(schema)
    return value => ({ value })
  })
  host.setSerializerCompiler(() => value => JSON.stringify({ own: value }))
  const pool = createPool(t, await createDatabase(t))
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0 })
  host.post('/free', async request => request.body)
  host.post('/other', { schema: { body: { shape: 'of another library' }, response: { 200: {} } } }, async request => request.body)
  await host.ready()
  t.strictSame(seen, [{ shape: 'of another library' }])
  const { key, headers } = await createKey(host)
  const sessionId = await createSession(host, key)
  t.strictSame((await host.inject({ method: 'POST', url: '/free', headers: { ...headers, 'x-session-id': sessionId } })).json(), { chain: 'near' })
  t.strictSame((await host.inject({ method: 'POST', url: '/other', payload: { a: 1 } })).json(), { own: { a: 1 } })
})

t.test('a limit of the host\'s on handlers does not answer 503 for what is then carried out', async t => {
  const host = Fastify({ handlerTimeout: 150 })
  t.teardown(() => host.close())
  const pool = createPool(t, await createDatabase(t))
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0, timeoutMs: 10_000 })
  host.get('/slow', () => new Promise(() => {}))
  await host.ready()
  const { key, headers } = await createKey(host)
  const sessionId = await createSession(host, key)
  const blocker = await pool.connect()
  await blocker.query('begin; lock table sipher_sessions.changes')
  const deleting = host.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })
  t.equal((await host.inject('/slow')).statusCode, 503, 'the host\'s own has it')
  await blocker.query('rollback')
  blocker.release()
  t.equal((await deleting).statusCode, 200)
})

t.test('an admin key that no header carries is refused', async t => {
  const pool = createPool(t, await createDatabase(t))
  for (const adminKey of ['schlüssel', ' key', 'key\n', 'a\tb']) {
    await t.rejects(async () => { await Fastify().register(sipherSessions, { pool, encryptionKeys, adminKey }) }, { message: 'adminKey must be printable ASCII, without blanks around it: nothing else comes as it is in a header' }, JSON.stringify(adminKey))
  }
})

t.test('a second registration, a name that is taken, and a pool that is none are told of', async t => {
  const pool = createPool(t, await createDatabase(t))
  const register = async (host: FastifyInstance, options: object = { pool }) => { await host.register(sipherSessions, { encryptionKeys, sweepIntervalMs: 0, ...options }) }
  const host = Fastify()
  t.teardown(() => host.close())
  await register(host)
  const twice = { message: 'sipher-sessions is registered already, in this scope or one around it. Once is enough for a scope and those inside it; another registration needs a scope beside it, and another prefix.' }
  await t.rejects(register(host), twice)
  const inside = Fastify()
  inside.decorateRequest('principal', null)
  await t.rejects(register(inside), { message: 'The decorator principal is sipher-sessions\' own, and this app has one already. Give that one another name, or register sipher-sessions in a scope without it.' })
  await t.rejects(register(Fastify(), { pool: {} }), { message: 'The option pool is no pg.Pool.' })
  const beside = Fastify()
  t.teardown(() => beside.close())
  await beside.register(async scope => register(scope as unknown as FastifyInstance))
  await t.rejects(async () => beside.register(async scope => register(scope as unknown as FastifyInstance)), { message: 'There is a route GET /v1/health already. Register sipher-sessions under another prefix, by its option prefix, as each registration needs one of its own.' })
  for (const settings of [{ routerOptions: { maxParamLength: 68 } }, { maxParamLength: 68, routerOptions: { caseSensitive: true } }]) await t.rejects(register(Fastify(settings)), { message: 'routerOptions.maxParamLength must be at least 69, the length of a session\'s id; it is 68.' })
})

t.test('every name that the plugin decorates an app with is told of where it is taken', async t => {
  const pool = createPool(t, await createDatabase(t))
  const register = async (host: FastifyInstance) => { await host.register(sipherSessions, { pool, encryptionKeys, sweepIntervalMs: 0 }) }
  const host = Fastify()
  t.teardown(() => host.close())
  const names: ['decorate' | 'decorateRequest', string][] = []
  for (const method of ['decorate', 'decorateRequest'] as const) {
    host[method] = new Proxy(host[method], {
      apply (decorate, scope, args) {
        names.push([method, args[0]])
        return Reflect.apply(decorate, scope, args)
      }
    })
  }
  await register(host)
  await host.ready()
  // Those of the libraries are in scopes of their own; of a second registration another sentence tells.
  const own = names.filter(([, name]) => typeof name === 'string' && !['rateLimit', 'createRateLimit', 'swagger', 'sessionDatabase'].includes(name))
  t.ok(own.length > 15)
  for (const [method, name] of own) {
    const taken = Fastify()
    const decorate = taken[method] as (name: string, value: null) => unknown
    decorate.call(taken, name, null)
    await t.rejects(register(taken), { message: `The decorator ${name} is sipher-sessions' own, and this app has one already.` }, name)
  }
})

t.test('what a host\'s hooks and plugins answer in place of the API is theirs', async t => {
  const pool = createPool(t, await createDatabase(t))
  const host = Fastify()
  t.teardown(() => host.close())
  host.addHook('onRequest', async ({ headers }, reply) => {
    const { 'x-status': status } = headers
    if (status) return reply.code(Number(status)).send({ error: 'no' })
    if (headers['x-overloaded']) {
      reply.header('retry-after', 50)
      throw Object.assign(new Error('too much'), { statusCode: Number(headers['x-overloaded']) })
    }
  })
  host.addHook('onSend', async ({ headers }) => { if (headers['x-broken']) throw new Error('broken by the host') })
  await host.register(sipherSessions, { pool, encryptionKeys, sweepIntervalMs: 0 })
  for (const url of ['/v1/limits', '/v1/health', '/v1/openapi.json', '/v1/nowhere']) {
    for (const status of [401, 403, 429, 503]) {
      t.strictSame(answer(await host.inject({ url, headers: { 'x-status': String(status) } })), { status, body: { error: 'no' } }, `${url} ${status}`)
    }
    for (const status of [429, 503]) t.equal((await host.inject({ url, headers: { 'x-overloaded': String(status) } })).headers['retry-after'], '50')
  }
  t.strictSame(answer(await host.inject({ url: '/v1/health', headers: { 'x-broken': 'yes' } })),
    failure(500, 'INTERNAL_SERVER_ERROR', 'The service failed to answer this request. The operator finds the cause under the request id in X-Request-Id.'))
})

t.test('a migration that takes longer than a host starts is told of in a sentence, and may take its time where it starts for ever', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const blocker = await createPool(t, connectionString).connect()
  t.teardown(() => blocker.release())
  await blocker.query('begin')
  await blocker.query('select pg_advisory_xact_lock(7315402236)')
  const start = async (pluginTimeout: number, where: object = { connectionString }) => {
    const host = Fastify({ pluginTimeout })
    t.teardown(() => host.close())
    await host.register(sipherSessions, { ...where, encryptionKeys, sweepIntervalMs: 0 })
    await host.ready()
  }
  await t.rejects(start(1000), {
    message: 'The database is not migrated after 900 ms, and Fastify waits for 1000 ms (pluginTimeout): the migration takes long, or waits for another instance\'s. ' +
      'Give Fastify more time, or migrate before the start: npx sipher-sessions migrate'
  })
  const silent = createServer(() => {})
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const pool = createPool(t, `postgres://127.0.0.1:${(silent.address() as AddressInfo).port}/x`, { connectionTimeoutMillis: 3000 })
  t.teardown(() => { silent.close() })
  await t.rejects(start(1000, { pool }), { message: 'The database has given no connection within 900 ms: is it there, or are all connections of the pool taken?' })
  const patient = start(0)
  await blocker.query('rollback')
  await patient
})

t.test('numbers beyond what JavaScript has are refused, not kept as null, wherever a schema lets them through', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults: Type.Object({ any: Type.Unknown() }) })
  await host.ready()
  const { headers } = await createKey(host)
  const create = async (any: string) => {
    const response = await host.inject({ method: 'POST', url: '/v1/sessions', headers: { ...headers, 'content-type': 'application/json' }, payload: `{"defaults":{"any":${any}}}` })
    return response.statusCode === 201 ? response.json().data.defaults.any as unknown : response.json().error.details as unknown
  }
  for (const [any, field] of [['1e400', 'defaults.any'], ['-1E+0309', 'defaults.any'], ['[[0],{"x":1e999}]', 'defaults.any.1.x'], ['9'.repeat(400), 'defaults.any'], [`1${'0'.repeat(250)}e99`, 'defaults.any']] as const) {
    t.strictSame(await create(any), [{ field, reason: 'must be a finite number' }], any.slice(0, 30))
  }
  const root = await host.inject({ method: 'POST', url: '/v1/sessions', headers: { ...headers, 'content-type': 'application/json' }, payload: '1e999' })
  t.strictSame(root.json().error.details, [{ field: '(root)', reason: 'must be a finite number' }])
  for (const [any, kept] of [['1e308', 1e308], ['"1e999"', '1e999'], ['null', null], ['{"1e999":[1e-400,null]}', { '1e999': [0, null] }]] as const) t.strictSame(await create(any), kept)
})

t.test('a list with very many mistakes is told of as soon as one with few', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  const tags = Type.Array(Type.Union([Type.Literal('a'), Type.Literal('b')]))
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults: Type.Object({ tags }) })
  await host.ready()
  const { headers } = await createKey(host)
  const began = performance.now()
  const { statusCode, body } = await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: { tags: Array(30_000).fill(0) } } })
  t.equal(statusCode, 400)
  t.strictSame((JSON.parse(body) as { error: { details: unknown[] } }).error.details[19], { field: 'defaults.tags.19', reason: 'must be one of a, b' })
  // Each compared with each other takes ten seconds and more.
  t.ok(performance.now() - began < 5000, `${performance.now() - began} ms`)
})

for (const [caller, identify] of [['API keys', undefined], ['a host\'s identify', () => ({ id: 'ann', tier: 'pro' as const })]] as const) {
  t.test(`scopes that were there before the registration are served as ever, and take defaults: ${caller}`, async t => {
    const host = Fastify()
    t.teardown(() => host.close())
    await host.register(swagger, { openapi: {} })
    let inside!: FastifyInstance
    await host.register(async scope => {
      inside = scope
      scope.get('/plain', async () => 'plain')
      scope.get('/nobody', async ({ principal, sessionDefaults }) => ({ principal, sessionDefaults }))
      scope.get('/typo', { config: { sessionDefaults: ['chian'] } }, async () => 'typo')
      scope.setNotFoundHandler((_request, reply) => reply.code(404).send('nothing'))
    }, { prefix: '/in' })
    await host.register(sipherSessions, { connectionString: await createDatabase(t), encryptionKeys, sweepIntervalMs: 0, ...(identify && { identify }) })
    inside.post('/echo', async request => request.body)
    inside.post('/required', { onRequest: host.requirePrincipal }, async request => request.body)
    inside.get('/principal', { onRequest: (request, reply) => host.requirePrincipal(request, reply) }, async ({ principal }) => principal!.tier)
    inside.get('/tier', { onRequest: host.requireTier('pro') }, async ({ principal }) => principal!.tier)
    await host.listen({ port: 0, host: '127.0.0.1' })
    const { id, key, headers } = await createKey(host)
    const sessionId = await createSession(host, key, { chain: 'near' })
    const ask = async (url: string, headers = {}) => (({ statusCode, body }) => [statusCode, body])(await host.inject({ url: `/in${url}`, headers }))
    t.strictSame(await ask('/plain'), [200, 'plain'])
    t.strictSame(await ask('/nobody'), [200, '{"principal":null,"sessionDefaults":null}'])
    t.equal((await ask('/typo', { ...headers, 'x-session-id': sessionId }))[0], 500, 'what a name that there is not stands for nobody knows')
    t.strictSame(await ask('/nowhere'), [404, 'nothing'])
    t.strictSame(await ask('/principal', headers), [200, 'pro'])
    t.strictSame(await ask('/tier', headers), [200, 'pro'])
    t.equal((await ask('/plain', { ...headers, 'x-session-id': `sess_${'0'.repeat(64)}` }))[0], 404)
    // What comes late is looked up again.
    for (const [path, own, filled] of [['/in/echo', { 'x-session-id': sessionId }, '{"a":1,"chain":"near"}'], ['/in/required', {}, '{"a":1}']] as const) {
      const late = await sendInTwo(t, host, identify ? 'ann' : id, { path, headers: { ...headers, ...own }, body: '{"a":1}' }, async () => {})
      t.match(late, /^HTTP\/1\.1 200 /)
      t.ok(late.endsWith(filled), late)
    }
  })
}

t.test('a host\'s document of OpenAPI 3.0 has nothing of 3.1 in the headers of answers', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(swagger, { openapi: {} })
  await host.register(sipherSessions, { connectionString: await createDatabase(t), encryptionKeys, sweepIntervalMs: 0 })
  await host.ready()
  const document = host.swagger() as unknown as { openapi: string, paths: Record<string, Record<string, { responses: Record<string, { headers?: Record<string, { schema: object }> }> }>> }
  t.equal(document.openapi, '3.0.3')
  const schemas = Object.values(document.paths).flatMap(item => Object.values(item)).flatMap(({ responses }) => Object.values(responses)).flatMap(({ headers = {} }) => Object.values(headers))
  t.ok(schemas.length > 100)
  t.strictSame(schemas.filter(({ schema }) => 'examples' in schema), [])
})

t.test('an option that is not what it has to be ends the start, and one that there is not is warned of', async t => {
  const lines: string[] = []
  const register = async (options: object) => {
    const host = Fastify({ logger: { level: 'warn', stream: { write (line: string) { lines.push((JSON.parse(line) as { msg: string }).msg) } } } })
    t.teardown(() => host.close())
    await host.register(sipherSessions, { connectionString: 'postgres://unused', migrate: false, encryptionKeys, ...options })
  }
  for (const [option, message] of [
    [{ rateLimitFailOpen: 'false' }, 'The option rateLimitFailOpen is "false"; it must be true or false'],
    [{ rateLimit: 0 }, 'The option rateLimit is 0; it must be true or false'],
    [{ migrate: null }, 'The option migrate is null; it must be true or false'],
    [{ maxConnections: 'x' }, 'The option maxConnections is "x"; it must be a whole number from 1'],
    [{ maxConnections: 0 }, 'The option maxConnections is 0; it must be a whole number from 1'],
    [{ identify: {} }, 'The option identify is an object; it must be a function'],
    [{ docs: true }, 'The option docs is true; it must be where Swagger UI is, such as "/docs", or false'],
    [{ docs: () => {} }, 'The option docs is a function; it must be where Swagger UI is, such as "/docs", or false'],
    [{ docs: 'docs' }, 'The option docs is "docs"; it must be where Swagger UI is, such as "/docs", or false'],
    [{ publicUrl: 'foo' }, 'The option publicUrl is "foo"; it must be an http or https URL'],
    [{ prefix: 3 }, 'The option prefix is 3; it must be where the API is, such as "/v1"'],
    [{ onInvalid: 'ignor' }, 'The option onInvalid is "ignor"; it must be "refuse" or "ignore"'],
    [{ pooler: true }, 'The option pooler is true; it must be "transaction"'],
    [{ adminKey: 5 }, 'The option adminKey is 5; it must be a string'],
    [{ mapping: [] }, 'The option mapping is a list; it must be an object'],
    [{ mapping: { chain: 3 } }, 'The option mapping has the path 3; a path is like "network", "options.privacy" or "transfers[].chain"'],
    [{ auditRetentionDays: 1e9 }, 'The option auditRetentionDays is 1000000000; it must be a whole number from 1 to 36500'],
    [{ tierLimits: { pro: { requestPerHour: 2 } } }, 'The option tierLimits.pro names "requestPerHour"; did you mean "requestsPerHour"?'],
    [{ tierLimits: { pro: null } }, 'The option tierLimits.pro is null; it must be an object, such as { requestsPerHour: 20_000 }'],
    [{ tierLimits: { pro: { x: 2 } } }, 'The option tierLimits.pro names "x"; it takes requestsPerHour, sessions, maxSessions']
  ] as const) await t.rejects(register(option), { message })
  t.strictSame(lines, [])
  await register({ tierLimits: { pro: undefined }, mappings: {}, logLevel: 'warn', adminKey: undefined, prefix: '', docs: '/docs', publicUrl: 'https://a.example/b' })
  t.strictSame(lines, ['sipher-sessions has no option "mappings"; did you mean "mapping"?'])
})

t.test('a tier that there is not, and an identify that answers nothing, are told of', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { connectionString: 'postgres://unused', migrate: false, encryptionKeys, identify: (() => undefined) as never })
  t.throws(() => host.requireTier('prooo' as never), { message: 'requireTier needs one or more of free, pro, enterprise, of which "prooo" is none' })
  t.throws(() => host.requireTier(), { message: 'requireTier needs one or more of free, pro, enterprise' })
  host.setErrorHandler((error: Error, _request, reply) => reply.code(500).send(error.message))
  host.get('/mine', { onRequest: host.requirePrincipal }, async () => 'mine')
  t.equal((await host.inject('/mine')).body, 'identify answered undefined; it must answer an object with id and tier, or null')
})
