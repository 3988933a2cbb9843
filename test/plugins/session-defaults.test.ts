import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect, type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance, type FastifyRequest, type InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import { z } from 'zod'
import { exchange } from '../gateway/helpers.js'
import sipherSessions, { type SipherSessionsOptions } from '../../src/index.js'
import { answer, createDatabase, createKey, createSession, encryptionKeys, failure, sendInTwo, unknownSessionId } from '../helpers.js'

const { String, Number, Object: Obj, Optional, Array: Arr } = Type

/** A host app whose routes answer what they were given. */
async function startHost (t: Test, addRoutes: (host: FastifyInstance) => void, options: Partial<SipherSessionsOptions> = {}) {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, ...options })
  addRoutes(host)
  await host.ready()
  const { id, key, headers } = await createKey(host)
  const sessionId = await createSession(host, key, { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' })
  const send = async (request: InjectOptions) => {
    const response = await host.inject({ ...request, headers: { ...headers, 'x-session-id': sessionId, ...request.headers } })
    return { status: response.statusCode, applied: response.headers['x-session-applied'], body: response.json() }
  }
  return { host, id, key, headers, sessionId, send }
}

const transfer = Obj({
  amount: Number(),
  chain: Optional(String({ default: 'ethereum' })),
  privacyLevel: Optional(Type.Union([String(), Type.Null()]))
}, { additionalProperties: false })

t.test('a session fills in what the body leaves out, before validation, where the schema has the property', async t => {
  const { send } = await startHost(t, host => {
    host.post('/transfer', { schema: { body: transfer } }, async request => request.body)
    host.post('/required', { schema: { body: Obj({ chain: String(), defaultViewingKey: String() }) } }, async request => request.body)
  })
  t.strictSame(await send({ method: 'POST', url: '/transfer', payload: { amount: 1 } }),
    { status: 200, applied: 'chain, privacyLevel', body: { amount: 1, chain: 'near', privacyLevel: 'shielded' } }, 'before the schema\'s own default')
  t.strictSame(await send({ method: 'POST', url: '/transfer', payload: { amount: 1, chain: 'sui' } }),
    { status: 200, applied: 'privacyLevel', body: { amount: 1, chain: 'sui', privacyLevel: 'shielded' } }, 'what was sent wins')
  t.strictSame(await send({ method: 'POST', url: '/transfer', payload: { amount: 1, chain: 'sui', privacyLevel: 'x' } }),
    { status: 200, applied: undefined, body: { amount: 1, chain: 'sui', privacyLevel: 'x' } }, 'nothing to fill in')
  t.strictSame(await send({ method: 'POST', url: '/required' }),
    { status: 200, applied: 'chain, defaultViewingKey', body: { chain: 'near', defaultViewingKey: '0xabc' } }, 'a body-less POST gets an object')
})

t.test('what the caller sent wins, whatever its value', async t => {
  const { send } = await startHost(t, host => {
    host.post('/any', { schema: { body: Obj({ chain: Type.Unknown(), privacyLevel: Type.Unknown() }) } }, async request => request.body)
  })
  for (const value of [false, 0, '', null]) {
    t.strictSame(await send({ method: 'POST', url: '/any', payload: { chain: value, privacyLevel: value } }),
      { status: 200, applied: undefined, body: { chain: value, privacyLevel: value } }, JSON.stringify(value))
  }
})

t.test('a route that fails to apply a session does not run, whatever it throws', async t => {
  let ran = 0
  const { send } = await startHost(t, host => {
    for (const [url, thrown] of Object.entries({ '/error': new Error('no'), '/nothing': undefined, '/empty': '', '/status': { statusCode: 418 } })) {
      host.get(url, { config: { sessionDefaults: () => { throw thrown } } }, async () => { ran++; return {} })
    }
  })
  for (const [url, status] of [['/error', 500], ['/nothing', 500], ['/empty', 500], ['/status', 418]] as const) t.equal((await send({ url })).status, status, url)
  t.equal(ran, 0)
})

t.test('query strings are filled in as bodies are', async t => {
  const { send } = await startHost(t, host => {
    host.get('/quote', { schema: { querystring: Obj({ chain: String(), amount: Optional(Number()) }) } }, async request => request.query as object)
    host.post('/both', { schema: { querystring: Obj({ chain: String() }), body: Obj({ privacyLevel: String() }) } }, async ({ query, body }) => ({ query, body }))
  })
  t.strictSame(await send({ url: '/quote?amount=5' }), { status: 200, applied: 'chain', body: { chain: 'near', amount: 5 } })
  t.strictSame(await send({ url: '/quote?chain=' }), { status: 200, applied: undefined, body: { chain: '' } })
  t.strictSame(await send({ method: 'POST', url: '/both', payload: {} }),
    { status: 200, applied: 'chain, privacyLevel', body: { query: { chain: 'near' }, body: { privacyLevel: 'shielded' } } })
})

t.test('a route without a schema takes all values in a JSON object body', async t => {
  const all = { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' }
  const { send, host, headers, sessionId } = await startHost(t, host => {
    host.removeContentTypeParser('application/json')
    host.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, text: string, done) => done(null, text === '' ? undefined : JSON.parse(text)))
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const) {
      host.route({ method, url: '/free', handler: async request => ({ body: request.body ?? null, session: request.sessionDefaults }) })
    }
    host.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload))
    host.addContentTypeParser('*', (_request, payload, done) => payload.resume().on('end', () => done(null)))
    host.addContentTypeParser('multipart/form-data', (_request, payload, done) => payload.resume().on('end', () => done(null, { field: { value: 'x' } })))
    host.post('/stream', async request => ({ isStream: typeof (request.body as { pipe?: unknown }).pipe === 'function' }))
  })
  const applied = 'chain, privacyLevel, defaultViewingKey'
  t.strictSame(await send({ method: 'POST', url: '/free', payload: { amount: 1 } }), { status: 200, applied, body: { body: { amount: 1, ...all }, session: all } })
  for (const method of ['POST', 'PUT', 'PATCH'] as const) {
    t.strictSame(await send({ method, url: '/free' }), { status: 200, applied, body: { body: all, session: all } }, method)
  }
  for (const method of ['GET', 'DELETE'] as const) {
    t.strictSame(await send({ method, url: '/free' }), { status: 200, applied: undefined, body: { body: null, session: all } }, method)
  }
  t.strictSame(await send({ method: 'DELETE', url: '/free', payload: { amount: 1 } }), { status: 200, applied, body: { body: { amount: 1, ...all }, session: all } })

  for (const [name, payload] of [['an array', [1]], ['a string', '"text"'], ['null', 'null']] as const) {
    const response = await send({ method: 'POST', url: '/free', payload: payload as object, headers: { 'content-type': 'application/json' } })
    t.strictSame(response, { status: 200, applied: undefined, body: { body: typeof payload === 'string' ? JSON.parse(payload) : payload, session: all } }, `${name} is left alone`)
  }
  t.strictSame(await send({ method: 'POST', url: '/free', payload: '--b--', headers: { 'content-type': 'multipart/form-data; boundary=b' } }),
    { status: 200, applied: undefined, body: { body: { field: { value: 'x' } }, session: all } }, 'multipart is left alone')
  t.strictSame(await send({ method: 'POST', url: '/stream', payload: 'bytes', headers: { 'content-type': 'application/octet-stream' } }),
    { status: 200, applied: undefined, body: { isStream: true } }, 'a stream is left alone')
  t.equal((await host.inject({ method: 'POST', url: '/free' })).json().session, null, 'without the header there is no session')

  const origin = await host.listen({ port: 0, host: '127.0.0.1' })
  const inChunks = async (text: string, type?: string) => {
    const body = new ReadableStream({ start (controller) { if (text) controller.enqueue(new TextEncoder().encode(text)); controller.close() } })
    const response = await fetch(`${origin}/free`, { method: 'POST', duplex: 'half', body, headers: { ...headers, 'x-session-id': sessionId, ...(type && { 'content-type': type }) } } as RequestInit)
    return await response.json() as object
  }
  t.match(await inChunks('{"amount":1}', 'application/json'), { body: { amount: 1, ...all } })
  t.match(await inChunks('', 'application/json'), { body: all }, 'no chunks are no body')
  t.strictSame(await inChunks('bytes'), { body: null, session: all }, 'what a parser drops was a body all the same')
})

