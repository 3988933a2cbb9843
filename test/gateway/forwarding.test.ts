import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Agent, request, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { setImmediate } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { adminKey, createKey, failure } from '../helpers.js'
import { exchange, startGateway, startUpstream } from './helpers.js'

t.test('everything but the service\'s own operations goes upstream, by every method', async t => {
  const { url, received } = await startUpstream(t)
  const { port, headers } = await startGateway(t, { url: `${url}/base/` }, { docs: '/docs' })
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'M-SEARCH', 'PURGE']) {
    t.equal((await exchange(port, { method, path: '/any/path?b=2&a=%20&a', headers })).status, 200)
    t.match(received.at(-1), { method, url: '/base/any/path?b=2&a=%20&a' })
  }
  for (const path of ['/', '/v1', '/v1/', '/v1/nowhere', '/v2/sessions', '/V1/sessions', '/v1%2Fsessions', '/v1/sessions/a/b', '/a//b/', '/a%20b;c=d/%C3%A4', '/?', '/x?url=http://h/%zz']) {
    await exchange(port, { method: 'PUT', path, headers })
    t.equal(received.at(-1)!.url, `/base${path}`, path)
  }
  const count = received.length
  for (const path of ['/v1/health', '/v1/openapi.json', '/%761/health', '/docs/', '/v1/resolve']) t.equal((await exchange(port, { path, headers })).status, 200, path)
  t.equal((await exchange(port, { path: '/v1/sessions/nope', headers })).status, 400)
  t.equal((await exchange(port, { path: '/v1/admin/keys', headers })).status, 401)
  t.equal((await exchange(port, { path: '/', method: 'TRACE', headers })).status, 404)
  t.equal(received.length, count, 'and those do not')
})

t.test('a target may be a whole URL', async t => {
  const { url, received } = await startUpstream(t)
  const { port, withSession } = await startGateway(t, { url })
  for (const [target, path] of [['http://h/a?b=c', '/a?b=c'], ['HTTPS://h:1?b', '/?b'], ['http://h', '/'], ['http://h/', '/']] as const) {
    t.equal((await exchange(port, { path: target, headers: withSession })).status, 200, target)
    t.equal(received.at(-1)!.url, path)
  }
  t.equal((await exchange(port, { path: 'http://h/v1/limits', headers: withSession })).json().success, true)
})

t.test('a target that could be read in two ways is refused', async t => {
  const { url, received } = await startUpstream(t)
  const { port, headers } = await startGateway(t, { url: `${url}/base` })
  const cases: [path: string, reason: string][] = [
    ['/../admin', 'url must not have the segments . and ..'],
    ['/a/%2e%2E/b', 'url must not have the segments . and ..'],
    ['/a/..%2fb', 'url must not have the segments . and ..'],
    ['/a/..%5cb', 'url must not have the segments . and ..'],
    ['/a/./b', 'url must not have the segments . and ..'],
    ['/a/..;x/b', 'url must not have the segments . and ..'],
    ['/a\\..\\b', 'url must not hold a backslash or #; encode them'],
    ['/a#b', 'url must not hold a backslash or #; encode them'],
    ['/a?b#c', 'url must not hold a backslash or #; encode them'],
    ['//v1/admin/keys', 'url must begin with one slash'],
    ['ftp://h/a', 'url must be a path, such as /v1/sessions'],
    ['http://h//a', 'url must begin with one slash'],
    ['/%zz', 'url holds a percent sign that begins no valid escape']
  ]
  for (const [path, message] of cases) {
    const { status, text } = await exchange(port, { path, headers })
    t.equal(status, 400, path)
    t.match(text, `The request is not valid: ${message}`)
  }
  const upgrade = await exchange(port, { path: '/socket', headers: { ...headers, connection: 'Upgrade', upgrade: 'websocket' } })
  const reason = 'is not taken: WebSockets do not go through the gateway'
  t.strictSame({ status: upgrade.status, body: upgrade.json() }, failure(400, 'VALIDATION_ERROR', `The request is not valid: Upgrade ${reason}`, [{ field: 'Upgrade', reason }]))
  const coded = await exchange(port, { method: 'POST', path: '/', headers: { ...headers, 'transfer-encoding': 'gzip, chunked' }, body: gzipSync('text') })
  t.match(coded.json(), { error: { code: 'VALIDATION_ERROR', details: [{ field: 'Transfer-Encoding', reason: 'must be chunked and nothing else; what is compressed says so in Content-Encoding' }] } })
  t.equal(received.length, 0)
  t.equal((await exchange(port, { method: 'POST', path: '/', headers: { ...headers, 'transfer-encoding': 'Chunked' }, body: 'text' })).text, 'text')
  t.equal((await exchange(port, { path: '/', headers: { ...headers, connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'x' } })).status, 200, 'an offer of HTTP/2 is left alone')
})

