import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { dataFolders, EmbeddedPostgresError, locateBinaries, port, prepareFiles, removeSocketDir, removeUnusedSocketDir, superuser, type Files } from './embedded-postgres-files.js'
import { advisoryLocks } from './postgres/advisory-locks.js'

export { EmbeddedPostgresError }

export interface EmbeddedPostgresOptions {
  /** Where the files are kept; made when missing. */
  dataDir: string
  /** Told where things are kept when that is not below `dataDir`, and that a running server was taken over. */
  log?: (message: string) => void
  /**
   * Whether what is committed survives a power cut. Off only for tests.
   * @default true
   */
  durable?: boolean
  /**
   * The folder with `bin`, `lib` and `share` of a PostgreSQL.
   * @default those of the npm package for the platform
   */
  binaries?: string
  /**
   * How long the server may take to start, in milliseconds.
   * @default 60000
   */
  startTimeoutMs?: number
  /**
   * How long PostgreSQL's fast shutdown may take, in milliseconds, before an immediate one, from which the next start recovers.
   * @default 30000
   */
  stopTimeoutMs?: number
}

export interface EmbeddedPostgres {
  connectionString: string
  /** Where the data is kept: `dataDir`, or a directory that the server's user can reach. */
  home: string
  /** Stops the server and resolves when it has ended; asked again, waits for the same end. */
  stop (): Promise<void>
}

interface Server {
  pid: number
  socketDir: string
}

type StartOptions = Files & Required<Pick<EmbeddedPostgresOptions, 'durable' | 'log' | 'startTimeoutMs' | 'stopTimeoutMs'>>

/** How long a server that is up may take to answer; one that stands still is as good as none. */
const answerTimeoutMs = 5_000
/** How long that one may take: it ends with SIGKILL what has not ended within 5 s. */
const killTimeoutMs = 10_000
/** What outlives a process killed with SIGKILL is gone after this at the latest. */
const leftoversMs = 5_000

/**
 * Starts a PostgreSQL of which only this machine's user knows: it listens on a unix socket in a directory that nobody
 * else can enter. A server that a killed process left running is taken over.
 *
 * @throws EmbeddedPostgresError when there is no PostgreSQL for the platform, another process uses the data, or the
 * server does not start
 */
export async function startEmbeddedPostgres (options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { dataDir, log = ignore, durable = true, binaries = locateBinaries(`${process.platform}-${process.arch}`), startTimeoutMs = 60_000, stopTimeoutMs = 30_000 } = options
  const files = prepareFiles({ dataDir, binaries, durable, log })
  const { owner: firstOwner, server } = await startOrAdopt({ ...files, durable, log, startTimeoutMs, stopTimeoutMs }).catch((error: unknown) => {
    removeUnusedSocketDir(files)
    throw error
  })
  if (server.socketDir !== files.socketDir) removeUnusedSocketDir(files)
  let stopped: Promise<void> | undefined
  const stopping = new AbortController()
  let owner = firstOwner
  let takingBack = Promise.resolve()
  keepOwnership()
  return {
    connectionString: connectionString(server.socketDir),
    home: files.home,
    // Once: its directory may be that of the next one by then.
    stop () {
      stopped ??= stop()
      return stopped
    }
  }

  async function stop (): Promise<void> {
    stopping.abort()
    await takingBack
    await owner.end()
    await stopServer(server.pid, files.data, stopTimeoutMs)
    removeSocketDir(files.home, server.socketDir)
  }

  /** The crash of one of the server's processes ends all connections, and with this one the lock that keeps others off. */
  function keepOwnership (): void {
    owner.once('end', () => {
      if (!stopping.signal.aborted) takingBack = takeBack()
    })
  }

  async function takeBack (): Promise<void> {
    // Not of another server that somebody has started since on the same data.
    const isOurs = () => readServer(files.data)?.pid === server.pid
    while (!stopping.signal.aborted && isOurs()) {
      const next = await connectOwner(server.socketDir, files.data)
      if (next && isOurs() && await takeOwnership(next, files.data).then(() => true, () => false)) {
        owner = next
        keepOwnership()
        return
      }
      await next?.end()
      // Who stops it does not wait for that: there may be nothing else that keeps the process.
      await sleep(100, undefined, { ref: false, signal: stopping.signal }).catch(ignore)
    }
  }
}

/**
 * Where the server is that a process of this machine's user runs on the data, or null when none does. It stays theirs:
 * whoever ends it ends this connection's use of it.
 */
export async function findEmbeddedPostgres (dataDir: string): Promise<string | null> {
  for (const data of dataFolders(dataDir)) {
    const running = readServer(data)
    const client = running && await connectTo(running.socketDir, data, 'sipher-sessions finder')
    await client?.end()
    if (client) return connectionString(running!.socketDir)
  }
  return null
}

/** Brings a server up on the data, or finds the one that runs there, and takes the owner's lock on it. */
async function startOrAdopt (options: StartOptions): Promise<{ owner: pg.Client, server: Server }> {
  const { data, logFile, log } = options
  const began = performance.now()
  for (;;) {
    const running = readServer(data)
    const owner = running && await connectOwner(running.socketDir, data)
    if (running && owner) {
      await takeOwnership(owner, data)
      log(`Taking over the PostgreSQL (process ${running.pid}) that an earlier run left in ${data}`)
      return { owner, server: running }
    }
    const started = await startServer(options)
    if (started) return started
    // A server that is ending, or the memory of one that was killed, is still in the way.
    if (performance.now() - began > leftoversMs) {
      throw new EmbeddedPostgresError(`The embedded PostgreSQL did not start in ${data}. The end of ${logFile}:\n${tail(logFile)}`)
    }
    await sleep(100)
  }
}

