import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createDataDir, isAlive, listening, postgresPid, run, stop } from './server-process.js'

// Each of these starts a PostgreSQL: a minute for all, but more than two where the machine has much else to do.
t.setTimeout(300_000)

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
  const [, origin] = await second.printed(/is listening on (\S+)\n\n {2}Swagger UI {3}\S+\/docs\n\nThe first start has shown its demo keys\..*\n\n/)
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

  writeFileSync(file, '')
  const third = run(t, { DATA_DIR: dataDir })
  t.strictSame(await third.exit, [1, null])
  t.match(third.output(), `The file ${file} is damaged: key 1 is missing. Restore it from a copy: without the key that was in it the secret values in the database cannot be read.\n`)
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

t.test('so does one while PostgreSQL is being started', async t => {
  const dataDir = createDataDir(t)
  const { child, exit } = run(t, { DATA_DIR: dataDir })
  while (!existsSync(join(dataDir, 'postgres'))) await new Promise(resolve => setTimeout(resolve, 1))
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

/** A port that nobody listens on, for a process that cannot tell which one it was given. */
async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

t.test('when nobody reads its output any more it still serves, and ends when it is told to', async t => {
  const port = await freePort()
  const { child, exit } = run(t, { DATA_DIR: createDataDir(t), PORT: String(port) })
  child.stdout.destroy()
  child.stderr.destroy()
  const ask = () => fetch(`http://127.0.0.1:${port}/v1/ready`).then(({ status }) => status, () => 0)
  while (await ask() !== 200) await new Promise(resolve => setImmediate(resolve))
  // Until it has printed the keys, and longer.
  for (let i = 0; i < 200; i++) t.equal(await ask(), 200)
  child.kill('SIGTERM')
  t.strictSame(await exit, [0, null])
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