t.test('the upstream is told who asks, and nobody can tell it in the gateway\'s place', async t => {
  const { url, port: upstreamPort, received } = await startUpstream(t)
  const { port, id, key, sessionId } = await startGateway(t, { url })
  const response = await exchange(port, {
    path: '/who',
    headers: {
      'X-API-Key': key,
      'X-Session-Id': sessionId,
      x_api_key: key,
      x_session_id: sessionId,
      'x-PRINCIPAL-id': 'forged',
      X_Principal_Id: 'forged',
      'X-Principal_Tier': 'enterprise',
      'X.Principal.Id': 'forged',
      'X!Principal~Tier': 'enterprise',
      'X.Forwarded.For': '1.2.3.4',
      'X-Forwarded-For': '1.2.3.4',
      'X-Forwarded-Port': '1',
      X_Forwarded_Host: 'forged',
      Forwarded: 'for=1.2.3.4',
      'X-Real-IP': '1.2.3.4',
      'X-Request-Id': 'forged',
      Connection: 'close, X-Hop, X-Principal-Id',
      'X-Hop': 'x',
      TE: 'trailers',
      'Proxy-Authorization': 'Basic x',
      Expect: '100-continue',
      Authorization: 'Bearer the-upstreams-own',
      Cookie: 'a=b',
      Accept: 'text/plain'
    }
  })
  t.strictSame(received[0]!.headers, {
    host: `127.0.0.1:${upstreamPort}`,
    connection: 'keep-alive',
    authorization: 'Bearer the-upstreams-own',
    cookie: 'a=b',
    accept: 'text/plain',
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-proto': 'http',
    'x-forwarded-host': `127.0.0.1:${port}`,
    'x-request-id': response.headers['x-request-id'],
    'x-principal-id': id,
    'x-principal-tier': 'pro'
  })
  await exchange(port, { headers: { authorization: `bearer ${key}` } })
  t.match(received.at(-1)!.headers, { authorization: undefined, 'x-principal-id': id })
  for (const value of [`Bearer ${adminKey}`, adminKey, 'Token sk_pro_almost', `Basic ${btoa(`${key}:`)}`, `basic  ${btoa(`u:${adminKey}`)}`]) {
    await exchange(port, { headers: { 'x-api-key': key, authorization: value } })
    t.equal(received.at(-1)!.headers.authorization, undefined, value)
  }
})

t.test('however many header lines a client sends, its session counts, and the upstream is told who asks', async t => {
  const { url, received } = await startUpstream(t)
  const { port, id, withSession } = await startGateway(t, { url })
  const others = Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`a${i}`, '']))
  const body = '{"chain":"sui"}'
  const { status } = await exchange(port, { method: 'POST', path: '/x', body, headers: { host: 'x', ...others, ...withSession, 'content-type': 'application/json', 'content-length': body.length } })
  t.equal(status, 200)
  t.equal(received[0]!.body, '{"privacyLevel":"shielded","chain":"sui"}')
  t.equal(received[0]!.headers['x-principal-id'], id)
})

