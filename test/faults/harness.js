// What the fault tests share: a real PostgreSQL with its normal durability, the built service as processes of its own,
// and requests to it. All of it on loopback, bounded in count and time, and gone afterwards.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Agent, request as send } from 'undici'
import { startEmbeddedPostgres } from '../../dist/embedded-postgres.js'
import { migrate } from '../../dist/migrate.js'
import { beforeExit } from '../../scripts/before-exit.js'

export const adminKey = 'the-admin-key-of-the-fault-tests-0123456789'
export const encryptionKeys = [Buffer.alloc(32, 7).toString('base64')]

const environment = {
  PATH: process.env.PATH,
  HOME: process.env.HOME,
  PORT: '0',
  LOG_LEVEL: 'warn',
  ADMIN_API_KEY: adminKey,
  SESSION_ENCRYPTION_KEYS: encryptionKeys.join(','),
  RATE_LIMIT_PRO: '2000000000',
  SESSION_LIMIT_PRO: '2000000000'
}

/** Ends what was started, the last first, however the test ends, be it by a signal. */
export async function withCleanup (run) {
  const cleanups = []
  const cleanUp = beforeExit(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup()
  })
  try {
    return await run(cleanup => cleanups.push(cleanup))
  } finally {
    await cleanUp()
  }
}

/**
 * A PostgreSQL that can be stopped as by a power cut and started again on what it had flushed.
 *
 * @param options.pooler whether everything goes through a PgBouncer in transaction mode; instances are then to be given
 * `variables`, or `options` where they run in this process
 */
export async function startPostgres (defer, { pooler = false } = {}) {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-faults-'))
  chmodSync(dataDir, 0o755)
  let server = startEmbeddedPostgres({ dataDir })
  defer(async () => {
    try {
      await (await server)?.stop()
    } finally {
      rmSync(dataDir, { recursive: true, force: true })
    }
  })
  const { connectionString } = await server
  return {
    connectionString: pooler ? await startPgBouncer(defer, connectionString) : connectionString,
    /** Past PgBouncer, where there is one. */
    directConnectionString: connectionString,
    variables: pooler ? { DATABASE_POOLER: 'transaction' } : {},
    options: pooler ? { pooler: 'transaction' } : {},
    /** PostgreSQL's immediate shutdown: no checkpoint, no goodbye; the next start recovers from the log. */
    async stopImmediately () {
      const pid = Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
      process.kill(pid, 'SIGQUIT')
      await waitUntil('PostgreSQL has ended', () => !isAlive(pid))
      server = undefined
    },
    async stop () {
      await (await server).stop()
      server = undefined
    },
    async start () {
      server = startEmbeddedPostgres({ dataDir })
      await server
    }
  }
}

/** Debian's PgBouncer before the server, in transaction mode, on loopback, with its files in a temporary directory. */
export async function startPgBouncer (defer, connectionString) {
  const { host: socketDir, port: serverPort } = new pg.Client({ connectionString })
  const directory = mkdtempSync(join(tmpdir(), 'sipher-pgbouncer-'))
  chmodSync(directory, 0o755)
  const port = await freePort()
  const config = join(directory, 'pgbouncer.ini')
  writeFileSync(config, `[databases]
* = host=${socketDir} port=${serverPort} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
server_login_retry = 1
`)
  // Like PostgreSQL it refuses to be root, and the socket is for PostgreSQL's user.
  const child = spawn(process.env.PGBOUNCER ?? '/usr/sbin/pgbouncer', [config], { stdio: ['ignore', 'ignore', 'pipe'], ...(process.getuid() === 0 && { uid: 65_534, gid: 65_534 }) })
  const exited = once(child, 'exit').catch(error => { throw new Error(`PgBouncer did not start (Debian: apt-get install pgbouncer, or set PGBOUNCER to where it is): ${error.message}`) })
  let output = ''
  child.stderr.setEncoding('utf8').on('data', chunk => { if (output.length < 20_000) output += chunk })
  defer(async () => {
    child.kill('SIGKILL')
    await exited
    rmSync(directory, { recursive: true, force: true })
  })
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  const failed = exited.then(() => { throw new Error(`PgBouncer ended:\n${output}`) })
  await Promise.race([failed, waitUntil('PgBouncer answers', () => query(url, 'select 1').catch(() => false))])
  failed.catch(() => {})
  return url
}

