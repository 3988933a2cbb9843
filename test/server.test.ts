import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createDatabase, createPool, encryptionKeys } from './helpers.js'

const nothing = 'postgres://nobody@127.0.0.1:1/none'

function createDataDir (t: Test): string {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-server-'))
  chmodSync(dataDir, 0o755)
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }))
  return dataDir
}

/** The built process as `npm start` runs it, in an environment with nothing else, on any free port. */
function run (t: Test, environment: Record<string, string>) {
  const { PATH = '', HOME = '' } = process.env
  const coverage = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('_TAPJS_') || name === 'NODE_OPTIONS'))
  const child = spawn(process.execPath, ['dist/server.js'], { env: { ...coverage, PATH, HOME, PORT: '0', ...(environment.DATABASE_URL && { SESSION_ENCRYPTION_KEYS: encryptionKeys.join() }), ...environment } })
  let output = ''
  const waiting: (() => void)[] = []
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk
      waiting.forEach(check => check())
    })
  }
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  t.teardown(() => { child.kill('SIGKILL') })
  return {
    child,
    exit,
    output: () => output,
    /** Resolves with the first match of what the process has printed; rejects when it ends without. */
    async printed (pattern: RegExp): Promise<RegExpExecArray> {
      return new Promise((resolve, reject) => {
        const check = () => {
          const match = pattern.exec(output)
          if (match) resolve(match)
        }
        waiting.push(check)
        check()
        void exit.then(([code]) => reject(new Error(`exited with ${code} and printed:\n${output}`)))
      })
    }
  }
}