t.test('credentials are forwarded where that is asked for, but for the admin key, and the headers have other names or none', async t => {
  const { url, received } = await startUpstream(t)
  const { port, id, key, sessionId } = await startGateway(t, { url, forwardCredentials: true, principalIdHeader: 'X-User', principalTierHeader: false, requireKey: false }, { trustProxy: ['127.0.0.1'] })
  await exchange(port, { headers: { authorization: `Bearer ${key}`, 'x-session-id': sessionId, 'x-user': 'forged', 'x-principal-tier': 'forged', 'x-forwarded-for': '9.9.9.9, 5.6.7.8', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'api.example.com' } })
  const { 'x-request-id': requestId, host, connection, ...headers } = received[0]!.headers
  t.strictSame(headers, {
    authorization: `Bearer ${key}`,
    'x-session-id': sessionId,
    'x-forwarded-for': '5.6.7.8, 127.0.0.1',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'api.example.com',
    'x-user': id
  })
  await exchange(port, { headers: { 'x-api-key': key } })
  t.equal(received.at(-1)!.headers['x-api-key'], key)
  for (const value of [`Bearer ${adminKey}`, `bearer ${adminKey}`, `Bearer\t${adminKey}`, `Token token="${adminKey}", x=1`, `${adminKey},x`, adminKey, `Basic ${btoa(`admin:${adminKey}`)}`, `BASIC ${btoa(adminKey)}`]) {
    await exchange(port, { headers: { authorization: value } })
    t.equal(received.at(-1)!.headers.authorization, undefined, value)
  }
  for (const value of [`Bearer a${adminKey}`, `Bearer ${adminKey.slice(0, -1)}`, 'Bearer task_pro_1', `Basic ${btoa('user:password')}`]) {
    await exchange(port, { headers: { authorization: value } })
    t.equal(received.at(-1)!.headers.authorization, value)
  }
  for (const name of ['x-user', 'x_user']) {
    await exchange(port, { headers: { [name]: 'forged' } })
    t.equal(received.at(-1)!.headers[name], undefined, 'nor where nobody is')
  }
  await exchange(port, { headers: { 'X_API-Key': adminKey } })
  t.strictSame(Object.keys(received.at(-1)!.headers).filter(name => name.includes('api')), [])
})

t.test('every request needs a key; before a public API those that carry one need a good one', async t => {
  const { url, received } = await startUpstream(t)
  const closed = await startGateway(t, { url })
  const answerOf = async (port: number, headers: Record<string, string>) => {
    const { status, json } = await exchange(port, { headers })
    return status === 200 ? 200 : { status, body: json() }
  }
  const missing = failure(401, 'UNAUTHORIZED', 'This operation needs an API key. Send it as X-API-Key: <key> or Authorization: Bearer <key>.')
  const bad = failure(401, 'INVALID_API_KEY', 'What was sent is no API key of this service: those begin with sk_free_, sk_pro_ or sk_ent_, and this is another one, is not whole, or has quotes or a word around it.')
  t.strictSame(await answerOf(closed.port, {}), missing)
  for (const value of ['nope', adminKey]) t.strictSame(await answerOf(closed.port, { 'x-api-key': value }), bad)
  t.strictSame(await answerOf(closed.port, { authorization: 'Bearer nope' }), bad)
  const free = await createKey(closed.service, 'free')
  const { headers } = await exchange(closed.port, { headers: free.headers })
  t.equal(headers['ratelimit-remaining'], '99', 'it counts against the key\'s limit')

  const open = await startGateway(t, { url, requireKey: false })
  received.length = 0
  for (const headers of [{}, { 'x-api-key': '' }, { authorization: 'Bearer the-upstreams-own' }, { 'x-principal-id': 'forged' }] as Record<string, string>[]) {
    t.equal(await answerOf(open.port, headers), 200)
    t.equal(received.at(-1)!.headers['x-principal-id'], undefined)
  }
  t.equal(received[2]!.headers.authorization, 'Bearer the-upstreams-own')
  t.strictSame(await answerOf(open.port, { 'x-api-key': adminKey }), bad)
  t.strictSame(await answerOf(open.port, { authorization: 'Bearer sk_pro_mistyped' }), bad)
  for (const tier of ['free', 'pro', 'enterprise'] as const) {
    const { id, key } = await createKey(open.service, tier)
    t.equal(await answerOf(open.port, { authorization: `Token realm="${'x'.repeat(50)}", key=sk_pro_mistyped`, 'x-api-key': key }), 200)
    t.equal(await answerOf(open.port, { authorization: `Bearer ${key}` }), 200)
    const { authorization, 'x-principal-id': principal } = received.at(-1)!.headers
    t.strictSame([authorization, principal], [undefined, id], 'no key goes upstream, of whatever tier')
    t.equal(received.at(-2)!.headers.authorization, undefined, 'wherever it stands')
  }
  t.strictSame(await answerOf(open.port, { 'x-session-id': open.sessionId }), missing)
  t.equal(await answerOf(open.port, open.withSession), 200)
  t.equal(received.at(-1)!.headers['x-principal-id'], open.id)
})

