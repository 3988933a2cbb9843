import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, LightMyRequestResponse } from 'fastify'
import pg from 'pg'
import type { Test } from 'tap'
import { createService, type ServiceOptions } from '../src/service.js'
import type { Tier } from '../src/schemas/tier.js'

export const adminKey = 'admin-key-of-the-tests-0123456789abcdef'
export const encryptionKeys = [Buffer.from('encryption-key-of-the-tests-0123').toString('base64')]

function serverUrl (): string {
  const { TEST_DATABASE_URL: url } = process.env
  if (!url) throw new Error('Run the tests by npm test, which starts their PostgreSQL: npm test -- test/…')
  return url
}

/** The connection string of another database on the server of the tests. */
function databaseUrl (database: string): string {
  // Over a unix socket there is no host, which URL insists on.
  const url = new URL(serverUrl().replace('@/', '@localhost/'))
  url.pathname = `/${database}`
  return url.href
}

let server: pg.Pool | undefined

/** Runs a statement outside the databases of the tests, on a connection that keeps no test running. */
async function onServer (text: string): Promise<void> {
  server ??= new pg.Pool({ connectionString: serverUrl(), idleTimeoutMillis: 0, allowExitOnIdle: true })
  await server.query(text)
}

/** A database of the test's own, migrated unless `empty`, and dropped after the test. */
export async function createDatabase (t: Test, { empty = false } = {}): Promise<string> {
  const name = `test_${randomBytes(8).toString('hex')}`
  // Copying its files takes a third of the time of the other way, as the checkpoints that it makes flush nothing here.
  await onServer(`create database ${name} template ${empty ? 'template1' : process.env.TEST_TEMPLATE_DATABASE} strategy file_copy`)
  t.teardown(() => onServer(`drop database ${name} with (force)`))
  return databaseUrl(name)
}

/** A pool for looking into a database past the service, of the driver unless another copy of it is given. */
export function createPool (t: Test, connectionString: string, options: pg.PoolConfig = {}, { Pool }: Pick<typeof pg, 'Pool'> = pg): pg.Pool {
  const pool = new Pool({ connectionString, max: 4, ...options })
  // Its connections may still be on their way to end when the database is dropped.
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  return pool
}

/** A way to a database that can be cut, as by a broken network: connections end without a word. Or hang: new ones get no answer. */
export async function createProxy (t: Test, connectionString: string) {
  const target = new pg.Client({ connectionString })
  const sockets = new Set<Socket>()
  let hangs = false
  const proxy = createServer(socket => {
    if (hangs) {
      sockets.add(socket.on('error', () => {}))
      return
    }
    const upstream = target.host.startsWith('/') ? connect(`${target.host}/.s.PGSQL.${target.port}`) : connect(target.port, target.host)
    for (const end of [socket, upstream]) {
      sockets.add(end)
      end.on('error', () => {})
    }
    socket.pipe(upstream).pipe(socket)
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
  const cut = () => {
    for (const socket of sockets) socket.destroy()
    sockets.clear()
  }
  t.teardown(() => {
    cut()
    proxy.close()
  })
  const url = new URL(connectionString)
  url.hostname = '127.0.0.1'
  url.port = String((proxy.address() as AddressInfo).port)
  url.search = ''
  return { connectionString: url.href, cut, hang: () => { hangs = true } }
}

/** The service as the process runs it, on a database of its own unless one is given. */
export async function startService (t: Test, options: Partial<ServiceOptions> = {}) {
  const connectionString = options.connectionString ?? await createDatabase(t)
  // Where the machine stands still for a moment a request waits for it, but in tests of what it does then: they give undefined.
  const service = createService({ logLevel: 'silent', adminKey, encryptionKeys, sweepIntervalMs: 0, timeoutMs: 10_000, ...options, connectionString })
  t.teardown(() => service.close())
  await service.ready()
  return { service, connectionString }
}

/** A new key of a tier: its secret and its id. */
export async function createKey (service: FastifyInstance, tier: Tier = 'pro') {
  const { secret, record } = await service.apiKeyRepository.create({ tier, name: `test ${tier}` })
  return { key: secret, id: record.id, headers: { 'x-api-key': secret } }
}

export const unknownSessionId = `sess_${'0'.repeat(64)}`

/** A new session of a key, through the API. */
export async function createSession (service: FastifyInstance, key: string, defaults: object = { chain: 'near' }, ttlSeconds?: number): Promise<string> {
  const response = await service.inject({ method: 'POST', url: '/v1/sessions', headers: { 'x-api-key': key }, payload: { defaults, ttlSeconds } })
  if (response.statusCode !== 201) throw new Error(response.body)
  return response.json().data.sessionId
}

/**
 * Sends a POST of JSON to an app that listens, but for the last byte of its body, which comes once `meanwhile` has ended. That begins
 * when the request has been counted for the key `id`, and what is asked for it then has been answered. A header with an empty
 * value is left out.
 *
 * @returns the answer as it stands
 */
export async function sendInTwo (t: Test, app: FastifyInstance, id: string, { path, headers, body }: { path: string, headers: Record<string, string>, body: string }, meanwhile: () => Promise<void>): Promise<string> {
  const { port } = app.server.address() as AddressInfo
  const client = connect({ port, host: '127.0.0.1' })
  t.teardown(() => { client.destroy() })
  let answered = ''
  client.setEncoding('utf8').on('data', (chunk: string) => { answered += chunk })
  const lines = Object.entries({ host: 'x', connection: 'close', 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)), ...headers })
  const { requests } = await app.requestCountRepository.read(id)
  client.write(`POST ${path} HTTP/1.1\r\n${lines.filter(([, value]) => value !== '').map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body.slice(0, -1)}`)
  while ((await app.requestCountRepository.read(id)).requests === requests);
  await sleep(100)
  await meanwhile()
  client.write(body.slice(-1))
  await once(client, 'close')
  return answered
}

/** Status and body of an answer, for comparing both at once. */
export function answer (response: LightMyRequestResponse): { status: number, body: unknown } {
  return { status: response.statusCode, body: response.json() }
}

/** The answer that an error of this code gives, with its standard message unless another is given. */
export function failure (status: number, code: string, message: string, details?: { field: string, reason: string }[]) {
  return { status, body: { success: false, error: { code, message, ...(details && { details }) } } }
}
