import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { generateApiKey } from '../src/api-key.js'
import { createService } from '../src/service.js'
import { createKey, encryptionKeys, startService } from './helpers.js'

t.test('what is no HTTP request is answered in the envelope', async t => {
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false })
  await service.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.server.address() as AddressInfo
  const send = async (bytes: string) => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    let answer = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => { answer += chunk }).on('error', () => {})
    socket.write(bytes)
    await once(socket, 'close')
    const [head, body] = answer.split('\r\n\r\n')
    const [status, ...lines] = head!.split('\r\n')
    t.ok(lines.includes(`X-Resolve-Error: ${body}`), 'for a proxy that asks, and passes on headers alone')
    return { status, body: JSON.parse(body!) as unknown }
  }
  const answered = (reason: string) => ({
    success: false,
    error: { code: 'VALIDATION_ERROR', message: `The request is not valid: request ${reason}`, details: [{ field: 'request', reason }] }
  })
  t.strictSame(await send('nonsense\r\n\r\n'), { status: 'HTTP/1.1 400 Bad Request', body: answered('is not valid HTTP/1.1') })
  t.strictSame(await send(`GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`),
    { status: 'HTTP/1.1 431 Request Header Fields Too Large', body: { success: false, error: { code: 'REQUEST_HEADERS_TOO_LARGE', message: 'The request has more than 16384 bytes of headers. Send fewer or shorter ones.' } } })

  const gone = connect(port, '127.0.0.1')
  await once(gone, 'connect')
  gone.write('POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{')
  gone.resetAndDestroy()
  await once(gone, 'close')
  const { status } = await fetch(`http://127.0.0.1:${port}/v1/health`)
  t.equal(status, 200, 'and a client that is gone already is not answered')
})

t.test('what is no HTTP behind a request that is being served is not answered in its place', async t => {
  const service = createService({ connectionString: 'postgres://unused', migrate: false, logLevel: 'silent', encryptionKeys })
  t.teardown(() => service.close())
  let serve = () => {}
  const served = new Promise<void>(resolve => { serve = resolve })
  service.get('/slow', async () => served)
  await service.listen({ port: 0, host: '127.0.0.1' })
  const socket = connect((service.server.address() as AddressInfo).port, '127.0.0.1')
  let answer = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => { answer += chunk })
  socket.write('GET /slow HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n')
  await once(socket, 'close')
  serve()
  t.equal(answer, '')
})

t.test('a client that sends its request too slowly is answered 408, and holds no connection', async t => {
  const { service } = await startService(t, { headersTimeoutMs: 200, requestTimeoutMs: 400 })
  const { key } = await createKey(service)
  await service.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.server.address() as AddressInfo
  for (const part of ['GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: ', `POST /v1/resolve HTTP/1.1\r\nHost: x\r\nX-API-Key: ${key}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{`]) {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    let answer = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => { answer += chunk })
    socket.write(part)
    await once(socket, 'close')
    t.match(answer, /^HTTP\/1\.1 408 Request Timeout\r\nConnection: close\r\n/)
    t.strictSame(JSON.parse(answer.split('\r\n\r\n')[1]!), { success: false, error: { code: 'REQUEST_TIMEOUT', message: 'The request was not sent in time: its headers within 0.2 s, and all of it within 0.4 s. Send it again.' } })
  }
})

t.test('a client that expects what nobody knows is served', async t => {
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false })
  await service.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /v1/health HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nConnection: close\r\n\r\n')
  t.match(await text(socket), /^HTTP\/1\.1 200 OK\r\n/)
})

t.test('a client may choose its request\'s id, if it is short and plain', async t => {
  const lines: string[] = []
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false, logLevel: 'info', logStream: { write: line => { lines.push(line) } } })
  const idOf = async (id: string) => (await service.inject({ url: '/v1/health', headers: { 'x-request-id': id } })).headers['x-request-id']
  t.equal(await idOf('agent-7.retry_2'), 'agent-7.retry_2')
  t.ok(lines.some(line => (JSON.parse(line) as { reqId: string }).reqId === 'agent-7.retry_2'), 'the log has it')
  for (const id of ['', 'x'.repeat(65), 'a b', 'a"b', 'ü', '<script>', 'a\tb', generateApiKey('pro'), `0x${'a'.repeat(40)}`]) {
    t.match(await idOf(id), /^[0-9a-f]{12}-[0-9a-z]+$/, JSON.stringify(id))
  }
})

t.test('answers carry the headers that keep browsers from misusing them, and none is kept by a cache', async t => {
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false, docs: '/docs' })
  for (const url of ['/v1/health', '/v1/limits', '/v1/nowhere', '/nowhere', '/%zz']) {
    const { headers } = await service.inject(url)
    t.match(headers, {
      'content-security-policy': 'default-src \'none\';frame-ancestors \'none\'',
      'strict-transport-security': 'max-age=31536000',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'SAMEORIGIN',
      'referrer-policy': 'no-referrer'
    }, url)
    if (url.startsWith('/v1')) t.equal(headers['cache-control'], 'no-store', url)
  }
  t.match((await service.inject('/docs/')).headers['content-security-policy'], /script-src 'self'/, 'Swagger UI has a policy of its own')
})

t.test('before an API that takes uploads a request may take five minutes', async t => {
  const service = createService({ connectionString: 'postgres://unused', migrate: false, logLevel: 'silent', encryptionKeys, upstream: { url: 'http://127.0.0.1:1' } })
  t.teardown(() => service.close())
  t.equal(service.server.requestTimeout, 300_000)
})