t.test('a default of a property that a strict route does not have is not put there', async t => {
  const { send } = await startHost(t, host => {
    host.post('/strict', { schema: { body: Obj({ amount: Number() }, { additionalProperties: false }) } }, async request => request.body)
    host.post('/empty', { schema: { body: Obj({}) } }, async request => request.body)
    host.get('/params/:id', { schema: { querystring: Obj({ page: Optional(Number()) }) } }, async request => request.query as object)
  })
  t.strictSame(await send({ method: 'POST', url: '/strict', payload: { amount: 1 } }), { status: 200, applied: undefined, body: { amount: 1 } })
  t.strictSame(await send({ method: 'POST', url: '/empty', payload: { amount: 1 } }), { status: 200, applied: undefined, body: { amount: 1 } })
  t.strictSame(await send({ url: '/params/1' }), { status: 200, applied: undefined, body: {} })
})

t.test('a session\'s value that the route does not allow is the host\'s validation error', async t => {
  const { send } = await startHost(t, host => {
    host.post('/solana', { schema: { body: Obj({ chain: Type.Literal('solana') }) } }, async request => request.body)
  })
  const { status, applied, body } = await send({ method: 'POST', url: '/solana', payload: {} })
  t.strictSame({ status, applied, code: body.code }, { status: 400, applied: 'chain', code: 'FST_ERR_VALIDATION' })
})

t.test('__proto__ in a body is refused and pollutes nothing', async t => {
  const { send } = await startHost(t, host => host.post('/free', async request => request.body))
  const response = await send({ method: 'POST', url: '/free', payload: '{"__proto__":{"chain":"sui"}}', headers: { 'content-type': 'application/json' } })
  t.equal(response.status, 400)
  t.equal(({} as { chain?: string }).chain, undefined)
})

t.test('properties are found behind references, in parts of a whole, and by media type', async t => {
  const { send } = await startHost(t, host => {
    host.addSchema({ $id: 'shared', type: 'object', properties: { chain: { $ref: '#/definitions/name' } }, definitions: { name: { type: 'string' }, level: { type: 'object', properties: { privacyLevel: { type: 'string' } } } } })
    host.addSchema({ $id: '#hash', type: 'object', properties: { defaultViewingKey: { type: 'string' } } })
    const routes: Record<string, object> = {
      shared: { $ref: 'shared#' },
      hash: { anyOf: [{ $ref: '#hash' }] },
      fragment: { $ref: 'shared#/definitions/level' },
      local: { type: 'object', allOf: [{ $ref: '#/definitions/a' }], definitions: { a: { type: 'object', properties: { chain: { type: 'string' } } } } },
      parts: { type: 'object', allOf: [{ $ref: 'shared#' }, { type: 'object', properties: { privacyLevel: { type: 'string' } } }] },
      choice: { anyOf: [{ type: 'object', properties: { chain: { type: 'string' } } }, { type: 'object', properties: { other: { type: 'string' } } }] },
      media: { content: { 'application/json': { schema: { type: 'object', properties: { privacyLevel: { type: 'string' } } } } } }
    }
    for (const [name, body] of Object.entries(routes)) host.post(`/${name}`, { schema: { body } }, async request => request.body)
  })
  const expected: Record<string, string> = { shared: 'chain', hash: 'defaultViewingKey', fragment: 'privacyLevel', local: 'chain', parts: 'chain, privacyLevel', choice: 'chain', media: 'privacyLevel' }
  for (const [name, applied] of Object.entries(expected)) {
    t.equal((await send({ method: 'POST', url: `/${name}`, payload: {} })).applied, applied, name)
  }
})

t.test('a route can narrow what it takes, or take nothing', async t => {
  const { send } = await startHost(t, host => {
    host.post('/some', { config: { sessionDefaults: ['chain'] } }, async request => request.body)
    host.post('/none', { config: { sessionDefaults: false } }, async request => request.body ?? { session: request.sessionDefaults })
  })
  t.strictSame(await send({ method: 'POST', url: '/some' }), { status: 200, applied: 'chain', body: { chain: 'near' } })
  t.strictSame(await send({ method: 'POST', url: '/none' }), { status: 200, applied: undefined, body: { session: null } })
})

t.test('a request that names no session of the caller\'s is refused in the API\'s envelope, and the handler does not run', async t => {
  let runs = 0
  const { host, key, headers, sessionId } = await startHost(t, host => {
    host.post('/count', { schema: { response: { 404: Obj({ oops: String() }) } } }, async () => ({ runs: ++runs }))
  })
  const post = async (headers: Record<string, string>) => answer(await host.inject({ method: 'POST', url: '/count', headers }))
  const malformed = failure(400, 'VALIDATION_ERROR', 'The request is not valid: X-Session-Id must be sess_ and 64 lower-case hex digits, as createSession answered it',
    [{ field: 'X-Session-Id', reason: 'must be sess_ and 64 lower-case hex digits, as createSession answered it' }])
  const notFound = failure(404, 'SESSION_NOT_FOUND', 'There is no such session for this key. It may have expired or been deleted; create a new one with POST /v1/sessions.')

  for (const id of ['', 'nope', sessionId.toUpperCase(), `${sessionId}, ${sessionId}`]) {
    t.strictSame(await post({ ...headers, 'x-session-id': id }), malformed, `malformed: ${id.slice(0, 20)}`)
  }
  t.strictSame(await post({ ...headers, 'x-session-id': unknownSessionId }), notFound, 'unknown')
  t.strictSame(await post({ ...(await createKey(host)).headers, 'x-session-id': sessionId }), notFound, 'another key\'s')
  await host.sessionDatabase.query('update sipher_sessions.sessions set expires_at = now()')
  t.strictSame(await post({ ...headers, 'x-session-id': sessionId }), notFound, 'expired')
  t.equal((await post({ 'x-session-id': sessionId })).status, 401, 'no key')
  t.equal((await post({ 'x-api-key': `${key}x`, 'x-session-id': sessionId })).status, 401, 'no valid key')
  t.equal(runs, 0)
  t.strictSame(await post({}), { status: 200, body: { runs: 1 } }, 'without the header nothing is asked')
})

t.test('a session that is deleted while a body is on its way is not used, nor one of a key that is revoked', async t => {
  const { host, id, key, headers, sessionId } = await startHost(t, host => host.post('/free', async request => request.body))
  await host.listen({ host: '127.0.0.1', port: 0 })
  const send = (sessionId: string, meanwhile: () => Promise<void>) => sendInTwo(t, host, id, { path: '/free', headers: { ...headers, 'x-session-id': sessionId }, body: '{}' }, meanwhile)
  const patched = await send(sessionId, async () => {
    t.equal((await host.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chain: 'sui' } } })).statusCode, 200)
  })
  t.match(patched, /"chain":"sui"/)
  const deleted = await send(sessionId, async () => {
    t.equal((await host.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)
  })
  t.match(deleted, /^HTTP\/1\.1 404 Not Found\r\n[^]*"SESSION_NOT_FOUND"/)
  const another = await createSession(host, key)
  const lowered = await send(another, async () => { await host.apiKeyRepository.update(id, { tier: 'free' }) })
  t.match(lowered, /^HTTP\/1\.1 403 Forbidden\r\n[^]*"TIER_ACCESS_DENIED"/)
  await host.apiKeyRepository.update(id, { tier: 'pro' })
  const revoked = await send(another, () => host.apiKeyRepository.revoke(id))
  t.match(revoked, /^HTTP\/1\.1 401 Unauthorized\r\n[^]*"INVALID_API_KEY"/)
})

