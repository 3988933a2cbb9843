import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, request, type IncomingMessage } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { presetDefaults } from '../../src/index.js'
import { createDatabase, createKey, createPool, createSession, failure, startService, unknownSessionId } from '../helpers.js'
import { runExample } from './run.js'

interface Echo { method: string, url: string, headers: [string, string][], body: string }

const sessionHeaders = (echo: Echo) => echo.headers.filter(([name]) => /session|principal|api-key|authorization|viewing/i.test(name))

async function start (t: Test, environment?: Record<string, string>) {
  const example = await runExample(t, 'nginx', environment)
  const url = example.printed(/nginx is listening on (http:\S+),/)
  const session = { 'x-api-key': example.printed(/pro key +(\S+)/), 'x-session-id': example.printed(/X-Session-Id: (\S+?)'/) }
  return {
    example,
    url,
    session,
    freeKey: example.printed(/free key +(\S+)/),
    /** How often the API behind nginx was asked. */
    asked: () => example.output().match(/The API was asked/g)?.length ?? 0,
    async send (headers: Record<string, string>, path = '/transfer', init: RequestInit = {}) {
      const response = await fetch(`${url}${path}`, { method: 'POST', body: '{"amount":5}', ...init, headers })
      const text = await response.text()
      return { status: response.status, headers: response.headers, body: text === '' ? null : JSON.parse(text) as unknown }
    }
  }
}

t.test('the printed request reaches the API with the session\'s defaults, and what was forged does not', async t => {
  const { example, session, send, url } = await start(t)
  const expected = (id: string): [string, string][] => [
    ['X-Session-Default-Chain', 'near'],
    ['X-Session-Default-Privacy-Level', 'shielded'],
    ['X-Principal-Id', id],
    ['X-Principal-Tier', 'pro']
  ]
  const printed = JSON.parse(example.curl()) as Echo
  const id = printed.headers.find(([name]) => name === 'X-Principal-Id')![1]
  t.match(id, /^key_/)
  t.strictSame({ ...printed, headers: sessionHeaders(printed) }, { method: 'POST', url: '/transfer', headers: expected(id), body: '{"amount":5}' })

  // Names that the service can answer, and the one of the secret, which it never does, in other spellings.
  const names = ['chain', 'privacy-level', 'rpc-provider', 'backend', 'default-viewing-key'].map(name => `X-SESSION-default-${name}`)
  const forged = Object.fromEntries([...names, 'x-principal-ID', 'X-PRINCIPAL-tier', 'X_Session_Default_Chain', 'x_principal_id'].map(name => [name, 'forged']))
  const { body } = await send({ ...session, ...forged, authorization: 'Bearer other' })
  t.strictSame(sessionHeaders(body as Echo), expected(id))
  t.notMatch(JSON.stringify(body), 'forged')

  const raw = connect(Number(new URL(url).port), '127.0.0.1')
  raw.write(`GET /twice HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: ${session['x-api-key']}\r\nX-Session-Default-Chain: forged\r\nx-session-default-chain: forged\r\nX-Principal-Id: forged\r\nX-Principal-Id: forged\r\n\r\n`)
  let text = ''
  raw.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  await once(raw, 'close')
  t.match(text, /^HTTP\/1.1 200/)
  t.notMatch(text, 'forged', 'nor where there is no session to put something else in their place, however often they come')

  const large = 'x'.repeat(900_000)
  t.equal(((await send(session, '/large', { method: 'PUT', body: large })).body as Echo).body, large, 'the body is the API\'s alone')
  for (const status of [401, 403, 404, 500, 503]) {
    const own = await send(session, `/status/${status}`)
    t.equal(own.status, status)
    t.equal((own.body as Echo).url, `/status/${status}`, 'what the API answers is its own')
  }
  t.strictSame(await example.end('SIGTERM'), { code: 0, left: [] })
})

t.test('each refusal of the service is the client\'s answer, in the envelope, and the API is not asked', async t => {
  const connectionString = await createDatabase(t)
  const { example, session, freeKey, send, asked, url } = await start(t, { DATABASE_URL: connectionString })
  const refused = async (headers: Record<string, string>) => {
    const { status, body, headers: answered } = await send(headers)
    t.match(answered.get('content-type'), /^application\/json/)
    return { answer: { status, body }, header: (name: string) => answered.get(name) }
  }
  const key = { 'x-api-key': session['x-api-key'] }

  const reason = 'must be sess_ and 64 lower-case hex digits, as createSession answered it'
  t.strictSame((await refused({ ...key, 'x-session-id': 'nope' })).answer, failure(400, 'VALIDATION_ERROR', `The request is not valid: X-Session-Id ${reason}`, [{ field: 'X-Session-Id', reason }]))
  const nobody = await refused({})
  t.strictSame(nobody.answer, failure(401, 'UNAUTHORIZED', 'This operation needs an API key. Send it as X-API-Key: <key> or Authorization: Bearer <key>.'))
  t.equal(nobody.header('www-authenticate'), 'Bearer realm="sipher-sessions"')
  t.equal((await refused({ authorization: 'Bearer sk_pro_wrong' })).answer.status, 401)
  t.strictSame((await refused({ ...session, 'x-api-key': freeKey })).answer, failure(403, 'TIER_ACCESS_DENIED', 'This operation needs a key of tier pro or enterprise; this key is of tier free.'))
  t.strictSame((await refused({ ...key, 'x-session-id': unknownSessionId })).answer, failure(404, 'SESSION_NOT_FOUND', 'There is no such session for this key. It may have expired or been deleted; create a new one with POST /v1/sessions.'))
  const long = 'x'.repeat(7000)
  t.strictSame((await refused({ ...session, a: long, b: long, c: long })).answer, failure(431, 'REQUEST_HEADERS_TOO_LARGE', 'The request has more than 16384 bytes of headers. Send fewer or shorter ones.'))
  const raw = connect(Number(new URL(url).port), '127.0.0.1')
  raw.write(`GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: ${key['x-api-key']}\r\nX-Session-Id: ${session['x-session-id']}\r\nX-Other: a\x01b\r\n\r\n`)
  let text = ''
  raw.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  await once(raw, 'close')
  t.match(text, /^HTTP\/1\.1 400 [^]*"is not valid HTTP\/1\.1"/, 'what the service cannot read is no outage')
  t.equal(asked(), 0)

  for (let used = 1; used < 100; used++) t.equal((await send({ 'x-api-key': freeKey })).status, 200)
  const limited = await refused({ 'x-api-key': freeKey })
  const seconds = Number(limited.header('retry-after'))
  t.ok(seconds > 3500 && seconds <= 3600)
  t.strictSame(limited.answer, failure(429, 'RATE_LIMIT_EXCEEDED', `This key may make 100 requests an hour, and they are used up. Try again in ${seconds} s.`))
  t.equal((await send(session)).status, 200, 'another key\'s requests are its own')
  t.equal(asked(), 100)

  await createPool(t, connectionString).query('alter table sipher_sessions.sessions rename to hidden')
  const down = await refused(session)
  t.strictSame(down.answer, failure(503, 'SERVICE_UNAVAILABLE', 'The service cannot reach its database at the moment. Try again in 1 s.'))
  t.equal(down.header('retry-after'), '1')

  process.kill(Number(example.printed(/\(process (\d+)\)/)), 'SIGKILL')
  const service = example.printed(/service +(http:\S+) /)
  while (await fetch(`${service}/v1/health`).then(() => true, () => false));
  const gone = await refused(session)
  t.strictSame(gone.answer, failure(503, 'SERVICE_UNAVAILABLE', 'The session service cannot be reached at the moment. Try again in 1 s.'))
  t.equal(gone.header('retry-after'), '1')
  const head = await fetch(url, { method: 'HEAD' })
  t.equal(head.status, 503)
  for (const path of ['/_resolve', '/_refused', '/_failed', '/_unavailable']) t.equal((await fetch(`${url}${path}`)).status, 404, 'what nginx asks itself, nobody else may')
  t.equal(asked(), 100)
  t.strictSame(await example.end('SIGINT'), { code: 0, left: [] })
})

/** nginx by the example's configuration, with more of what its `http` and its `server` hold. What is sent to it is answered with its status and body. */
async function startNginx (t: Test, { service, api, http, server }: { service: number, api: number, http: string, server: string }) {
  const prefix = mkdtempSync(join(tmpdir(), 'sipher-nginx-'))
  t.teardown(() => rmSync(prefix, { recursive: true, force: true }))
  chmodSync(prefix, 0o755)
  mkdirSync(join(prefix, 'temp'))
  copyFileSync('examples/nginx/session-defaults.conf', join(prefix, 'session-defaults.conf'))
  writeFileSync(join(prefix, 'page.html'), '"a page"')
  const socketPath = join(prefix, 'socket')
  writeFileSync(join(prefix, 'nginx.conf'), readFileSync('examples/nginx/nginx.conf', 'utf8')
    .replace('{{service}}', `127.0.0.1:${service}`).replace('{{api}}', `127.0.0.1:${api}`)
    .replace('http {', `http {\n${http}`).replace('listen {{listen}};', `listen unix:${socketPath};`).replace('{ break; }', `{ break; }\n${server}`))
  const child = spawn(process.env.NGINX ?? '/usr/sbin/nginx', ['-p', prefix, '-c', 'nginx.conf', '-e', 'stderr'], { stdio: 'inherit' })
  const exit = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGTERM')
    await exit
  })
  const send = async (path: string, headers: Record<string, string>) => {
    const sent = request({ socketPath, path, headers: { host: 'x', ...headers } }).end()
    const [response] = await once(sent, 'response') as [IncomingMessage]
    return { status: response.statusCode, body: await json(response) }
  }
  while (!await send('/page.html', {}).then(() => true, () => false)) await sleep(20)
  return send
}

