import { once } from 'node:events'
import { request, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createDatabase, createKey, createPool, failure, unknownSessionId } from '../helpers.js'
import { exchange, startGateway, startUpstream } from './helpers.js'

const json = { 'content-type': 'application/json' }

const unavailable = (outcome: string) => failure(502, 'UPSTREAM_UNAVAILABLE', `The API behind this gateway ${outcome}. Whether it has acted on the request is not known.`)
const unreadable = unavailable('has answered what is no answer of HTTP/1.1, or one with more than 16384 bytes of headers')
const timedOut = failure(504, 'UPSTREAM_TIMEOUT', 'The API behind this gateway has not begun to answer in time. Whether it has acted on the request is not known.')

t.test('an upstream that is down or hangs up is a 502, one that is slow a 504', async t => {
  const { url, server } = await startUpstream(t, request => {
    if (request.url === '/hangup') request.socket.destroy()
    if (request.url === '/nonsense') request.socket.end('nonsense\r\n\r\n')
    if (request.url === '/odd') request.socket.end('HTTP/1.1 999 Odd\r\nContent-Length: 4\r\n\r\nbody')
    if (request.url === '/headers') request.socket.end(`HTTP/1.1 200 OK\r\nx-large: ${'x'.repeat(20_000)}\r\n\r\n`)
    if (request.url === '/slow') request.resume()
  })
  const { port, headers, withSession } = await startGateway(t, { url, timeoutMs: 300 })
  const answerOf = async (method: string, path: string, body?: string) => {
    const response = await exchange(port, { method, path, headers: { ...withSession, ...json }, ...(body && { body }) })
    return { status: response.status, body: response.json() }
  }
  for (const method of ['GET', 'POST']) {
    t.strictSame(await answerOf(method, '/hangup'), unavailable('has closed the connection before it had answered'))
    for (const path of ['/nonsense', '/odd', '/headers']) t.strictSame(await answerOf(method, path), unreadable, path)
    t.strictSame(await answerOf(method, '/slow'), timedOut)
  }
  t.strictSame(await answerOf('POST', '/slow', '{}'), timedOut)

  const uploading = request({ port, host: '127.0.0.1', method: 'POST', path: '/hangup', agent: false, headers })
  uploading.on('error', () => {})
  uploading.write('x')
  const [response] = await once(uploading, 'response') as [IncomingMessage]
  t.strictSame([response.statusCode, response.headers.connection, response.headers['content-type']], [502, 'close', 'application/json; charset=utf-8'], 'also in the middle of a body')
  uploading.destroy()

  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
  t.strictSame(await answerOf('GET', '/'), unavailable('cannot be reached'))
  t.strictSame(await answerOf('POST', '/', '{"a":1}'), unavailable('cannot be reached'))
})

t.test('an upstream to which no connection is made in time is a 504', async t => {
  const silent = createServer(() => {})
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => { silent.close() })
  // It accepts, and has nothing to say about certificates.
  const { port, headers } = await startGateway(t, { url: `https://127.0.0.1:${(silent.address() as AddressInfo).port}`, timeoutMs: 300 })
  const response = await exchange(port, { headers })
  t.strictSame({ status: response.status, body: response.json() }, timedOut)
})

t.test('a client that goes away cancels its request upstream, before the answer and during it', async t => {
  const waiting: (() => void)[] = []
  const arrival = () => new Promise<void>(resolve => { waiting.push(resolve) })
  const closed: Promise<unknown>[] = []
  const { url } = await startUpstream(t, (request, response: ServerResponse) => {
    closed.push(once(response, 'close'))
    if (request.url === '/begins') response.write('begin')
    request.resume()
    waiting.shift()?.()
  })
  const { port, headers, withSession } = await startGateway(t, { url })
  const cases: [path: string, method: string, body: string, headers: Record<string, string>][] = [
    ['/waits', 'GET', '', headers],
    ['/waits', 'POST', '{"a":1}', { ...withSession, ...json }],
    ['/begins', 'GET', '', headers]
  ]
  for (const [path, method, body, headers] of cases) {
    const arrived = arrival()
    const client = request({ port, host: '127.0.0.1', method, path, agent: false, headers })
    client.on('error', () => {}).end(body)
    await arrived
    if (path === '/begins') await once(client, 'response')
    client.destroy()
    await closed.pop()
  }
  const arrived = arrival()
  const upload = request({ port, host: '127.0.0.1', method: 'POST', path: '/waits', agent: false, headers: { ...headers, 'content-length': 100 } })
  upload.on('error', () => {})
  upload.write('x')
  await arrived
  upload.destroy()
  await closed.pop()
  t.pass('the upstream saw each of them end')
})

