import { Type } from '@sinclair/typebox'
import t from 'tap'
import { answer, createKey, createPool, failure, startService } from '../../helpers.js'

const defaults = {
  chain: 'near',
  privacyLevel: 'shielded',
  rpcProvider: 'helius',
  backend: 'sip-native',
  defaultViewingKey: '0x7f2c9a41d05be38816c4'
}

t.test('POST /v1/sessions stores the defaults and answers 201 with the contract\'s body', async t => {
  const { service, connectionString } = await startService(t)
  const { id, headers } = await createKey(service)

  const before = Date.now()
  const response = await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults, ttlSeconds: 60 } })

  const { sessionId, createdAt, expiresAt } = response.json().data
  t.strictSame(answer(response), { status: 201, body: { success: true, data: { sessionId, defaults, createdAt, expiresAt } } })
  t.match(response.headers['content-type'], 'application/json')
  t.match(sessionId, /^sess_[0-9a-f]{64}$/)
  t.equal(expiresAt - createdAt, 60_000)
  t.ok(Math.abs(createdAt - before) < 10_000, 'times are milliseconds since the epoch')
  t.ok(Math.abs(Number.parseInt(sessionId.slice(5, 17), 16) - before) < 10_000, 'the id begins with its time')

  const { rows } = await createPool(t, connectionString).query('select encode(id, \'hex\') as id, owner_id, defaults from sipher_sessions.sessions')
  const { defaultViewingKey, ...plain } = defaults
  t.strictSame(rows, [{ id: sessionId.slice(5), owner_id: id, defaults: plain }], 'the secret one is elsewhere, encrypted')
})

t.test('a session lives an hour unless the request says otherwise, and may be empty', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service, 'enterprise')
  const response = await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
  const { createdAt, expiresAt, defaults } = response.json().data
  t.equal(response.statusCode, 201)
  t.equal(expiresAt - createdAt, 3_600_000)
  t.strictSame(defaults, {})
})

t.test('what is not valid is a 400 that names it, and nothing is stored', async t => {
  const { service, connectionString } = await startService(t)
  const { headers } = await createKey(service)
  const pool = createPool(t, connectionString)
  const ttl = (reason: string) => [{ field: 'ttlSeconds', reason }]

  const cases: [name: string, payload: unknown, details: { field: string, reason: string }[]][] = [
    ['a misspelt field', { defaults: { chian: 'near' } }, [{ field: 'defaults.chian', reason: 'is not a known field; did you mean "chain"?' }]],
    ['a field in another case', { defaults: { privacy_level: 'maximum' } }, [{ field: 'defaults.privacy_level', reason: 'is not a known field; did you mean "privacyLevel"?' }]],
    ['a part of a field\'s name', { defaults: { viewingKey: '0x1' } }, [{ field: 'defaults.viewingKey', reason: 'is not a known field; did you mean "defaultViewingKey"?' }]],
    ['a field that is near none', { defaults: { colour: 'red' } }, [{ field: 'defaults.colour', reason: 'is not a known field; known are chain, privacyLevel, rpcProvider, backend, defaultViewingKey' }]],
    ['a very long field', { defaults: { ['x'.repeat(300)]: 1 } }, [{ field: `defaults.${'x'.repeat(91)}…`, reason: 'is not a known field; known are chain, privacyLevel, rpcProvider, backend, defaultViewingKey' }]],
    ['an unknown field beside the defaults', { defaults: {}, ttl: 60 }, [{ field: 'ttl', reason: 'is not a known field; did you mean "ttlSeconds"?' }]],
    ['a misspelt value', { defaults: { rpcProvider: 'heluis' } }, [{ field: 'defaults.rpcProvider', reason: 'must be one of helius, quicknode, triton, generic; did you mean "helius"?' }]],
    ['a value of another type', { defaults: { backend: 7 } }, [
      { field: 'defaults.backend', reason: 'must be string' },
      { field: 'defaults.backend', reason: 'must be one of sip-native' }
    ]],
    ['a viewing key that is not hex', { defaults: { defaultViewingKey: '0xzz' } }, [{ field: 'defaults.defaultViewingKey', reason: 'must match pattern "^0x[0-9a-fA-F]+$"' }]],
    ['a viewing key over 512 bytes', { defaults: { defaultViewingKey: `0x${'0'.repeat(1025)}` } }, [{ field: 'defaults.defaultViewingKey', reason: 'must NOT have more than 1026 characters' }]],
    ['a time to live as a string', { defaults: {}, ttlSeconds: '600' }, ttl('must be integer')],
    ['a time to live below the least', { defaults: {}, ttlSeconds: 59 }, ttl('must be >= 60')],
    ['a time to live above the most', { defaults: {}, ttlSeconds: 86_401 }, ttl('must be <= 86400')],
    ['a time to live of null', { defaults: {}, ttlSeconds: null }, ttl('must be integer')],
    ['no defaults', {}, [{ field: 'defaults', reason: 'is missing' }]],
    ['defaults of null', { defaults: null }, [{ field: 'defaults', reason: 'must be object' }]],
    ['an array', [], [{ field: '(root)', reason: 'must be a JSON object' }]]
  ]
  for (const [name, payload, details] of cases) {
    const response = await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: payload as object })
    const [first] = details
    const more = details.length > 1 ? ` (and ${details.length - 1} more, in details)` : ''
    t.strictSame(answer(response), failure(400, 'VALIDATION_ERROR', `The body is not valid: ${first!.field} ${first!.reason}${more}`, details), name)
  }
  const { rows } = await pool.query('select count(*)::int as sessions from sipher_sessions.sessions')
  t.strictSame(rows, [{ sessions: 0 }])
})