const listening = /Server listening at (http:\/\/[^"]+)/

function postgresPid (dataDir: string): number {
  return Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
}

/** A zombie has ended: it only waits for its parent to ask how, which not every init does. */
function isAlive (pid: number): boolean {
  const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' })
  return stdout.trim() !== '' && !stdout.startsWith('Z')
}

async function stop (child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM') {
  const exit = once(child, 'exit')
  child.kill(signal)
  const [code] = await exit
  return code as number | null
}

t.test('the first start prints a key for each tier and a request that answers 201; the next one none', async t => {
  const dataDir = createDataDir(t)
  const first = run(t, { DATA_DIR: dataDir })
  const [, url, headers, body] = await first.printed(/curl -sS -X POST (\S+) ((?:-H '[^']+' )+)-d '(.+)'\n\n/)
  for (const prefix of ['sk_free_', 'sk_pro_', 'sk_ent_']) t.match(first.output(), prefix)
  t.match(first.output(), /Swagger UI {3}http:\/\/127\.0\.0\.1:\d+\/docs\n/)

  const response = await fetch(url!, {
    method: 'POST',
    headers: Object.fromEntries([...headers!.matchAll(/-H '([^:]+): ([^']+)'/g)].map(([, name, value]) => [name!, value!])),
    body: body!
  })
  t.equal(response.status, 201)
  const { data: { sessionId } } = await response.json() as { data: { sessionId: string } }

  const postgres = postgresPid(dataDir)
  t.equal(await stop(first.child), 0, 'SIGTERM ends it cleanly')
  t.notOk(isAlive(postgres), 'and leaves no process behind')

  const second = run(t, { DATA_DIR: dataDir })
  const [, origin] = await second.printed(listening)
  t.notMatch(second.output(), 'sk_')
  const key = /X-API-Key: (\S+)'/.exec(headers!)![1]!
  t.equal((await fetch(`${origin}/v1/sessions/${sessionId}`, { headers: { 'x-api-key': key } })).status, 200, 'what was stored is still there')
  t.equal(await stop(second.child, 'SIGINT'), 0)
})

t.test('without encryption keys one is made beside the embedded data, and kept', async t => {
  const dataDir = createDataDir(t)
  const file = join(dataDir, 'encryption.key')
  const first = run(t, { DATA_DIR: dataDir })
  const [, origin] = await first.printed(listening)
  const [, key] = await first.printed(/pro key +(\S+)[^]*curl/)
  t.match(first.output(), `Secret values are encrypted with a key that was made in ${file}.`)
  t.equal(statSync(file).mode & 0o777, 0o600, 'that nobody else can read')
  t.notMatch(first.output(), readFileSync(file, 'utf8').trim())
  const headers = { 'x-api-key': key!, 'content-type': 'application/json' }
  const defaults = { defaultViewingKey: '0x7f2c9a41d05be38816c4' }
  const created = await fetch(`${origin}/v1/sessions`, { method: 'POST', headers, body: JSON.stringify({ defaults }) })
  const { data: { sessionId } } = await created.json() as { data: { sessionId: string } }
  t.equal(await stop(first.child), 0)

  const second = run(t, { DATA_DIR: dataDir })
  const [, again] = await second.printed(listening)
  t.notMatch(second.output(), 'encryption.key')
  const read = await fetch(`${again}/v1/sessions/${sessionId}`, { headers })
  t.strictSame((await read.json() as { data: { defaults: object } }).data.defaults, defaults)
  t.equal(await stop(second.child), 0)
})

t.test('Ctrl-C arrives from the terminal and from npm, and still nothing is left behind', async t => {
  const dataDir = createDataDir(t)
  const { child, exit, printed } = run(t, { DATA_DIR: dataDir, HOST: '0.0.0.0' })
  await printed(/is listening on http:\/\/127\.0\.0\.1:\d+\n/)
  const postgres = postgresPid(dataDir)
  child.kill('SIGINT')
  child.kill('SIGINT')
  child.kill('SIGTERM')
  t.strictSame(await exit, [0, null])
  t.notOk(isAlive(postgres))
})

t.test('a signal while it starts ends it as well', async t => {
  const dataDir = createDataDir(t)
  const { child, exit } = run(t, { DATA_DIR: dataDir })
  while (!existsSync(join(dataDir, 'postgres.log'))) await new Promise(resolve => setTimeout(resolve, 1))
  child.kill('SIGTERM')
  t.strictSame(await exit, [0, null])
  t.notOk(existsSync(join(dataDir, 'postgres', 'postmaster.pid')))
})

t.test('after kill -9 the next start takes over what was left', async t => {
  const dataDir = createDataDir(t)
  const first = run(t, { DATA_DIR: dataDir })
  await first.printed(/curl/)
  const postgres = postgresPid(dataDir)
  first.child.kill('SIGKILL')
  await first.exit
  t.ok(isAlive(postgres), 'Postgres is left')

  const second = run(t, { DATA_DIR: dataDir })
  await second.printed(listening)
  t.match(second.output(), `Taking over the PostgreSQL (process ${postgres}) that an earlier run left in ${dataDir}`)

  const third = run(t, { DATA_DIR: dataDir })
  t.strictSame(await third.exit, [1, null], 'while it runs, another one is refused')
  t.match(third.output(), `Another process of sipher-sessions uses the embedded PostgreSQL in ${dataDir}`)

  t.equal(await stop(second.child), 0)
  t.notOk(isAlive(postgres))
})

t.test('when both it and Postgres are killed the next start recovers', async t => {
  const dataDir = createDataDir(t)
  const first = run(t, { DATA_DIR: dataDir })
  await first.printed(/curl/)
  process.kill(postgresPid(dataDir), 'SIGKILL')
  first.child.kill('SIGKILL')
  await first.exit
  const second = run(t, { DATA_DIR: dataDir })
  await second.printed(listening)
  t.equal(await stop(second.child), 0)
})

t.test('an error that nobody has caught ends it, and leaves nothing behind', async t => {
  const dataDir = createDataDir(t)
  const thrower = join(dataDir, 'thrower.mjs')
  writeFileSync(thrower, "process.on('SIGUSR2', () => { throw new Error('nobody caught me') })")
  const { child, exit, output, printed } = run(t, { DATA_DIR: dataDir, HOST: '::1', NODE_OPTIONS: `--import=${thrower}` })
  await printed(/is listening on http:\/\/\[::1\]:\d+\n[^]*curl/)
  const postgres = postgresPid(dataDir)
  child.kill('SIGUSR2')
  t.strictSame(await exit, [1, null])
  t.match(output(), 'nobody caught me')
  t.notOk(isAlive(postgres))
})

t.test('when nobody reads its output any more it still serves, and ends when it is told to', async t => {
  const { child, exit } = run(t, { DATA_DIR: createDataDir(t), PORT: '5107' })
  child.stdout.destroy()
  child.stderr.destroy()
  const ask = () => fetch('http://127.0.0.1:5107/v1/ready').then(({ status }) => status, () => 0)
  while (await ask() !== 200) await new Promise(resolve => setImmediate(resolve))
  // Until it has printed the keys, and longer.
  for (let i = 0; i < 200; i++) t.equal(await ask(), 200)
  child.kill('SIGTERM')
  t.strictSame(await exit, [0, null])
})

t.test('with DATABASE_URL no key is made, and a short admin key is warned of', async t => {
  const connectionString = await createDatabase(t, { empty: true })
  const { child, printed, output } = run(t, { DATABASE_URL: connectionString, ADMIN_API_KEY: 'short', HOST: '::1', RATE_LIMIT_FAIL_OPEN: 'true' })
  const [, origin] = await printed(listening)
  await printed(/ADMIN_API_KEY is shorter than 32 characters/)
  await printed(/where requests cannot be counted they are let through uncounted \(RATE_LIMIT_FAIL_OPEN\)/)
  t.equal((await fetch(`${origin}/v1/ready`)).status, 200)
  t.strictSame((await createPool(t, connectionString).query('select count(*)::int as keys from sipher_sessions.api_keys')).rows, [{ keys: 0 }])
  t.notMatch(output(), 'sk_')
  t.equal(await stop(child), 0)
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

if (process.getuid?.() === 0) {
  t.test('run by root from a directory that only root can enter, the data is kept where PostgreSQL can reach it', async t => {
    const closed = mkdtempSync(join(tmpdir(), 'sipher-closed-'))
    t.teardown(() => rmSync(closed, { recursive: true, force: true }))
    const { child, printed } = run(t, { DATA_DIR: join(closed, '.data') })
    const [, staged] = await printed(/its user cannot reach \S+: the data is kept in (\S+)\n/)
    t.teardown(() => rmSync(staged!, { recursive: true, force: true }))
    await printed(listening)
    const postgres = postgresPid(staged!)
    t.equal(await stop(child), 0)
    t.notOk(isAlive(postgres))
  })
}