/** A TCP way to PostgreSQL, or to PgBouncer, on which every byte can be made late. */
export async function startSlowProxy (defer, connectionString) {
  const target = new pg.Client({ connectionString })
  const sockets = new Set()
  let delayMs = 0
  const server = createServer(client => {
    const upstream = target.host.startsWith('/') ? connect(`${target.host}/.s.PGSQL.${target.port}`) : connect({ host: target.host, port: target.port })
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => sockets.delete(from))
      // In their order also when the delay changes.
      let due = 0
      const later = act => {
        due = Math.max(due, performance.now() + delayMs)
        const waitMs = due - performance.now()
        if (waitMs <= 0.5) act()
        else setTimeout(act, waitMs)
      }
      from.on('data', chunk => later(() => { if (to.writable) to.write(chunk) }))
      from.on('close', () => later(() => to.destroy()))
    }
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  defer(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return {
    connectionString: `postgres://${target.user}@127.0.0.1:${server.address().port}/${target.database}`,
    delay (ms) { delayMs = ms }
  }
}

/** A port of this machine on which nothing listens. */
export async function freePort () {
  const server = createServer()
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}

function isAlive (pid) {
  try {
    return process.kill(pid, 0) && !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}

/** A database of its own on the server, migrated unless `empty`. */
export async function createDatabase (connectionString, name, { empty = false } = {}) {
  await query(connectionString, `create database ${name}`)
  const url = new URL(connectionString.replace('@/', '@localhost/'))
  url.pathname = `/${name}`
  if (!empty) {
    const pool = new pg.Pool({ connectionString: url.href })
    await migrate(pool)
    await pool.end()
  }
  return url.href
}

export async function query (connectionString, text, values) {
  const client = new pg.Client({ connectionString })
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query(text, values)).rows
  } finally {
    await client.end()
  }
}

/** The built service as a process, listening. */
export async function startInstance (defer, databaseUrl, variables = {}, script = 'dist/server.js') {
  const child = spawn(process.execPath, [script], { env: { ...environment, LOG_LEVEL: 'info', DATABASE_URL: databaseUrl, ...variables }, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = once(child, 'exit')
  /** Ends it; resolves with its exit code. */
  async function stop (signal = 'SIGTERM') {
    child.kill(signal)
    const [code] = await exited
    return code
  }
  defer(() => stop('SIGKILL'))
  let output = ''
  const problems = new Set()
  const origin = await new Promise((resolve, reject) => {
    const read = line => {
      // Enough to tell why it did not start.
      if (output.length < 20_000) output += `${line}\n`
      const match = /Server listening at (http:\/\/[^"]+)/.exec(line)
      if (match) resolve(match[1])
      if (/^\{"level":[456]0/.test(line)) problems.add(problemOf(line))
    }
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', read)
    exited.then(([code, signal]) => reject(new Error(`the service ended with ${code ?? signal}:\n${output}`)))
  })
  return {
    origin,
    pid: child.pid,
    exited,
    /** What it has logged as a warning or worse, each once. */
    problems,
    stop
  }
}

/** What a line of the log says; one that a kill has cut short, as it is. */
function problemOf (line) {
  try {
    const { err, msg } = JSON.parse(line)
    return err ? `${msg}: ${err.message}` : msg
  } catch {
    return line
  }
}

/**
 * Watches what the machine gives while something is measured: every 50 ms PostgreSQL commits a row of a table that nothing
 * else uses, for a connection of its own.
 *
 * @returns ends it, and resolves with the longest that this took from when it was due, in milliseconds, as this process sees it
 */
export async function watchMachine (defer, connectionString) {
  const client = new pg.Client({ connectionString })
  client.on('error', () => {})
  await client.connect()
  await client.query('create table public.machine (at timestamptz not null)')
  let slowestMs = 0
  const stop = new AbortController()
  const watching = (async () => {
    while (!stop.signal.aborted) {
      const due = performance.now() + 50
      await sleep(50)
      await client.query('insert into public.machine values (now())')
      slowestMs = Math.max(slowestMs, performance.now() - due)
    }
  })()
  watching.catch(() => {})
  const end = async () => {
    stop.abort()
    await watching
    return slowestMs
  }
  defer(async () => {
    await end().catch(() => {})
    await client.end()
  })
  return end
}

/** Sends requests to the service; connections are kept, as a client's are. */
export function createClient (defer, { connections = 64 } = {}) {
  const dispatcher = new Agent({ connections, pipelining: 1, keepAliveTimeout: 30_000 })
  defer(() => dispatcher.destroy())
  /** @returns status, headers and JSON body; status 0 where the connection failed */
  return async function ask (origin, method, path, { key, body, headers } = {}) {
    try {
      const response = await send(origin + path, {
        dispatcher,
        method,
        headers: { ...(key && { 'x-api-key': key }), ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
        ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) })
      })
      const text = await response.body.text()
      return { status: response.statusCode, headers: response.headers, body: text && JSON.parse(text) }
    } catch (error) {
      return { status: 0, error }
    }
  }
}

/** A new API key, through the admin operations. */
export async function createKey (ask, origin, tier = 'pro') {
  const { status, body } = await ask(origin, 'POST', '/v1/admin/keys', { key: adminKey, body: { tier, name: 'faults' } })
  if (status !== 201) throw new Error(`no key was made: ${status} ${JSON.stringify(body)}`)
  return { key: body.data.key, id: body.data.id }
}

/** The value below which that part of them is: 0.5 for the median, 0.99. */
export function quantile (values, part) {
  const sorted = Float64Array.from(values).sort()
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]
}

export async function waitUntil (what, condition, { timeoutMs = 30_000 } = {}) {
  const deadline = performance.now() + timeoutMs
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s in vain: ${what}`)
    await sleep(10)
  }
}

/** Random numbers that the same seed gives again (mulberry32, public domain, by Tommy Ettinger). */
export function createRandom (seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6D2B79F5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

export { sleep }