t.test('answers to GET that depend on the session say so to caches, and keep what the host says', async t => {
  const querystring = Obj({ chain: Optional(String()) })
  const { host, headers, sessionId } = await startHost(t, host => {
    host.get('/takes', { schema: { querystring } }, async request => request.query)
    host.get('/own', { schema: { querystring }, onSend: async (_request, reply) => { reply.header('vary', 'Accept, x-session-id') } }, async () => 'text')
    host.get('/function', { config: { sessionDefaults: () => [] } }, async () => 'text')
    host.get('/nothing', async () => 'text')
    host.get('/refuses', { schema: { querystring }, config: { sessionDefaults: false } }, async () => 'text')
    host.post('/post', { schema: { querystring } }, async () => 'text')
    host.route({ method: 'QUERY', url: '/takes', schema: { querystring, body: querystring }, handler: async request => request.body })
  })
  const varyOf = async (method: 'GET' | 'HEAD' | 'POST' | 'QUERY', url: string, sent: object = {}) => (await host.inject({ method: method as 'GET', url, headers: { ...sent } })).headers.vary
  const ofKey = 'X-Session-Id, X-API-Key, Authorization'
  for (const [sent, names] of [[{}, 'X-Session-Id'], [{ ...headers, 'x-session-id': sessionId }, ofKey], [{ ...headers, 'x-session-id': unknownSessionId }, ofKey]] as const) {
    t.equal(await varyOf('GET', '/takes', sent), names)
    t.equal(await varyOf('HEAD', '/takes', sent), names)
    t.equal(await varyOf('QUERY', '/takes', sent), names)
    t.equal(await varyOf('GET', '/function', sent), names)
  }
  t.equal(await varyOf('GET', '/own'), 'Accept, x-session-id')
  t.equal(await varyOf('GET', '/refuses'), undefined)
  t.equal(await varyOf('GET', '/v1/health'), undefined)
  for (const [sent, names] of [[{}, 'X-Session-Id'], [{ ...headers, 'x-session-id': sessionId }, ofKey]] as const) t.equal(await varyOf('GET', '/nothing', sent), names, 'its handler may look')
  t.equal((await host.inject({ url: '/nothing', headers: { ...headers, 'x-session-id': unknownSessionId } })).headers['cache-control'], 'no-store', 'a refusal is for nobody else')
  t.equal(await varyOf('POST', '/post'), undefined)
})

t.test('where the host says who asks, what answers vary by besides the session is for it to say', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, identify: () => ({ id: 'ann', tier: 'pro' }) })
  host.get('/x', async () => 'text')
  const sessionId = await createSession(host, '')
  t.equal((await host.inject({ url: '/x', headers: { 'x-session-id': sessionId } })).headers.vary, 'X-Session-Id')
})

t.test('JSON that a route does not parse is refused where it would be filled in', async t => {
  const { send, headers, host } = await startHost(t, host => {
    const echo = async ({ body }: FastifyRequest) => ({ got: `${body as string}` })
    host.post('/parsed', echo)
    for (const [prefix, parseAs] of [['/text', 'string'], ['/bytes', 'buffer']] as const) {
      void host.register(async scope => {
        scope.removeContentTypeParser('application/json')
        scope.addContentTypeParser(['application/json', 'text/plain'], { parseAs }, (_request, body, done) => { done(null, body) })
        scope.post('/free', echo)
        scope.post('/list', { schema: { body: Type.Unsafe({ items: { properties: { key: {} } } }) }, validatorCompiler: () => () => true }, echo)
        scope.post('/viewing', { schema: { body: Type.Unsafe({ properties: { rpcProvider: {} } }) }, validatorCompiler: () => () => true }, echo)
        scope.post('/none', { config: { sessionDefaults: false } }, echo)
      }, { prefix })
    }
  }, { mapping: { defaultViewingKey: '[].key' } })
  const refused = failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'The session\'s defaults go into the JSON body, which this route does not parse. Send no X-Session-Id; the route has to take them by a function in config.sessionDefaults, or to leave them by false.')
  const post = (url: string, payload: string, type = 'application/json') => send({ method: 'POST', url, payload, headers: { 'content-type': type } })
  for (const prefix of ['/text', '/bytes']) {
    for (const payload of ['{"a":1}', ' \n{}', '[{}]', '']) t.strictSame(await post(`${prefix}/free`, payload), { ...refused, applied: undefined }, payload)
    for (const payload of ['"x"', '1', ' ']) t.strictSame(await post(`${prefix}/free`, payload), { status: 200, applied: undefined, body: { got: payload } }, payload)
    t.strictSame(await post(`${prefix}/list`, '[{}]'), { ...refused, applied: undefined })
    for (const [path, payload] of [['/list', '{}'], ['/viewing', '{}'], ['/none', '{"a":1}']] as const) t.strictSame(await post(prefix + path, payload), { status: 200, applied: undefined, body: { got: payload } }, path)
    t.equal((await post(`${prefix}/free`, '{}', 'text/plain')).status, 200)
    t.equal((await host.inject({ method: 'POST', url: `${prefix}/free`, payload: '{}', headers: { ...headers, 'content-type': 'application/json' } })).body, '{"got":"{}"}', 'without a session it is served')
  }
  t.strictSame(await post('/bytes/free', '\ufeff{"a":1}'), { ...refused, applied: undefined }, 'after a byte order mark')
  for (const text of ['x', '', '{hello} world']) t.strictSame(await post('/parsed', JSON.stringify(text)), { status: 200, applied: undefined, body: { got: text } })
})

t.test('JSON that is no object is refused where a schema has defaults, which handlers take for no body', async t => {
  const nullable = { schema: { body: Type.Unsafe({ type: ['object', 'array', 'string', 'number', 'boolean', 'null'], properties: { chain: {} } }) } }
  const { send, headers, host } = await startHost(t, host => {
    const echo = async ({ body }: FastifyRequest) => ({ got: body })
    host.post('/nullable', nullable, echo)
    host.put('/other', { schema: { body: Type.Unsafe({ properties: { rpcProvider: {} } }) } }, echo)
    void host.register(async scope => {
      scope.removeContentTypeParser('application/json')
      scope.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => { done(null, body) })
      scope.post('/text', nullable, echo)
    })
  })
  const reason = 'must be an object or a list, into which the session\'s defaults go; send one, or nothing, or send no X-Session-Id'
  const refused = { ...failure(400, 'VALIDATION_ERROR', `The body is not valid: body ${reason}`, [{ field: 'body', reason }]), applied: undefined }
  const json = { 'content-type': 'application/json' }
  for (const url of ['/nullable', '/text']) {
    for (const payload of ['null', '"x"', '5', 'false']) t.strictSame(await send({ method: 'POST', url, payload, headers: json }), refused, `${payload} to ${url}`)
  }
  t.strictSame(await send({ method: 'POST', url: '/nullable', payload: '[]', headers: json }), { status: 200, applied: undefined, body: { got: [] } }, 'lists are left alone')
  t.strictSame(await send({ method: 'POST', url: '/nullable', payload: 'x', headers: { 'content-type': 'text/plain' } }), { status: 200, applied: undefined, body: { got: 'x' } }, 'and text')
  t.strictSame(await send({ method: 'PUT', url: '/other', payload: 'null', headers: json }), { status: 200, applied: undefined, body: { got: null } }, 'what would get nothing as well')
  t.equal((await host.inject({ method: 'POST', url: '/nullable', payload: 'null', headers: { ...headers, ...json } })).body, '{"got":null}', 'without a session it is served')
})