t.test('the upstream\'s answers pass through as they are', async t => {
  const { url } = await startUpstream(t, ({ url: path, headers }, response) => {
    const [status, body, own] = {
      '/error': [500, '{"success":false,"error":"its own"}', {}],
      '/busy': [503, 'busy', { 'retry-after': '7' }],
      '/moved': [302, '', { location: '/elsewhere', 'set-cookie': ['a=1', 'b=2'] }],
      '/gzip': [200, gzipSync('text'), { 'content-encoding': 'gzip', 'content-type': 'text/plain' }],
      '/unchanged': [304, '', { etag: '"x"' }],
      '/claims': [200, '', { 'x-request-id': 'own', 'x-session-applied': 'own', 'ratelimit-limit': '5', connection: 'x-hop', 'x-hop': '1', 'x-own': '1' }],
      '/twice': [200, '', { connection: ['keep-alive', 'X-Hop'], 'x-hop': '1', 'x-own': '1' }]
    }[path!] as [number, string | Buffer, Record<string, string | string[]>]
    response.writeHead(status, { date: 'now', 'x-seen': String(headers['x-principal-id'] !== undefined), ...own }).end(body)
  })
  const { port, headers } = await startGateway(t, { url, requireKey: false })
  const own = (all: object) => Object.fromEntries(Object.entries(all).filter(([name]) => !/^(x-request-id|ratelimit-.*|connection|keep-alive|transfer-encoding|content-length)$/.test(name)))
  const get = async (path: string) => {
    const { status, text, headers: answered } = await exchange(port, { path, headers })
    return [status, text, own(answered)]
  }
  const common = { date: 'now', 'x-seen': 'true', vary: 'X-API-Key, Authorization, X-Session-Id' }
  t.strictSame(await get('/error'), [500, '{"success":false,"error":"its own"}', common])
  t.strictSame(await get('/busy'), [503, 'busy', { ...common, 'retry-after': '7' }], 'at once, and asked once')
  t.strictSame(await get('/moved'), [302, '', { ...common, location: '/elsewhere', 'set-cookie': ['a=1', 'b=2'] }])
  t.strictSame(await get('/gzip'), [200, gzipSync('text').toString(), { ...common, 'content-encoding': 'gzip', 'content-type': 'text/plain' }])
  t.strictSame(await get('/unchanged'), [304, '', { ...common, etag: '"x"' }])
  t.strictSame(await get('/claims'), [200, '', { ...common, 'x-own': '1' }])
  t.strictSame(await get('/twice'), [200, '', { ...common, 'x-own': '1' }], 'headers that hold for a connection, listed in two lines')
  const claims = await exchange(port, { path: '/claims', headers })
  t.not(claims.headers['x-request-id'], 'own')
  t.equal(claims.headers['ratelimit-limit'], '10000')
  t.equal((await exchange(port, { path: '/claims' })).headers['ratelimit-limit'], '5', 'where the gateway counts nothing, the upstream\'s stands')
})