/**
 * The server that has the data open, or had it when it was killed, by the file that it keeps there: pid, directory,
 * start, port, socket directory. One that is just starting has not written all of that.
 */
function readServer (data: string): Server | null {
  let file: string
  try {
    file = readFileSync(join(data, 'postmaster.pid'), 'utf8')
  } catch {
    // There is none, or what is in its place cannot be read, of which PostgreSQL says more when it is started.
    return null
  }
  const [pid, , , , socketDir] = file.split('\n')
  return socketDir ? { pid: Number(pid), socketDir } : null
}

/** The new server with its owner's connection; null when it ended instead of accepting one. */
async function startServer ({ binaries, data, socketDir, account, logFile, durable, startTimeoutMs, stopTimeoutMs }: StartOptions): Promise<{ owner: pg.Client, server: Server } | null> {
  const output = openLog(logFile)
  // A session of its own keeps Ctrl-C, which the terminal sends to all processes, for us: it must end after us.
  const child = spawn(join(binaries, 'bin', 'postgres'), [
    '-D', data, '-k', socketDir, '-p', String(port),
    '-c', 'listen_addresses=', '-c', 'unix_socket_permissions=0700', '-c', 'timezone=UTC',
    // Nor does anything run in the background that would hold on to what tests count.
    ...(durable ? [] : ['-c', 'fsync=off', '-c', 'full_page_writes=off', '-c', 'synchronous_commit=off', '-c', 'autovacuum=off'])
  ], { ...account, cwd: data, detached: true, stdio: ['ignore', output, output] })
  closeSync(output)
  let ended = false
  let failure: Error | undefined
  child.once('exit', () => { ended = true })
  child.once('error', error => { failure = error })
  child.unref()

  const deadline = performance.now() + startTimeoutMs
  while (!ended && performance.now() < deadline) {
    if (failure) throw unusable(data, failure)
    const owner = await connectOwner(socketDir, data)
    if (owner) {
      await takeOwnership(owner, data)
      return { owner, server: { pid: child.pid!, socketDir } }
    }
    await sleep(20)
  }
  if (!ended) await stopServer(child.pid!, data, stopTimeoutMs)
  return null
}

function openLog (logFile: string): number {
  try {
    return openSync(logFile, 'a', 0o600)
  } catch (error) {
    throw unusable(logFile, error as Error)
  }
}

/** As of files that another user has made. */
function unusable (path: string, { message }: Error): EmbeddedPostgresError {
  return new EmbeddedPostgresError(`The embedded PostgreSQL cannot be started on ${path}: ${message}. If another user has made it, give it to this one (chown), or set DATA_DIR to another directory.`)
}

async function connectOwner (socketDir: string, data: string): Promise<pg.Client | null> {
  return connectTo(socketDir, data, 'sipher-sessions owner')
}

/** A connection to the server on that socket if it is up and the data is ours. */
async function connectTo (socketDir: string, data: string, name: string): Promise<pg.Client | null> {
  const client = new pg.Client({ connectionString: connectionString(socketDir), application_name: name, connectionTimeoutMillis: answerTimeoutMs, query_timeout: answerTimeoutMs })
  // When the server goes away the pool's connections say so; this one has nothing to add.
  client.on('error', ignore)
  try {
    await client.connect()
    const { rows } = await client.query<{ data_directory: string }>('show data_directory')
    if (rows[0]!.data_directory === data) return client
  } catch {
    // Not up yet, or no longer.
  }
  await client.end()
  return null
}

/** Two processes must not share the server, for the first to end would stop it under the other. */
async function takeOwnership (owner: pg.Client, data: string): Promise<void> {
  const deadline = performance.now() + 2_000
  for (;;) {
    const { rows } = await owner.query<{ taken: boolean }>('select pg_try_advisory_lock($1) as taken', [advisoryLocks.embeddedPostgres])
    if (rows[0]!.taken) return
    if (performance.now() > deadline) {
      await owner.end()
      throw new EmbeddedPostgresError(`Another process of sipher-sessions uses the embedded PostgreSQL in ${data}. ` +
        'Stop it, set DATA_DIR to a directory of its own, or let both use one PostgreSQL by DATABASE_URL.')
    }
    await sleep(50)
  }
}

async function stopServer (pid: number, data: string, timeoutMs: number): Promise<void> {
  // PostgreSQL's fast shutdown: it ends connections and leaves the data clean, in the time that takes.
  signal(pid, 'SIGINT')
  const isUp = () => isAlive(pid) && existsSync(join(data, 'postmaster.pid'))
  const began = performance.now()
  while (isUp() && performance.now() - began < timeoutMs) await sleep(10)
  // Something in it stands still: it waits for that no longer than some seconds, and neither do we.
  if (isUp()) signal(pid, 'SIGQUIT')
  while (isUp() && performance.now() - began < timeoutMs + killTimeoutMs) await sleep(10)
  // The file is gone just before the process is. One that was taken over may stay as a zombie, where nothing reaps
  // orphans.
  const deadline = performance.now() + 500
  while (isAlive(pid) && performance.now() < deadline) await sleep(5)
}

function isAlive (pid: number): boolean {
  return signal(pid, 0)
}

/** Whether there is such a process; the signal 0 only asks. */
function signal (pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name)
  } catch (error) {
    // Another user's process cannot be signalled, but is there.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

function connectionString (socketDir: string): string {
  // Whatever PGSSLMODE says of other databases.
  return `postgres://${superuser}@/postgres?host=${encodeURIComponent(socketDir)}&port=${port}&sslmode=disable`
}

function tail (file: string): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-10).join('\n')
}

function ignore (): void {}