t.test('a body takes what the schema of its media type has', async t => {
  const { send } = await startHost(t, host => {
    host.addContentTypeParser(['application/merge-patch+json', 'application/other+json'], { parseAs: 'string' }, (_request, body, done) => { done(null, JSON.parse(body as string)) })
    const content = {
      'application/json': { schema: { type: 'object', properties: { chain: {}, memo: {} } } },
      'application/merge-patch+json': { schema: { type: 'object', properties: { memo: {}, privacyLevel: {} } } }
    }
    host.patch('/rec', { schema: { body: { content } } }, async ({ body }) => body)
  })
  const patch = (payload: string, type: string) => send({ method: 'PATCH', url: '/rec', payload, headers: { 'content-type': type } })
  t.strictSame(await patch('{"memo":"x"}', 'Application/JSON; charset=utf-8'), { status: 200, applied: 'chain', body: { memo: 'x', chain: 'near' } })
  t.strictSame(await patch('{"memo":"x"}', 'application/merge-patch+json'), { status: 200, applied: 'privacyLevel', body: { memo: 'x', privacyLevel: 'shielded' } })
  t.strictSame(await patch('{"memo":"x"}', 'application/json; v=2'), { status: 200, applied: 'chain', body: { memo: 'x', chain: 'near' } })
  t.strictSame(await patch('{"memo":"x"}', 'application/other+json'), { status: 200, applied: 'chain, privacyLevel', body: { memo: 'x', chain: 'near', privacyLevel: 'shielded' } }, 'of a type that none is for, all')
  t.strictSame(await send({ method: 'PATCH', url: '/rec' }), { status: 200, applied: 'chain', body: { chain: 'near' } }, 'a body that is made is JSON')
})

t.test('a place within a map of any names, or a list of anything, is what the host says', async t => {
  const notOpen = [
    { additionalProperties: { type: 'number' } }, { additionalProperties: { enum: ['x'] } }, { maxProperties: 0 }, { propertyNames: { enum: ['x'] } }, { anyOf: [{ type: 'object' }] },
    { dependencies: { memo: { properties: { num: {} } } } }, { patternProperties: { '^x': {} } }, { patternProperties: { '^.*$': {}, '^x': {} } }, { patternProperties: {} }, { patternProperties: { '^(.*)$': { type: 'number' } } },
    Type.Record(String(), String({ format: 'uuid' })), { additionalProperties: { type: 'string', maxLength: 2 } }, { additionalProperties: { type: 'string' }, required: ['a'] }, { type: undefined, required: ['a'] }
  ]
  const { send } = await startHost(t, host => {
    const echo = async ({ body }: FastifyRequest) => body
    host.post('/graphql', { schema: { body: { type: 'object', properties: { variables: { type: ['object', 'null'], additionalProperties: true } } } } }, echo)
    host.post('/list', { schema: { body: { type: 'object', properties: { list: { type: 'array' } } } } }, echo)
    host.post('/closed', { schema: { body: { type: 'object', properties: { variables: { type: 'object', properties: { amount: {} } }, list: { type: 'array', items: { type: 'string' } } } } } }, echo)
    host.post('/open', { schema: { body: { type: 'object', additionalProperties: true } } }, echo)
    for (const [i, variables] of notOpen.entries()) {
      host.post(`/not/${i}`, { schema: { body: { type: 'object', properties: { variables: { type: 'object', ...variables } } } } }, echo)
    }
    for (const [i, variables] of [{ type: 'object', additionalProperties: {} }, Type.Record(String(), Type.Unknown()), Type.Record(String(), String()), { type: 'object', additionalProperties: { type: ['string', 'null'] } }, { patternProperties: { '^.*$': true } }, Type.Any()].entries()) {
      host.post(`/any/${i}`, { schema: { body: { type: 'object', properties: { variables } } } }, echo)
    }
    host.post('/listed', { schema: { body: Obj({ list: Arr(Type.Any()) }) } }, echo)
  }, { mapping: { chain: 'variables.chain', privacyLevel: 'list[].of.level', defaultViewingKey: ['key', 'list'] } })
  const post = (url: string, payload: object) => send({ method: 'POST', url, payload })
  t.strictSame(await post('/graphql', { variables: { amount: 5 } }), { status: 200, applied: 'chain', body: { variables: { amount: 5, chain: 'near' } } })
  t.strictSame(await post('/graphql', {}), { status: 200, applied: 'chain', body: { variables: { chain: 'near' } } })
  t.strictSame(await post('/graphql', { variables: null }), { status: 200, applied: undefined, body: { variables: null } })
  t.strictSame(await post('/list', { list: [{}, { of: {} }] }), { status: 200, applied: 'privacyLevel', body: { list: [{ of: { level: 'shielded' } }, { of: { level: 'shielded' } }] } })
  t.strictSame(await post('/closed', { variables: {}, list: [] }), { status: 200, applied: undefined, body: { variables: {}, list: [] } })
  for (const i of notOpen.keys()) t.strictSame(await post(`/not/${i}`, {}), { status: 200, applied: undefined, body: {} }, 'which may not have it')
  for (let i = 0; i < 6; i++) t.strictSame(await post(`/any/${i}`, { variables: {} }), { status: 200, applied: 'chain', body: { variables: { chain: 'near' } } })
  t.strictSame(await post('/listed', { list: [{}, 'x'] }), { status: 200, applied: 'privacyLevel', body: { list: [{ of: { level: 'shielded' } }, 'x'] } })
  t.strictSame(await post('/open', {}), { status: 200, applied: undefined, body: {} }, 'a map of any names takes nothing by itself')
})

t.test('at the start a warning tells of handlers that sessions do not reach', async t => {
  const warnings = async (decorate: boolean) => {
    const lines: string[] = []
    const host = Fastify({ logger: { level: 'warn', stream: { write (line: string) { lines.push((JSON.parse(line) as { msg: string }).msg) } } } })
    t.teardown(() => host.close())
    await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
    host.post('/x', async () => 'text')
    // As both plugins do.
    if (decorate) host.decorate('use', () => {})
    await host.ready()
    return lines
  }
  t.strictSame(await warnings(false), [])
  t.match(await warnings(true), [/^Handlers of @fastify\/express and @fastify\/middie answer before a session is looked at: /])
})