t.test('nothing is sent upstream for a client that goes away while its key is looked up', async t => {
  const { received, url } = await startUpstream(t)
  const connectionString = await createDatabase(t)
  const { service, port, headers } = await startGateway(t, { url }, { connectionString })
  const locker = await createPool(t, connectionString).connect()
  t.teardown(() => locker.release())
  await locker.query('begin')
  await locker.query('lock table sipher_sessions.request_counts')
  const arrival = once(service.server, 'request') as Promise<[IncomingMessage, ServerResponse]>
  const client = request({ port, host: '127.0.0.1', path: '/left', agent: false, headers })
  client.on('error', () => {}).end()
  const [, response] = await arrival
  client.destroy()
  await once(response, 'close')
  await locker.query('rollback')
  for (const path of ['/first', '/second']) await exchange(port, { path, headers })
  t.strictSame(received.map(({ url }) => url), ['/first', '/second'])
})

t.test('an answer that breaks off does not look complete', async t => {
  const { url } = await startUpstream(t, ({ url: path, socket }, response) => {
    if (path === '/length') response.setHeader('content-length', 100)
    response.flushHeaders()
    if (path !== '/headers') response.write('part')
    setImmediate(() => socket.destroy())
  })
  const { port, headers } = await startGateway(t, { url })
  for (const path of ['/length', '/chunked', '/headers']) {
    await t.rejects(exchange(port, { path, headers }), { code: /ECONNRESET/ }, path)
  }
})

t.test('a request that does not end is not answered in the middle of what the upstream has answered', async t => {
  const { url } = await startUpstream(t, (_request, response) => { response.writeHead(200, { 'content-length': 400 }).write('x'.repeat(190)) })
  const { port, headers } = await startGateway(t, { url }, { headersTimeoutMs: 200, requestTimeoutMs: 400 })
  for (const rest of ['', 'no chunk\r\n']) {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.setEncoding('utf8').on('error', () => {}).on('data', (chunk: string) => {
      answer += chunk
      if (answer.includes('xxx')) socket.write(rest)
    })
    socket.write(`POST /x HTTP/1.1\r\nHost: x\r\nX-API-Key: ${headers['x-api-key']}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n`)
    await once(socket, 'close')
    t.match(answer, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nx{190}$/)
  }
})

t.test('headers of an answer arrive before its body', async t => {
  const ends: (() => void)[] = []
  const { url } = await startUpstream(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    ends.push(() => response.end('data: 1\n\n'))
  })
  const { port, headers } = await startGateway(t, { url, timeoutMs: 200 })
  const client = request({ port, host: '127.0.0.1', agent: false, headers })
  client.end()
  const [response] = await once(client, 'response') as [IncomingMessage]
  t.equal(response.headers['content-type'], 'text/event-stream')
  ends[0]!()
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string
  t.equal(text, 'data: 1\n\n')
})

t.test('a request whose session cannot be had is refused in the envelope, and the upstream never sees it', async t => {
  const { url, received } = await startUpstream(t)
  const { service, port, headers, sessionId, withSession } = await startGateway(t, { url })
  const codeOf = async (headers: Record<string, string>) => {
    const response = await exchange(port, { method: 'POST', path: '/x', headers: { ...headers, ...json }, body: '{}' })
    const { success, error } = response.json() as unknown as { success: boolean, error?: { code: string } }
    t.equal(success, false)
    return [response.status, error?.code]
  }
  t.strictSame(await codeOf({ ...headers, 'x-session-id': 'nope' }), [400, 'VALIDATION_ERROR'])
  t.strictSame(await codeOf({ ...headers, 'x-session-id': unknownSessionId }), [404, 'SESSION_NOT_FOUND'])
  t.strictSame(await codeOf({ ...(await createKey(service)).headers, 'x-session-id': sessionId }), [404, 'SESSION_NOT_FOUND'])
  t.strictSame(await codeOf({ ...(await createKey(service, 'free')).headers, 'x-session-id': sessionId }), [403, 'TIER_ACCESS_DENIED'])
  t.strictSame(await codeOf({ 'x-session-id': sessionId }), [401, 'UNAUTHORIZED'])
  for (const name of ['X_Session_Id', 'x.session-id']) t.strictSame(await codeOf({ ...headers, [name]: sessionId }), [400, 'VALIDATION_ERROR'], 'of which nothing would go upstream')
  t.strictSame(await codeOf({ 'x_api-key': 'mine', ...headers, X_Session_Id: sessionId }), [400, 'VALIDATION_ERROR'], 'whatever else there is')
  await service.sessionDatabase.query('update sipher_sessions.sessions set expires_at = now()')
  t.strictSame(await codeOf(withSession), [404, 'SESSION_NOT_FOUND'])
  await service.sessionDatabase.query('alter table sipher_sessions.sessions rename to hidden')
  t.strictSame(await codeOf(withSession), [503, 'SERVICE_UNAVAILABLE'])
  t.equal(received.length, 0)
})

