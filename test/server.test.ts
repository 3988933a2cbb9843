import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createDatabase, createPool } from './helpers.js'
import { createDataDir, listening, run, stop } from './server-process.js'

const nothing = 'postgres://nobody@127.0.0.1:1/none'

t.test('with DATABASE_URL no key is made, and a short admin key is warned of', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const { child, printed, output } = run(t, { DATABASE_URL: connectionString, ADMIN_API_KEY: 'short', HOST: '::1', RATE_LIMIT_FAIL_OPEN: 'true' })
  const [, origin] = await printed(listening)
  await printed(/ADMIN_API_KEY is shorter than 32 characters/)
  await printed(/where requests cannot be counted they are let through uncounted \(RATE_LIMIT_FAIL_OPEN\)/)
  t.equal((await fetch(`${origin}/v1/ready`)).status, 200)
  t.strictSame((await createPool(t, connectionString).query('select count(*)::int as keys from sipher_sessions.api_keys')).rows, [{ keys: 0 }])
  t.notMatch(output(), 'sk_')
  t.notMatch(output(), 'has no option', 'nor is anybody warned of what the service itself has set')
  t.equal(await stop(child), 0)
})

t.test('of a name with several addresses it listens on one, so that all who are served are served alike', async t => {
  const resolver = join(createDataDir(t), 'resolver.mjs')
  writeFileSync(resolver, `
    import dns from 'node:dns'
    import { syncBuiltinESMExports } from 'node:module'
    const both = [{ address: '::1', family: 6 }, { address: '127.0.0.1', family: 4 }]
    const { lookup } = dns
    dns.lookup = (host, options, done) => host === 'localhost' ? process.nextTick(done, null, both) : lookup(host, options, done)
    dns.promises.lookup = async () => both
    syncBuiltinESMExports()`)
  const { child, printed, output } = run(t, { DATABASE_URL: await createDatabase(t), HOST: 'localhost', NODE_OPTIONS: `--import=${resolver}` })
  const [, origin] = await printed(listening)
  t.equal((await fetch(`${origin}/v1/health`)).status, 200)
  t.equal(await stop(child), 0)
  t.match(origin, /^http:\/\/127\.0\.0\.1:\d+$/)
  t.equal(output().match(/listening at/g)!.length, 1)
})

t.test('a request that is under way when the process is told to end is answered', async t => {
  const adminKey = 'the-admin-key-of-this-test-0123456789'
  const { child, printed, exit } = run(t, { DATABASE_URL: await createDatabase(t), ADMIN_API_KEY: adminKey })
  const [, origin] = await printed(listening)
  const client = connect(Number(new URL(origin!).port), '127.0.0.1')
  t.teardown(() => { client.destroy() })
  let answer = ''
  client.setEncoding('utf8').on('data', (chunk: string) => { answer += chunk }).on('error', () => {})
  const body = JSON.stringify({ tier: 'pro', name: 'agent-7' })
  client.write(`POST /v1/admin/keys HTTP/1.1\r\nHost: x\r\nX-API-Key: ${adminKey}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 9)}`)
  await fetch(`${origin}/v1/health`, { headers: { connection: 'close' } })
  child.kill('SIGTERM')
  while (await fetch(`${origin}/v1/health`, { headers: { connection: 'close' } }).then(() => true, () => false));
  client.write(body.slice(9))
  await once(client, 'close')
  t.match(answer, /^HTTP\/1\.1 201 Created\r\n/)
  t.match(answer, /\r\nconnection: close\r\n/i)
  t.strictSame(await exit, [0, null])
})