t.test('a 304 may say how long the body is that it has not, and its connection stays', async t => {
  const { url } = await startUpstream(t, (request, response) => {
    if (request.url === '/304') response.writeHead(304, { etag: '"x"', 'content-length': 10 }).end()
    else response.end('found')
  })
  const { port, headers } = await startGateway(t, { url })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => { agent.destroy() })
  for (const [path, ...expected] of [['/304', 304, '', false], ['/200', 200, 'found', true], ['/304', 304, '', true], ['/200', 200, 'found', true]] as const) {
    const sent = request({ port, host: '127.0.0.1', path, headers, agent }).end()
    const [response] = await once(sent, 'response') as [IncomingMessage]
    t.strictSame([response.statusCode, await text(response), sent.reusedSocket], expected)
    await setImmediate()
  }
})

t.test('an upstream with a path sends clients where it says', async t => {
  const { url } = await startUpstream(t, (_request, response) => { response.writeHead(302, { location: '/api/elsewhere' }).end() })
  const { port, headers } = await startGateway(t, { url: `${url}/api` })
  t.equal((await exchange(port, { path: '/old', headers })).headers.location, '/api/elsewhere')
})

t.test('a client that is redirected to the upstream\'s own host stays at the gateway', async t => {
  const { url } = await startUpstream(t, ({ headers, url: path }, response) => {
    response.writeHead(307, { location: `http://${headers.host}${path!.replace('/?', '?')}` }).end()
  })
  const { port, withSession } = await startGateway(t, { url })
  t.equal((await exchange(port, { method: 'POST', path: '/quotes/?a=1', headers: withSession })).headers.location, '/quotes?a=1')
})

t.test('HEAD has the headers of GET, and a GET with a body keeps it', async t => {
  const { url, received } = await startUpstream(t, (request, response) => {
    if (request.method === 'HEAD') response.setHeader('content-length', 5).end()
    else request.pipe(response)
  })
  const { port, headers } = await startGateway(t, { url })
  const head = await exchange(port, { method: 'HEAD', headers })
  t.strictSame([head.status, head.headers['content-length'], head.text], [200, '5', ''])
  t.equal((await exchange(port, { headers: { ...headers, 'content-length': 3 }, body: 'abc' })).text, 'abc')
  t.equal((await exchange(port, { headers: { ...headers, 'transfer-encoding': 'chunked' }, body: 'abc' })).text, 'abc')
  t.equal(received.length, 0)
})

t.test('bodies stream both ways while they are still being sent, byte by byte, whatever they are', async t => {
  const { url } = await startUpstream(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'application/octet-stream' })
    response.flushHeaders()
    request.pipe(response)
  })
  const { port, headers, withSession } = await startGateway(t, { url })
  const cases: [type: string | undefined, extra: Record<string, string>][] = [
    ['application/octet-stream', withSession],
    ['multipart/form-data; boundary=b', withSession],
    ['text/plain', withSession],
    // Not JSON at all, or of no type: without a session nobody looks.
    ['application/json', headers],
    [undefined, headers]
  ]
  for (const [type, extra] of cases) {
    const sending = request({ port, host: '127.0.0.1', method: 'POST', path: '/echo', agent: false, headers: { ...extra, ...(type && { 'content-type': type }) } })
    sending.write('begin')
    const [response] = await once(sending, 'response') as [IncomingMessage]
    t.equal(response.headers['content-type'], 'application/octet-stream', 'the answer begins before the body ends')
    const sent = [Buffer.from('begin')]
    const got: Buffer[] = []
    let length = 0
    let arrived = () => {}
    response.on('data', (chunk: Buffer) => {
      got.push(chunk)
      length += chunk.length
      arrived()
    })
    for (let i = 0; i < 40; i++) {
      const part = randomBytes(100_000)
      sent.push(part)
      sending.write(part)
      await new Promise<void>(resolve => {
        arrived = () => { if (length === 5 + 100_000 * (i + 1)) resolve() }
        arrived()
      })
    }
    const ended = once(response, 'end')
    sending.end()
    await ended
    t.ok(Buffer.concat(sent).equals(Buffer.concat(got)), `${type}`)
  }
})