t.test('of very many errors the first twenty are told, and each by the name that was sent', async t => {
  const { service } = await startService(t, { defaults: Type.Object({ options: Type.Optional(Type.Object({ 'a/b~c': Type.String() })) }) })
  const { headers } = await createKey(service)
  const fields = async (payload: object) => {
    const { error } = (await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload })).json()
    return error.details.map(({ field }: { field: string }) => field)
  }
  const many = Array.from({ length: 30 }, (_, i) => `x${i}`)
  t.strictSame(await fields({ defaults: Object.fromEntries(many.map(name => [name, 1])) }), many.slice(0, 20).map(name => `defaults.${name}`))
  t.strictSame(await fields({ defaults: { options: { 'a/b~c': 1 } } }), ['defaults.options.a/b~c'])
})

t.test('what is not a JSON body has a code of its own, and nothing is stored', async t => {
  const { service, connectionString } = await startService(t)
  const { headers } = await createKey(service)
  const json = { ...headers, 'content-type': 'application/json' }
  const post = (payload: string | undefined, headers: Record<string, string>) =>
    service.inject({ method: 'POST', url: '/v1/sessions', headers, ...(payload !== undefined && { payload }) })
  const invalidJson = (reason: string) => failure(400, 'INVALID_JSON', `The body is not valid JSON: ${reason}. Send one JSON object.`)

  t.strictSame(answer(await post('{"defaults":', json)), invalidJson('Unexpected end of JSON input'))
  for (const padding of [' ', ' '.repeat(100), '\n']) {
    const body = `{"padding":${padding}0,"defaultViewingKey": secret, "padding":${padding}0}`
    t.strictSame(answer(await post(body, json)), invalidJson('Unexpected token \'s\''), 'the parser\'s quotation of the body is left out')
  }
  t.strictSame(answer(await post('{"defaults":{"__proto__":{"chain":"near"}}}', json)), invalidJson('it sets __proto__ or constructor.prototype'))
  t.strictSame(answer(await post('{"defaults":{}}', { ...headers, 'content-type': 'text/plain' })),
    failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'This operation takes JSON. Send it with Content-Type: application/json.'))
  for (const body of [Buffer.from('{"defaults":{"chain":"n\u00e9ar"}}', 'latin1'), Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])]) {
    t.strictSame(answer(await service.inject({ method: 'POST', url: '/v1/sessions', headers: json, payload: body })), invalidJson('it is not UTF-8'))
  }
  for (const type of ['json', 'application/json/x', '; charset=utf-8']) {
    t.equal((await post('{"defaults":{}}', { ...headers, 'content-type': type })).json().error.code, 'UNSUPPORTED_MEDIA_TYPE', type)
  }
  const nothing = { ...headers, 'content-type': 'application/x-www-form-urlencoded' }
  for (const sent of [{}, { 'content-length': '0' }] as Record<string, string>[]) t.equal((await post(undefined, { ...nothing, ...sent })).json().error.code, 'VALIDATION_ERROR', 'no body is of no type')
  t.equal((await post('a', { ...nothing, 'transfer-encoding': 'chunked' })).json().error.code, 'UNSUPPORTED_MEDIA_TYPE')
  t.strictSame(answer(await post('{"defaults":{}}', { ...json, 'content-encoding': 'gzip' })), failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'A body with Content-Encoding gzip is not read. Send it without.'))
  t.equal((await post('{"defaults":1}', { ...json, 'content-encoding': 'Identity' })).json().error.code, 'VALIDATION_ERROR')
  t.strictSame(answer(await post(JSON.stringify({ defaults: {}, padding: 'x'.repeat(70_000) }), json)),
    failure(413, 'PAYLOAD_TOO_LARGE', 'The body is larger than the 65536 bytes that this operation takes. Send a smaller one.'))
  const nested = (depth: number) => `{"defaults":${'['.repeat(depth)}"]\\"["${']'.repeat(depth)}}`
  t.strictSame(answer(await post(nested(100), json)), failure(400, 'INVALID_JSON', 'The body is not taken: it is nested more than 100 levels deep.'))
  t.equal((await post(nested(99), json)).json().error.code, 'VALIDATION_ERROR')
  const wrongLength = await service.inject({ method: 'POST', url: '/v1/sessions', headers: { ...json, 'content-length': '3' }, payload: '{"defaults":{}}' })
  t.strictSame(answer(wrongLength), failure(400, 'VALIDATION_ERROR', 'The request is not valid: request Request body size did not match Content-Length',
    [{ field: 'request', reason: 'Request body size did not match Content-Length' }]))
  for (const body of [undefined, '']) {
    t.strictSame(answer(await post(body, json)),
      failure(400, 'VALIDATION_ERROR', 'The body is not valid: (root) must be a JSON object', [{ field: '(root)', reason: 'must be a JSON object' }]))
  }
  const { rows } = await createPool(t, connectionString).query('select count(*)::int as sessions from sipher_sessions.sessions')
  t.strictSame(rows, [{ sessions: 0 }])
})