t.test('a body that cannot be given its defaults is refused, and the upstream never sees it', async t => {
  const { url, received } = await startUpstream(t)
  const { port, withSession, headers } = await startGateway(t, { url, bodyLimit: 1000 })
  const post = async (body: string | Buffer, extra: Record<string, string | number> = {}) => {
    const response = await exchange(port, { method: 'POST', path: '/x', headers: { ...withSession, ...json, ...extra }, body })
    return { status: response.status, body: response.json() }
  }
  const invalid = (reason: string) => failure(400, 'INVALID_JSON', `The body is not valid JSON: ${reason}. Send one JSON object.`)
  const tooLarge = failure(413, 'PAYLOAD_TOO_LARGE', 'The session\'s defaults are filled into bodies of at most 1000 bytes, and this one is larger. Send less, or send no X-Session-Id.')
  t.strictSame(await post('{"a":'), invalid('Unexpected end of JSON input'))
  t.strictSame(await post('\ufeff{}'), invalid('Unexpected token \'\ufeff\''))
  t.strictSame(await post(Buffer.from('{"a":"\xff"}', 'latin1')), invalid('it is not UTF-8'))
  t.strictSame(await post('x'.repeat(1001)), tooLarge)
  t.strictSame(await post('x'.repeat(1_000_000)), tooLarge)
  t.strictSame(await post('x'.repeat(1_000_000), { 'transfer-encoding': 'chunked' }), tooLarge)
  t.strictSame(await post('compressed', { 'content-encoding': 'gzip' }),
    failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'The session\'s defaults cannot be filled into a body with Content-Encoding gzip. Send it without, or send no X-Session-Id.'))
  t.equal(received.length, 0)

  const limit = JSON.stringify({ a: 'x'.repeat(1000 - 8) })
  t.equal((await post(limit, { 'content-encoding': 'identity' })).status, 200, 'one that is just small enough is taken')
  const sent = await exchange(port, { method: 'POST', headers: { ...headers, ...json, 'content-encoding': 'gzip' }, body: 'x'.repeat(5000) })
  t.equal(sent.text, 'x'.repeat(5000), 'and without a session nothing is read')
})

t.test('a body that its client breaks off is no failure of the service', async t => {
  const { url, received } = await startUpstream(t)
  let log = ''
  const { service, port, withSession } = await startGateway(t, { url }, { logLevel: 'info', logStream: { write (line) { log += line } } })
  const socket = connect(port, '127.0.0.1')
  socket.write(`POST /x HTTP/1.1\r\nHost: x\r\n${Object.entries({ ...withSession, ...json }).map(([name, value]) => `${name}: ${value}\r\n`).join('')}Content-Length: 10\r\n\r\n{`)
  // Its session is read in the same statement or in one before.
  await exchange(port, { headers: withSession })
  socket.resume().on('error', () => {}).end()
  await once(socket, 'close')
  await service.close()
  t.notMatch(log, 'request failed')
  t.notMatch(log, '"statusCode":500')
  t.strictSame(received.map(({ method }) => method), ['GET'])
})

t.test('between the parts of an answer any time may pass', async t => {
  const { url } = await startUpstream(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
    void sleep(1000).then(() => response.end('data: 2\n\n'))
  })
  const { port, headers } = await startGateway(t, { url, timeoutMs: 200 })
  const client = request({ port, host: '127.0.0.1', agent: false, headers })
  client.end()
  const [response] = await once(client, 'response') as [IncomingMessage]
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string
  t.equal(text, 'data: 1\n\ndata: 2\n\n')
})

t.test('a connection whose body is not read to its end is closed after the answer', async t => {
  const { url } = await startUpstream(t, request => { request.socket.destroy() })
  const { port, headers, withSession } = await startGateway(t, { url, bodyLimit: 1000 })
  for (const [sent, status] of [[headers, 502], [{ ...withSession, ...json }, 413]] as const) {
    const uploading = request({ port, host: '127.0.0.1', method: 'POST', path: '/x', agent: false, headers: { ...sent, connection: 'keep-alive', 'content-length': 100_000 } })
    uploading.on('error', () => {})
    uploading.write('x')
    const [response] = await once(uploading, 'response') as [IncomingMessage]
    t.strictSame([response.statusCode, response.headers.connection], [status, 'close'])
    uploading.destroy()
  }
})