t.test('what the host\'s 404 handler serves takes defaults, or is refused, like any route', async t => {
  const { send } = await startHost(t, host => host.setNotFoundHandler((request, reply) => reply.code(200).send({ fallback: request.body ?? null, session: request.sessionDefaults })))
  const session = { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' }
  t.strictSame(await send({ method: 'POST', url: '/nowhere', payload: { chain: 'sui' } }), { status: 200, applied: 'privacyLevel, defaultViewingKey', body: { fallback: { ...session, chain: 'sui' }, session } })
  t.equal((await send({ url: '/nowhere', headers: { 'x-session-id': unknownSessionId } })).status, 404)
  t.equal((await send({ url: '/nowhere', headers: { 'x-session-id': 'nope' } })).body.error.code, 'VALIDATION_ERROR')
})

t.test('onInvalid: ignore runs such a request without defaults, and refuses it still when the database is down', async t => {
  const { host, headers, sessionId, send } = await startHost(t, host => host.post('/free', async request => request.body ?? {}), { onInvalid: 'ignore' })
  t.equal((await send({ method: 'POST', url: '/free' })).applied, 'chain, privacyLevel, defaultViewingKey')
  for (const id of ['nope', unknownSessionId]) {
    t.strictSame(await send({ method: 'POST', url: '/free', headers: { 'x-session-id': id } }), { status: 200, applied: undefined, body: {} })
  }
  t.strictSame(answer(await host.inject({ method: 'POST', url: '/free', headers: { 'x-session-id': sessionId } })), { status: 200, body: {} })
  await host.sessionDatabase.query('alter table sipher_sessions.sessions rename to hidden')
  t.equal((await host.inject({ method: 'POST', url: '/free', headers: { ...headers, 'x-session-id': sessionId } })).json().error.code, 'SERVICE_UNAVAILABLE')
})

t.test('onInvalid: ignore does not serve for a key that is revoked meanwhile what is served for none without', async t => {
  const { host, id, headers, sessionId } = await startHost(t, host => {
    const answer = async (request: FastifyRequest) => ({ principal: request.principal, session: request.sessionDefaults, body: request.body })
    host.post('/guarded', { onRequest: host.requirePrincipal }, answer)
    host.post('/tier', { onRequest: host.requireTier('pro') }, answer)
    host.post('/function', { config: { sessionDefaults: async (_request, _values, readAgain) => Object.keys(await readAgain()) } }, answer)
    host.post('/deleting', {
      config: {
        async sessionDefaults (request, _values, readAgain) {
          await host.sessionRepository.delete(request.headers['x-session-id'] as string, request.principal!.id)
          return Object.keys(await readAgain())
        }
      }
    }, answer)
  }, { onInvalid: 'ignore' })
  await host.listen({ host: '127.0.0.1', port: 0 })
  const send = (path: string, meanwhile: () => Promise<void>) => sendInTwo(t, host, id, { path, headers: { ...headers, 'x-session-id': sessionId }, body: '{}' }, meanwhile)
  const session = '{"chain":"near","privacyLevel":"shielded","defaultViewingKey":"0xabc"}'
  t.match(await send('/function', async () => {}), `"session":${session},"body":{}}`)
  t.match(await send('/guarded', async () => { await host.apiKeyRepository.update(id, { tier: 'free' }) }), `{"principal":{"id":"${id}","tier":"free"},"session":null,"body":{}}`)
  await host.apiKeyRepository.update(id, { tier: 'pro' })
  t.match((await host.inject({ method: 'POST', url: '/deleting', headers: { ...headers, 'x-session-id': sessionId }, payload: {} })).json(), { session: null })
  for (const sessionId of ['bad', unknownSessionId]) {
    const other = await createKey(host)
    const request = { path: '/tier', headers: { ...other.headers, 'x-session-id': sessionId }, body: '{}' }
    t.match(await sendInTwo(t, host, other.id, request, () => host.apiKeyRepository.revoke(other.id)), /^HTTP\/1\.1 401 [^]*INVALID_API_KEY/, 'nor where the tier alone is required')
  }
  t.match(await send('/guarded', async () => { await host.apiKeyRepository.rotate(id, 0) }), /^HTTP\/1\.1 401 [^]*INVALID_API_KEY/)
})

t.test('onInvalid: ignore runs a request for nobody whose key is revoked while its body is on its way', async t => {
  const { host, id, headers, sessionId } = await startHost(t, host => {
    host.post('/free', async request => ({ principal: request.principal, session: request.sessionDefaults, body: request.body }))
  }, { onInvalid: 'ignore' })
  await host.listen({ host: '127.0.0.1', port: 0 })
  t.match(await sendInTwo(t, host, id, { path: '/free', headers: { ...headers, 'x-session-id': sessionId }, body: '{}' }, () => host.apiKeyRepository.revoke(id)), '{"principal":null,"session":null,"body":{}}')
})

t.test('onInvalid: ignore lets nobody past a limit', async t => {
  const { send } = await startHost(t, host => { host.post('/free', async request => request.body ?? {}) }, { onInvalid: 'ignore', tierLimits: { pro: { requestsPerHour: 2 } } })
  t.strictSame([(await send({ method: 'POST', url: '/free' })).status, (await send({ method: 'POST', url: '/free' })).status], [200, 429])
})

t.test('requests of one turn of the event loop get values of their own', async t => {
  const defaults = Obj({ options: Obj({ tags: Arr(String()) }) })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults })
  host.post('/tag', async request => {
    const { options } = request.body as { options: { tags: string[] } }
    options.tags.push(request.headers['x-tag'] as string)
    return options.tags
  })
  await host.ready()
  const { key, headers } = await createKey(host)
  const sessionId = await createSession(host, key, { options: { tags: [] } })
  const responses = await Promise.all(['a', 'b', 'c'].map(tag =>
    host.inject({ method: 'POST', url: '/tag', headers: { ...headers, 'x-session-id': sessionId, 'x-tag': tag } })))
  t.strictSame(responses.map(response => response.json()), [['a'], ['b'], ['c']])
})

t.test('a host maps defaults to other names, to nested properties and to the items of an array', async t => {
  const mapping = { chain: ['network', 'transfers[].network'], privacyLevel: 'options.privacy', defaultViewingKey: '[].key' }
  const item = Obj({ network: Optional(String()) }, { additionalProperties: false })
  const { send } = await startHost(t, host => {
    const echo = async (request: { body: unknown }) => request.body
    host.post('/one', { schema: { body: Obj({ network: String(), options: Optional(Obj({ privacy: Optional(String()), fast: Optional(Type.Boolean()) })) }, { additionalProperties: false }) } }, echo)
    host.post('/batch', { schema: { body: Obj({ transfers: Arr(item) }) } }, echo)
    host.post('/list', { schema: { body: Arr(Obj({ key: Optional(String()) })) } }, echo)
    host.get('/query', { schema: { querystring: Obj({ network: String() }) } }, async request => request.query as object)
    host.post('/any', { schema: { body: Obj({ options: Type.Unknown({ properties: { privacy: {} } }) }) } }, echo)
    host.post('/free', echo)
    host.post('/narrowed', { config: { sessionDefaults: ['privacyLevel'] } }, echo)
    host.post('/own-name', { schema: { body: Obj({ chain: Optional(String()) }) } }, echo)
  }, { mapping })
  const post = (url: string, payload?: object) => send({ method: 'POST', url, ...(payload && { payload }) })

  t.strictSame(await post('/one', { options: { fast: true } }), { status: 200, applied: 'chain, privacyLevel', body: { network: 'near', options: { fast: true, privacy: 'shielded' } } })
  t.strictSame(await post('/one', {}), { status: 200, applied: 'chain, privacyLevel', body: { network: 'near', options: { privacy: 'shielded' } } }, 'the object on the way is made')
  t.strictSame(await post('/one', { network: 'sui', options: { privacy: 'maximum' } }), { status: 200, applied: undefined, body: { network: 'sui', options: { privacy: 'maximum' } } }, 'what was sent wins')
  t.strictSame(await post('/batch', { transfers: [{}, { network: 'sui' }, {}] }), { status: 200, applied: 'chain', body: { transfers: [{ network: 'near' }, { network: 'sui' }, { network: 'near' }] } })
  t.strictSame(await post('/batch', { transfers: [] }), { status: 200, applied: undefined, body: { transfers: [] } })
  t.equal((await post('/batch', {})).status, 400, 'no items are invented')
  t.strictSame(await post('/list', [{}, { key: '0x1' }]), { status: 200, applied: 'defaultViewingKey', body: [{ key: '0xabc' }, { key: '0x1' }] })
  t.strictSame(await send({ url: '/query' }), { status: 200, applied: 'chain', body: { network: 'near' } })
  for (const options of [null, false, 'text', [1]]) {
    t.strictSame(await post('/any', { options }), { status: 200, applied: undefined, body: { options } }, `${JSON.stringify(options)} in place of an object is what the caller meant`)
  }
  t.strictSame(await post('/free', { transfers: [{ n: 1 }, 2] }), { status: 200, applied: 'chain, privacyLevel', body: { transfers: [{ n: 1, network: 'near' }, 2], network: 'near', options: { privacy: 'shielded' } } })
  t.strictSame(await post('/free', {}), { status: 200, applied: 'chain, privacyLevel', body: { network: 'near', options: { privacy: 'shielded' } } }, 'no list is invented')
  t.strictSame(await post('/narrowed'), { status: 200, applied: 'privacyLevel', body: { options: { privacy: 'shielded' } } })
  t.strictSame(await post('/own-name', {}), { status: 200, applied: undefined, body: {} }, 'what is mapped goes nowhere else')
  t.strictSame((await post('/v1/resolve', { transfers: [{}] })).body.data, {
    body: { transfers: [{ network: 'near' }], network: 'near', options: { privacy: 'shielded' } },
    origin: { transfers: 'request', network: 'session', 'transfers[].network': 'session', 'options.privacy': 'session' }
  }, 'and resolve tells of it')
})

t.test('a value that goes to several places is another object in each', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults: Obj({ fee: Obj({ max: Number() }) }), mapping: { fee: ['fee', 'list[].fee'] } })
  host.post('/fees', async request => {
    const body = request.body as { fee: { max: number }, list: { fee: { max: number } }[] }
    body.list[0]!.fee.max = 9
    return body
  })
  await host.ready()
  const { key, headers } = await createKey(host)
  const sessionId = await createSession(host, key, { fee: { max: 1 } })
  const response = await host.inject({ method: 'POST', url: '/fees', headers: { ...headers, 'x-session-id': sessionId }, payload: { list: [{}, {}] } })
  t.strictSame(response.json(), { fee: { max: 1 }, list: [{ fee: { max: 9 } }, { fee: { max: 1 } }] })
})