t.test('what is configured around it, of errors, access and caches, lets no request pass without its defaults', async t => {
  const { service } = await startService(t)
  await service.listen({ port: 0, host: '127.0.0.1' })
  const asked: string[] = []
  const api = createServer(({ url, headers }, response) => {
    asked.push(url!)
    response.statusCode = url === '/failing' ? 500 : 200
    response.setHeader('cache-control', 'max-age=60')
    response.end(JSON.stringify({ chain: headers['x-session-default-chain'] ?? null, principal: headers['x-principal-id'] }))
  }).listen(0, '127.0.0.1')
  t.teardown(() => { api.close().closeAllConnections() })
  await once(api, 'listening')
  const send = await startNginx(t, {
    service: (service.server.address() as AddressInfo).port,
    api: (api.address() as AddressInfo).port,
    http: 'proxy_cache_path cache keys_zone=cache:1m;',
    server: `
      rewrite ^/_ /elsewhere;
      proxy_intercept_errors on;
      error_page 400 401 403 404 429 500 502 503 504 =200 /page.html;
      location = /page.html { root .; }
      satisfy any;
      allow all;
      proxy_cache cache;
      proxy_ignore_headers Cache-Control Expires;
      proxy_cache_valid any 1m;
      location /denied { include session-defaults.conf; deny all; proxy_pass http://api; }
      location /broken { include session-defaults.conf; set $nowhere ""; proxy_pass http://$nowhere; }`
  })
  const [one, other] = [await createKey(service), await createKey(service)]
  const sessions = { near: await createSession(service, one.key), sui: await createSession(service, one.key, { chain: 'sui' }) }
  const ofApi = (chain: string | null, { id }: { id: string }) => ({ status: 200, body: { chain, principal: id } })
  const codeOf = ({ status, body }: Awaited<ReturnType<typeof send>>) => [status, (body as { error: { code: string } }).error.code]

  t.strictSame(await send('/', one.headers), ofApi(null, one))
  t.strictSame(await send('/', { ...one.headers, 'x-session-id': sessions.near }), ofApi('near', one))
  t.strictSame(await send('/', { ...one.headers, 'x-session-id': sessions.sui }), ofApi('sui', one))
  t.strictSame(await send('/', other.headers), ofApi(null, other))
  t.strictSame(asked.splice(0), ['/', '/', '/', '/'])
  t.strictSame(await send('/', { ...one.headers, 'x-session-id': sessions.near }), ofApi('near', one))
  t.strictSame(asked, [], 'a cache of the API\'s answers is one')
  t.strictSame(codeOf(await send('/', {})), [401, 'UNAUTHORIZED'])
  t.strictSame(codeOf(await send('/', { ...other.headers, 'x-session-id': sessions.near })), [404, 'SESSION_NOT_FOUND'])
  t.strictSame(codeOf(await send('/', { ...one.headers, 'x-session-id': 'nope' })), [400, 'VALIDATION_ERROR'])
  t.strictSame(codeOf(await send('/denied', one.headers)), [403, 'FORBIDDEN'])
  t.strictSame(codeOf(await send('/broken', one.headers)), [500, 'INTERNAL_SERVER_ERROR'])
  t.strictSame(await send('/failing', one.headers), { ...ofApi(null, one), status: 500 })
  await service.close()
  t.strictSame(codeOf(await send('/', { ...one.headers, 'x-session-id': sessions.near })), [503, 'SERVICE_UNAVAILABLE'])
  t.strictSame(asked, ['/failing'])
})

t.test('the configuration names every header that the service may answer', t => {
  const config = readFileSync('examples/nginx/session-defaults.conf', 'utf8')
  const set = [...config.matchAll(/^proxy_set_header (X-Session-Default-\S+)/gm)].map(([, name]) => name!.toLowerCase())
  t.strictSame(set, Object.keys(presetDefaults.properties).map(name => `x-session-default-${name.replaceAll(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)}`))
  t.end()
})