t.test('with CORS the service answers preflights, also for the API behind it', async t => {
  const { url, received } = await startUpstream(t)
  const { port } = await startGateway(t, { url }, { corsOrigins: ['https://app.example.com'] })
  const { status, headers } = await exchange(port, { method: 'OPTIONS', path: '/x', headers: { origin: 'https://app.example.com', 'access-control-request-method': 'PUT', 'access-control-request-headers': 'x-own' } })
  t.strictSame([status, headers['access-control-allow-origin'], headers['access-control-allow-methods'], headers['access-control-allow-headers']],
    [204, 'https://app.example.com', 'GET, HEAD, POST, PATCH, DELETE, PUT', 'x-own'])
  t.equal(received.length, 0)
})

t.test('with CORS an OPTIONS that is no preflight is the API\'s, as any other request', async t => {
  const received: unknown[] = []
  const { url } = await startUpstream(t, ({ method, url }, response) => {
    received.push([method, url])
    response.writeHead(204, { allow: 'GET' }).end()
  })
  const { port, headers } = await startGateway(t, { url }, { corsOrigins: ['https://app.example.com'] })
  const own = await exchange(port, { method: 'OPTIONS', path: '/x', headers: { ...headers, origin: 'https://app.example.com' } })
  t.strictSame([own.status, own.headers.allow, own.headers['access-control-allow-origin'], own.headers['ratelimit-limit']], [204, 'GET', 'https://app.example.com', '10000'])
  t.strictSame(received, [['OPTIONS', '/x']])
  t.equal((await exchange(port, { method: 'OPTIONS', path: '/x', headers: {} })).status, 401)
  t.equal(received.length, 1)
})

t.test('answers vary by who asks and by the session, besides what the upstream and CORS say', async t => {
  const { url } = await startUpstream(t, ({ url: path }, response) => {
    response.setHeader('vary', path === '/all' ? '*' : ['Accept-Encoding', 'x-session-id, origin']).end()
  })
  const { port, headers, withSession } = await startGateway(t, { url }, { corsOrigins: ['https://a.example.com', 'https://b.example.com'] })
  for (const sent of [headers, withSession]) t.equal((await exchange(port, { path: '/', headers: sent })).headers.vary, 'Origin, Accept-Encoding, x-session-id, X-API-Key, Authorization')
  t.equal((await exchange(port, { path: '/all', headers })).headers.vary, '*')
})

t.test('what is no HTTP/1.1 does not reach the upstream', async t => {
  const { url, received } = await startUpstream(t)
  const { port } = await startGateway(t, { url })
  const socket = connect(port, '127.0.0.1')
  socket.write('CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n')
  socket.resume().on('error', () => {})
  await once(socket, 'close')
  t.equal(received.length, 0)
})

t.test('an upstream that is busy is asked once', async t => {
  let asked = 0
  const { url } = await startUpstream(t, (_request, response) => {
    asked++
    response.writeHead(503, { 'retry-after': '7' }).end('busy')
  })
  const { port, headers } = await startGateway(t, { url })
  t.equal((await exchange(port, { headers })).status, 503)
  t.equal(asked, 1)
})

t.test('a key is kept from the upstream wherever it stands, and a WebSocket is refused wherever it is offered', async t => {
  const { url, received } = await startUpstream(t)
  const { port, key, headers } = await startGateway(t, { url })
  for (const value of [`Token token="${key}"`, `Key:${key}`, `a,${key}`]) {
    await exchange(port, { headers: { 'x-api-key': key, authorization: value } })
    t.equal(received.at(-1)!.headers.authorization, undefined, value)
  }
  received.length = 0
  for (const upgrade of ['h2c, websocket', 'WebSocket/13', 'websocket,h2c']) {
    t.equal((await exchange(port, { path: '/socket', headers: { ...headers, connection: 'Upgrade', upgrade } })).status, 400, upgrade)
  }
  t.equal(received.length, 0)
})