t.test('a default\'s own name is no path, and may be one that every object has', async t => {
  const defaults = Obj({ 'a.b': Optional(String()), chain: Optional(String()), constructor: Optional(String()) })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0, defaults })
  host.post('/free', async request => request.body)
  host.get('/query', { schema: { querystring: Obj({ 'a.b': Optional(String()) }) } }, async request => request.query)
  await host.ready()
  const { key, headers } = await createKey(host)
  const sessionId = await createSession(host, key, { 'a.b': 'session', chain: 'near' })
  const send = async (request: InjectOptions) => {
    const response = await host.inject({ ...request, headers: { ...headers, 'x-session-id': sessionId } })
    return { applied: response.headers['x-session-applied'], body: response.json() }
  }
  t.strictSame(await send({ url: '/query' }), { applied: 'a.b', body: { 'a.b': 'session' } })
  t.strictSame(await send({ method: 'POST', url: '/free', payload: { 'a.b': 'sent' } }), { applied: 'chain', body: { 'a.b': 'sent', chain: 'near' } })
  const wrong = await host.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: { constructor: 1 } } })
  t.match(wrong.json(), { error: { code: 'VALIDATION_ERROR', details: [{ field: 'defaults.constructor', reason: 'must be string' }] } })
})

t.test('a name or a path that cannot be meant is refused at the start', async t => {
  const register = async (mapping: Record<string, string>, defaults?: ReturnType<typeof Obj>) => {
    const host = Fastify()
    await host.register(sipherSessions, { encryptionKeys, connectionString: 'postgres://unused', migrate: false, mapping, ...(defaults && { defaults }) })
  }
  await t.rejects(register({ chian: 'network' }), { message: 'The option mapping names "chian", which sessions do not hold; they hold chain, privacyLevel, rpcProvider, backend, defaultViewingKey' })
  for (const path of ['', 'a..b', 'a[', 'a[0].b', 'list[]', '[]', '.a', '__proto__.x', 'a.[].b']) {
    await t.rejects(register({ chain: path }), { message: `The option mapping has the path ${JSON.stringify(path)}; a path is like "network", "options.privacy" or "transfers[].chain"` }, path)
  }
  for (const mapping of [{ chain: 'network', backend: 'network' }, { backend: 'chain' }] as Record<string, string>[]) {
    await t.rejects(register(mapping), { message: `The option mapping has chain and backend in the same place, ${mapping.backend}; give each a place of its own` })
  }
  await register({ chain: 'a.b' }, Obj({ 'a.b': String(), chain: String() }))
  await t.rejects(register({}, Obj({ ['__proto__']: String() })), { message: /"__proto__"/ })
  await t.rejects(register({}, Obj({ größe: String() })), { message: 'The default "größe" cannot be named in a header; use ASCII letters, digits and _' })
  await register({}, Obj({ constructor: String(), toString: String() }))
  await startHost(t, host => {
    t.throws(() => host.post('/typo', { config: { sessionDefaults: ['chian'] } }, async () => null),
      { message: 'The route POST /typo has "chian" in config.sessionDefaults, which sessions do not hold; they hold chain, privacyLevel, rpcProvider, backend, defaultViewingKey' })
    for (const value of ['chain', 1, { chain: true }, null]) {
      t.throws(() => host.post('/typo', { config: { sessionDefaults: value as unknown as boolean } }, async () => null),
        { message: `The route POST /typo has ${JSON.stringify(value)} in config.sessionDefaults; it is true, false, a list of names or a function` })
    }
  })
})

t.test('a name that another plugin has put into a route\'s config is looked at as well', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.addHook('onRoute', route => { route.config = { ...route.config, sessionDefaults: ['chian'] } })
  host.post('/late', async () => ({}))
  await t.rejects(async () => { await host.ready() }, { message: 'The route POST /late has "chian" in config.sessionDefaults, which sessions do not hold; they hold chain, privacyLevel, rpcProvider, backend, defaultViewingKey' })
})

t.test('at the start a warning names the defaults that no route takes', async t => {
  const warningsOf = async (addRoutes: (host: FastifyInstance) => void) => {
    const lines: string[] = []
    const host = Fastify({ logger: { level: 'warn', stream: { write: (line: string) => { lines.push(line) } } } })
    t.teardown(() => host.close())
    await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
    addRoutes(host)
    await host.ready()
    return lines.map(line => (JSON.parse(line) as { msg: string }).msg)
  }
  const handler = async () => null
  t.strictSame(await warningsOf(host => {
    host.post('/a', { schema: { body: Obj({ chain: Optional(String()) }) } }, handler)
    host.get('/b', { schema: { querystring: Obj({ privacyLevel: Optional(String()) }) } }, handler)
    host.get('/c', handler)
    host.post('/d', { config: { sessionDefaults: false } }, handler)
  }), ['No route takes these session defaults: rpcProvider, backend, defaultViewingKey. Give a route\'s schema the property, map them to one (option mapping), or let sessions hold only what is read (option defaults).'])
  t.strictSame(await warningsOf(host => { host.post('/all', handler) }), [], 'a route without a schema takes all')
  t.strictSame(await warningsOf(host => { host.get('/own', { config: { sessionDefaults: () => [] } }, handler) }), [], 'a function may take all')
  t.strictSame(await warningsOf(host => {
    host.post('/all', handler)
    host.post('/own', { validatorCompiler: () => () => true, schema: { body: { $ref: 'elsewhere#' } } }, handler)
    host.get('/zod', { validatorCompiler: () => () => true, schema: { querystring: z.object({}) } }, handler)
    host.post('/said', { validatorCompiler: () => () => true, schema: { body: z.object({}) }, config: { sessionDefaults: ['chain'] } }, handler)
  }), [
    'The schemas of POST /own refer to elsewhere, which Fastify does not have, so that what they take of a session is not known: the route is given chain, privacyLevel, rpcProvider, backend, defaultViewingKey. Name what it takes in config.sessionDefaults, or give Fastify what they refer to (addSchema).',
    'The schemas of GET /zod are no JSON Schema, so that what they take of a session is not known: the route is given chain, privacyLevel, rpcProvider, backend, defaultViewingKey. Name what it takes in config.sessionDefaults.'
  ])
  t.strictSame(await warningsOf(() => {}), [], 'an app without routes of its own takes none, and needs no telling')

  const lines: string[] = []
  const host = Fastify({ logger: { level: 'warn', stream: { write: (line: string) => { lines.push(line) } } } })
  t.teardown(() => host.close())
  await host.register(async scope => {
    await scope.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  })
  host.post('/outside', handler)
  await host.ready()
  t.match(lines.map(line => (JSON.parse(line) as { msg: string }).msg), [/^sipher-sessions is registered in a scope without other routes: /])
})