t.test('a client that never finishes its request does not keep the process', async t => {
  const { child, printed, exit, output } = run(t, { DATABASE_URL: await createDatabase(t) })
  const [, origin] = await printed(listening)
  const client = connect(Number(new URL(origin!).port), '127.0.0.1')
  t.teardown(() => { client.destroy() })
  client.on('error', () => {})
  client.write('POST /v1/resolve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
  await fetch(`${origin}/v1/ready`)
  child.kill('SIGTERM')
  t.strictSame(await exit, [1, null])
  t.match(output(), 'Some requests were not finished within 10 s, and were cut off.')
})

t.test('what is still being written to the log when the process is told to end is not lost', async t => {
  const slow = join(createDataDir(t), 'slow.mjs')
  // A pipe that takes no more, of which a write hears only after the service has closed.
  writeFileSync(slow, `
    import fs from 'node:fs'
    const { write } = fs
    fs.write = (fd, bytes, done) => String(bytes).includes('/v1/health')
      ? setTimeout(done, 1_500, Object.assign(new Error('busy'), { code: 'EAGAIN' }), 0)
      : write(fd, bytes, done)`)
  const { child, printed, output } = run(t, { DATABASE_URL: await createDatabase(t), NODE_OPTIONS: `--import=${slow}` })
  const [, origin] = await printed(listening)
  await fetch(`${origin}/v1/health`)
  await sleep(50)
  child.kill('SIGTERM')
  t.strictSame(await once(child, 'close'), [0, null])
  t.match(output(), '"path":"/v1/health"')
})

t.test('one that waits for another\'s migration says so, and ends when it is told to', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const other = await createPool(t, connectionString).connect()
  t.teardown(() => other.release())
  await other.query('begin')
  await other.query('select pg_advisory_xact_lock(7315402236)')
  const { child, printed, exit } = run(t, { DATABASE_URL: connectionString })
  await printed(/the database is being migrated by another instance, which is waited for/)
  const began = performance.now()
  child.kill('SIGTERM')
  t.strictSame(await exit, [0, null])
  t.ok(performance.now() - began < 10_000)
})

t.test('what a newcomer gets wrong is told in a sentence', async t => {
  const taken = createServer()
  await new Promise<void>(resolve => taken.listen(0, '127.0.0.1', resolve))
  t.teardown(() => { taken.close() })
  const { port } = taken.address() as AddressInfo
  const connectionString = await createDatabase(t)
  const file = join(createDataDir(t), 'file')
  writeFileSync(file, '')

  const cases: [environment: Record<string, string>, message: string][] = [
    [{ PORT: 'x', TRUST_PROXY: '' }, 'The configuration is wrong.\nPORT must be integer. The port to listen on; 0 for any free one.'],
    [{ DATABASE_URL: connectionString, SESSION_ENCRYPTION_KEYS: '' }, 'The configuration is wrong.\nSESSION_ENCRYPTION_KEYS is needed with DATABASE_URL: sessions hold viewing keys, which are stored encrypted. Make a key with openssl rand -base64 32, keep it as long as the sessions, and give every instance the same.'],
    [{ DATABASE_URL: connectionString, PORT: String(port) }, 'Another process listens there; stop it or set PORT.'],
    [{ DATABASE_URL: connectionString, HOST: 'nowhere.invalid' }, 'The configuration is wrong.\nHOST is no address or name of this machine: '],
    [{ DATABASE_URL: connectionString, HOST: '192.0.2.1' }, 'Set HOST and PORT to an address and port of this machine that you may listen on.'],
    [{ DATABASE_URL: nothing }, 'The database of DATABASE_URL cannot be used: connect ECONNREFUSED 127.0.0.1:1'],
    [{ DATABASE_URL: connectionString.replace('/test_', '/nope_') }, 'The database of DATABASE_URL cannot be used: database "nope_'],
    [{ DATA_DIR: join(file, 'data') }, 'Set DATA_DIR to another one.'],
    [{ DATABASE_URL: connectionString, UPSTREAM_URL: 'http://127.0.0.1:1', UPSTREAM_OPENAPI: '/nowhere' }, 'The document of UPSTREAM_OPENAPI, /nowhere, cannot be read: ENOENT: no such file or directory']
  ]
  for (const [environment, message] of cases) {
    const { exit, output } = run(t, environment)
    t.strictSame(await exit, [1, null], message)
    t.match(output(), message)
    t.notMatch(output(), '    at ', 'without a trace')
  }
})
