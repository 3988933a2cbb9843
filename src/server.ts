import { lookup } from 'node:dns/promises'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { ConfigError, loadConfig } from './config.js'
import { createDemoKeys, demoMessage } from './demo-keys.js'
import { embeddedEncryptionKey } from './embedded-encryption-key.js'
import { startEmbeddedPostgres, type EmbeddedPostgres } from './embedded-postgres.js'
import { explainError } from './explain-error.js'
import { createService } from './service.js'
import { standardOutput } from './standard-output.js'

/** How long running requests get to finish once the process is told to end, in milliseconds. */
const drainTimeoutMs = 10_000

/** How long a service that is being started may take to be once the process is told to end, in milliseconds. */
const startGraceMs = 5_000

let database: EmbeddedPostgres | undefined
let service: FastifyInstance | undefined
let ending = false
// Not before the signals are listened to: PostgreSQL is started in one go with what is before it, and would be left running.
const starting = Promise.resolve().then(start)

/**
 * Ends in the order in which it began, backwards, and whatever signals come meanwhile: Ctrl-C under npm arrives
 * twice, from the terminal and from npm, and must not leave the database running.
 */
async function end (exitCode: number): Promise<void> {
  if (ending) return
  ending = true
  const isStarted = await hasStarted()
  const report = (error: unknown) => {
    exitCode = 1
    console.error(error)
  }
  if (isStarted) await withTimeout(service?.drain().then(() => service!.close())).catch(report)
  await database?.stop().catch(report)
  await standardOutput().finish()
  process.exit(exitCode)
}

/**
 * Waits until what is being started is there to be stopped; but not for a migration that takes long, or waits for another
 * instance's: its end leaves nothing behind.
 */
async function hasStarted (): Promise<boolean> {
  const started = starting.then(() => true, () => true)
  const began = performance.now()
  while (!(service && performance.now() - began > startGraceMs)) {
    if (await Promise.race([started, sleep(50, false)])) return true
  }
  return false
}

async function withTimeout (closing: PromiseLike<unknown> | undefined): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([
    closing,
    new Promise((_resolve, reject) => { timer = setTimeout(reject, drainTimeoutMs, new Error(`Some requests were not finished within ${drainTimeoutMs / 1000} s, and were cut off.`)) })
  ]).finally(() => clearTimeout(timer))
}

async function start (): Promise<void> {
  const config = loadConfig(process.env)
  const log = (message: string) => console.log(message)
  if (config.databaseUrl === undefined) {
    database = await startEmbeddedPostgres({ dataDir: config.dataDir, log })
    config.encryptionKeys ??= [embeddedEncryptionKey(database.home, log)]
  }
  if (config.encryptionKeys === undefined) {
    throw new ConfigError('SESSION_ENCRYPTION_KEYS is needed with DATABASE_URL: sessions hold viewing keys, which are stored encrypted. ' +
      'Make a key with openssl rand -base64 32, keep it as long as the sessions, and give every instance the same.')
  }
  const { host, port, databaseUrl, dataDir: _, ...options } = config
  service = createService({ ...options, connectionString: databaseUrl ?? database!.connectionString, docs: '/docs' })
  await service.ready()
  if (ending) return
  service.log.info({ rateLimitFailOpen: config.rateLimitFailOpen }, `where requests cannot be counted they are ${config.rateLimitFailOpen ? 'let through uncounted' : 'refused with 503'} (RATE_LIMIT_FAIL_OPEN)`)
  await listen(service, host, port).catch((error: NodeJS.ErrnoException) => {
    throw error.syscall === 'getaddrinfo' ? new ConfigError(`HOST is no address or name of this machine: ${error.message}`) : error
  })
  if (config.adminKey !== undefined && config.adminKey.length < 32) {
    service.log.warn('ADMIN_API_KEY is shorter than 32 characters and may be guessed; make one with: openssl rand -hex 32')
  }
  // After the lines that are still to be written.
  if (database) standardOutput().write(demoMessage(urlOf(service), await createDemoKeys(service)))
}

/**
 * On one address, also where the name has several. Of `localhost` Fastify would make a server of its own for each, of which all but
 * the first would lack what the service sets up on its server, and would be cut off when it ends.
 */
async function listen (service: FastifyInstance, host: string, port: number): Promise<void> {
  const addresses = await lookup(host, { all: true })
  const { address } = addresses.find(({ family }) => family === 4) ?? addresses[0]!
  await service.listen({ host: address, port })
}

function urlOf ({ server }: FastifyInstance): string {
  const { address, family, port } = server.address() as AddressInfo
  const unspecified = address === '0.0.0.0' || address === '::'
  return `http://${unspecified ? '127.0.0.1' : family === 'IPv6' ? `[${address}]` : address}:${port}`
}

// Whoever reads the output may go (`npm start | head`); that is no reason to stop serving.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => { void end(0) })
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    console.error(error)
    void end(1)
  })
}

starting.catch((error: unknown) => {
  console.error(explainError(error, process.env.DATABASE_URL))
  void end(1)
})