t.test('a route whose schemas cannot be read takes all values, or those that it names', async t => {
  const { send } = await startHost(t, host => {
    const validatorCompiler = ({ schema }: { schema: unknown }) => (value: unknown) => {
      const { data, error } = (schema as z.ZodType).safeParse(value)
      return error ? { error } : { value: data }
    }
    const echo = async ({ body, query }: FastifyRequest) => body ?? query
    const optional = { chain: z.string().default('solana'), n: z.number().optional() }
    host.post('/body', { validatorCompiler, schema: { body: z.object(optional) } }, echo)
    host.post('/content', { validatorCompiler, schema: { body: { content: { 'application/json': { schema: z.object(optional) } } } } }, echo)
    host.get('/query', { validatorCompiler, schema: { querystring: z.object({ chain: z.string().default('solana') }) } }, echo)
    host.post('/strict', { validatorCompiler, schema: { body: z.strictObject(optional) } }, echo)
    host.post('/named', { validatorCompiler, schema: { body: z.strictObject(optional), headers: z.object({}) }, config: { sessionDefaults: ['chain'] } }, echo)
    const any = { validatorCompiler: () => () => true }
    host.post('/merged', { ...any, schema: { body: { type: 'object', $merge: { source: { $ref: 'x#' }, with: {} } } } }, echo)
    host.post('/patched', { ...any, schema: { body: { type: 'object', $patch: { source: { $ref: 'x#' }, with: [] } } } }, echo)
    host.post('/own', { ...any, schema: { body: { amount: 'number', chain: { type: 'string', optional: true } } } }, echo)
    host.post('/anything', { ...any, schema: { body: {} } }, echo)
    host.post('/noted', { ...any, schema: { body: { 'x-note': 1 } } }, echo)
    host.post('/jtd', { ...any, schema: { body: { optionalProperties: { chain: { type: 'string' } } } } }, echo)
    host.post('/lost', { validatorCompiler: () => () => true, schema: { body: { $ref: 'elsewhere#' } } }, echo)
  })
  const applied = 'chain, privacyLevel, defaultViewingKey'
  for (const url of ['/body', '/content']) {
    t.strictSame(await send({ method: 'POST', url, payload: { n: 1 } }), { status: 200, applied, body: { chain: 'near', n: 1 } }, 'the schema leaves out what it does not have')
    t.strictSame(await send({ method: 'POST', url, payload: { chain: 'sui' } }), { status: 200, applied: 'privacyLevel, defaultViewingKey', body: { chain: 'sui' } })
  }
  t.strictSame(await send({ url: '/query' }), { status: 200, applied, body: { chain: 'near' } })
  t.equal((await send({ method: 'POST', url: '/strict', payload: {} })).status, 400, 'or refuses it')
  t.strictSame(await send({ method: 'POST', url: '/named', payload: {} }), { status: 200, applied: 'chain', body: { chain: 'near' } })
  for (const url of ['/lost', '/merged', '/patched', '/own']) t.strictSame(await send({ method: 'POST', url, payload: {} }), { status: 200, applied, body: { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' } }, url)
  for (const url of ['/anything', '/noted']) t.strictSame(await send({ method: 'POST', url, payload: {} }), { status: 200, applied: undefined, body: {} }, url)
  t.strictSame(await send({ method: 'POST', url: '/jtd', payload: {} }), { status: 200, applied: 'chain', body: { chain: 'near' } })
})

t.test('what a lost reference may be is taken where it would be, and nothing else', async t => {
  const { send } = await startHost(t, host => {
    const body = { properties: { chain: { type: 'string' }, options: { $ref: 'elsewhere#' } } }
    host.post('/partly', { validatorCompiler: () => () => true, schema: { body } }, async request => request.body)
  }, { mapping: { privacyLevel: 'options.privacy' } })
  t.strictSame(await send({ method: 'POST', url: '/partly', payload: {} }), { status: 200, applied: 'chain, privacyLevel', body: { chain: 'near', options: { privacy: 'shielded' } } })
})

t.test('a module of schemas takes the values that the one of them has', async t => {
  const module = Type.Module({ Chain: String(), Transfer: Obj({ amount: Number(), chain: Optional(Type.Ref('Chain')) }) })
  const { send } = await startHost(t, host => {
    host.post('/module', { schema: { body: module.Import('Transfer') } }, async request => request.body)
  })
  t.strictSame(await send({ method: 'POST', url: '/module', payload: { amount: 1 } }), { status: 200, applied: 'chain', body: { amount: 1, chain: 'near' } })
})

t.test('a route can take the values in its own way', async t => {
  const { send } = await startHost(t, host => {
    host.get('/header', { config: { sessionDefaults: async (request, values) => { request.headers['x-chain'] = values.chain as string; return ['chain'] } } },
      async request => ({ chain: request.headers['x-chain'] }))
  })
  t.strictSame(await send({ url: '/header' }), { status: 200, applied: 'chain', body: { chain: 'near' } })
})

t.test('a route under a prefix, in a scope with schemas of its own, takes defaults by those', async t => {
  const { send } = await startHost(t, host => {
    host.register(async scope => {
      scope.addSchema({ $id: 'part', type: 'object', properties: { chain: { type: 'array', items: { type: 'string' } } } })
      scope.addSchema({ $id: 'whole', type: 'object', allOf: [{ $ref: 'part#' }, { type: 'object', properties: { amount: { type: 'number' } } }] })
      scope.post('/transfer', { schema: { body: { $ref: 'whole#' } }, config: { sessionDefaults: ['chain'] } }, async request => request.body)
      scope.get('/quote', { schema: { querystring: { $ref: 'part#' } } }, async request => request.query as object)
    }, { prefix: '/inner' })
  })
  t.strictSame(await send({ method: 'POST', url: '/inner/transfer', payload: { amount: 1 } }), { status: 200, applied: 'chain', body: { amount: 1, chain: ['near'] } })
  t.strictSame(await send({ url: '/inner/quote' }), { status: 200, applied: 'chain', body: { chain: ['near'] } }, 'a list in a query string takes one value')
  t.strictSame(await send({ url: '/inner/quote?chain=sui&chain=base' }), { status: 200, applied: undefined, body: { chain: ['sui', 'base'] } })
})

t.test('a request of as many header lines as Node reads is refused, for it may have named a session', async t => {
  const { host, headers, sessionId } = await startHost(t, host => {
    host.post('/free', async ({ body }) => body)
    host.get('/refuses', { config: { sessionDefaults: false } }, async () => ({}))
  })
  await host.listen({ host: '127.0.0.1', port: 0 })
  const { port } = host.server.address() as AddressInfo
  const body = '{"chain":"solana"}'
  const othersOf = (lines: number) => Object.fromEntries(Array.from({ length: lines }, (_, i) => [`a${i}`, '']))
  const post = async (path: string, lines: number) => {
    const { status, json } = await exchange(port, { method: 'POST', path, body, headers: { host: 'host', ...headers, ...othersOf(lines), 'x-session-id': sessionId, 'content-type': 'application/json', 'content-length': body.length } })
    return { status, body: json() }
  }
  // Besides these there are six lines.
  t.strictSame(await post('/free', 993), { status: 200, body: { chain: 'solana', privacyLevel: 'shielded', defaultViewingKey: '0xabc' } })
  const refused = failure(431, 'REQUEST_HEADERS_TOO_LARGE', 'The request has 1000 header lines or more, beyond which none is read. Send fewer.')
  t.strictSame(await post('/free', 994), refused)
  t.equal((await exchange(port, { path: '/refuses', headers: { host: 'host', ...othersOf(998) } })).status, 200)
  // Of more lines Node 20 leaves out the rest; later ones refuse the request themselves, whatever it is for.
  const { status: ofTooMany } = await exchange(port, { path: '/refuses', headers: { host: 'host', ...othersOf(1000) } })
  const { status, body: { error } } = await post('/free', 1000)
  t.strictSame([ofTooMany, status, error], ofTooMany === 431 ? [431, 431, 'Request Header Fields Too Large'] : [200, 431, refused.body.error])
  host.server.maxHeadersCount = 0
  t.strictSame(await post('/free', 1000), { status: 200, body: { chain: 'solana', privacyLevel: 'shielded', defaultViewingKey: '0xabc' } })
})

t.test('of several servers of a host each has its own number of lines', async t => {
  const { host, headers, sessionId } = await startHost(t, host => {
    host.post('/free', async ({ body }) => body)
  })
  host.server.maxHeadersCount = 0
  // As Fastify makes one for each further address of `localhost`.
  const other = createServer((request, response) => { host.routing(request, response) })
  await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
  t.teardown(() => { other.close() })
  const { port } = other.address() as AddressInfo
  const lines = Object.fromEntries(Array.from({ length: 1100 }, (_, i) => [`a${i}`, '']))
  const { status } = await exchange(port, { method: 'POST', path: '/free', headers: { host: 'host', ...headers, ...lines, 'x-session-id': sessionId } })
  t.equal(status, 431)
})

t.test('a request without a list of its headers is served', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  host.addHook('onRequest', async ({ raw }) => { Object.assign(raw, { rawHeaders: undefined, socket: undefined }) })
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.post('/free', async ({ body }) => body)
  await host.ready()
  const { key, headers } = await createKey(host)
  const sessionId = await createSession(host, key)
  t.strictSame((await host.inject({ method: 'POST', url: '/free', headers: { ...headers, 'x-session-id': sessionId } })).json(), { chain: 'near' })
})

t.test('an empty text is no body', async t => {
  const { host, headers, sessionId } = await startHost(t, host => {
    host.post('/free', async ({ body }) => ({ body }))
  })
  const origin = await host.listen({ port: 0, host: '127.0.0.1' })
  const post = async (body: string) => (await fetch(`${origin}/free`, { method: 'POST', body, headers: { ...headers, 'x-session-id': sessionId } })).json()
  t.strictSame(await post(''), { body: { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' } })
  t.strictSame(await post('text'), { body: 'text' })
})

t.test('a mark of the host\'s in a route\'s config changes nothing', async t => {
  const { host, id, headers, sessionId } = await startHost(t, host => {
    host.post('/proxied', { config: { upstream: 'http://billing' } as object }, async ({ body }) => body)
  })
  await host.listen({ host: '127.0.0.1', port: 0 })
  const request = { path: '/proxied', headers: { ...headers, 'x-session-id': sessionId }, body: '{}' }
  t.match(await sendInTwo(t, host, id, request, async () => { await host.sessionRepository.delete(sessionId, id) }), /^HTTP\/1\.1 404 [^]*SESSION_NOT_FOUND/)
})

t.test('over HTTP/2 a body without a length is one', async t => {
  const host = Fastify({ http2: true })
  const sessions: ClientHttp2Session[] = []
  t.teardown(async () => {
    for (const session of sessions) session.destroy()
    await host.close()
  })
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.addContentTypeParser('application/octet-stream', (_request, _payload, done) => { done(null) })
  host.post('/free', async ({ body }) => body ?? {})
  host.post('/viewing', { schema: { body: Obj({ defaultViewingKey: Optional(String()) }) } }, async ({ body }) => body)
  const origin = await host.listen({ port: 0, host: '127.0.0.1' })
  const { key, headers } = await createKey(host as unknown as FastifyInstance)
  const sessionId = await createSession(host as unknown as FastifyInstance, key, { chain: 'near' })
  const session = connect(origin)
  sessions.push(session)
  const post = async (path: string, sent: OutgoingHttpHeaders, body?: string) => {
    const stream = session.request({ ':method': 'POST', ':path': path, ...headers, 'x-session-id': sessionId, ...sent }, { endStream: body === undefined })
    if (body !== undefined) stream.end(body)
    const [answered] = await once(stream, 'response') as [OutgoingHttpHeaders]
    return { status: answered[':status'], applied: answered['x-session-applied'], body: JSON.parse(await text(stream)) as object }
  }
  const json = { 'content-type': 'application/json' }
  t.strictSame(await post('/free', {}), { status: 200, applied: 'chain', body: { chain: 'near' } })
  t.strictSame(await post('/free', json, '{"a":1}'), { status: 200, applied: 'chain', body: { a: 1, chain: 'near' } })
  t.strictSame(await post('/free', { ...json, 'content-length': 15 }, '{"chain":"sui"}'), { status: 200, applied: undefined, body: { chain: 'sui' } })
  t.strictSame(await post('/free', { 'content-type': 'application/octet-stream' }, 'bytes'), { status: 200, applied: undefined, body: {} })
  const refused = failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'The session\'s defaults go into the body, and this one has no Content-Type. Send it with Content-Type: application/json, or send no X-Session-Id.')
  t.strictSame(await post('/free', {}, '{"chain":"sui"}'), { ...refused, applied: undefined }, 'which Fastify would drop')
  t.equal((await post('/viewing', {}, '{}')).status, 400, 'of which the session has nothing')
})

t.test('a form or a list of pairs that a parser makes is left alone, and a class with properties is filled in', async t => {
  class Form { declare chain?: string }
  class Accessors {
    #chain: string | undefined
    constructor (chain?: string) { this.#chain = chain }
    get chain () { return this.#chain }
    set chain (value) { this.#chain = value }
  }
  const bodies: Record<string, unknown> = {
    pairs: new URLSearchParams('chain=sui'),
    form: new FormData(),
    map: new Map(),
    blob: new Blob([]),
    view: new DataView(new ArrayBuffer(1)),
    lines: (async function * () {})(),
    class: Object.assign(new Form(), { pipe: 'a field' }),
    accessors: new Accessors('sui'),
    unset: new Accessors(),
    nested: { options: new Form() },
    listed: { options: new Map() }
  }
  const { host, key, send } = await startHost(t, host => {
    host.addContentTypeParser('text/x-name', { parseAs: 'string' }, (_request, name, done) => { done(null, bodies[name as string]) })
    host.post('/free', async ({ body }) => ({ names: Object.keys(body as object) }))
    host.post('/chain', { config: { sessionDefaults: ['chain'] } }, async ({ body }) => ({ chain: (body as Accessors).chain }))
    host.post('/nested', { config: { sessionDefaults: ['backend'] } }, async ({ body }) => body)
  }, { mapping: { backend: 'options.backend' } })
  const post = (name: string, url = '/free', sent = {}) => send({ method: 'POST', url, payload: name, headers: { 'content-type': 'text/x-name', ...sent } })
  t.strictSame(await post('accessors', '/chain'), { status: 200, applied: undefined, body: { chain: 'sui' } }, 'what its class knows was sent')
  t.strictSame(await post('unset', '/chain'), { status: 200, applied: 'chain', body: { chain: 'near' } })
  const inOptions = { 'x-session-id': await createSession(host, key, { backend: 'sip-native' }) }
  t.strictSame(await post('nested', '/nested', inOptions), { status: 200, applied: 'backend', body: { options: { backend: 'sip-native' } } })
  t.strictSame(await post('listed', '/nested', inOptions), { status: 200, applied: undefined, body: { options: {} } })
  for (const name of ['pairs', 'form', 'map', 'blob', 'view', 'lines']) t.strictSame(await post(name), { status: 200, applied: undefined, body: { names: [] } }, name)
  t.strictSame(await post('class'), { status: 200, applied: 'chain, privacyLevel, defaultViewingKey', body: { names: ['pipe', 'chain', 'privacyLevel', 'defaultViewingKey'] } })
})

t.test('bytes, and a null in chunks, are left alone', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  host.post('/free', async ({ body }) => ({ keys: Buffer.isBuffer(body) ? Object.keys(body).filter(name => !/^\d/.test(name)) : body }))
  const origin = await host.listen({ port: 0, host: '127.0.0.1' })
  const { key, headers } = await createKey(host)
  const sent = { ...headers, 'x-session-id': await createSession(host, key) }
  const bytes = await host.inject({ method: 'POST', url: '/free', headers: { ...sent, 'content-type': 'application/octet-stream' }, payload: 'bytes' })
  t.strictSame([bytes.headers['x-session-applied'], bytes.json()], [undefined, { keys: [] }])
  const body = new ReadableStream({ start (controller) { controller.enqueue(Buffer.from('null')); controller.close() } })
  const response = await fetch(`${origin}/free`, { method: 'POST', duplex: 'half', body, headers: { ...sent, 'content-type': 'application/json' } } as RequestInit)
  t.strictSame([response.headers.get('x-session-applied'), await response.json()], [null, { keys: null }])
})

t.test('a route may call its query string as Fastify\'s other name for it has it', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.get('/alias', { schema: { query: Obj({ chain: Optional(String()) }) } as object }, async request => request.query as object)
  await host.ready()
  const { key, headers } = await createKey(host)
  t.strictSame((await host.inject({ url: '/alias', headers: { ...headers, 'x-session-id': await createSession(host, key) } })).json(), { chain: 'near' })
})
