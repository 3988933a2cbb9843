import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { startEmbeddedPostgres } from '../src/embedded-postgres.js'
import { locateBinaries } from '../src/embedded-postgres-files.js'
import { isAlive } from './server-process.js'

function createDir (t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'sipher-embedded-'))
  chmodSync(dir, 0o755)
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

async function query (connectionString: string, text: string) {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    return (await client.query(text)).rows
  } finally {
    await client.end()
  }
}

t.test('it keeps its data from one start to the next, flushes what is committed, and listens on no port', async t => {
  const dataDir = join(createDir(t), 'deep', '.data')
  const first = await startEmbeddedPostgres({ dataDir })
  t.strictSame(await query(first.connectionString, 'select current_setting(\'fsync\') as fsync, current_setting(\'listen_addresses\') as addresses'), [{ fsync: 'on', addresses: '' }])
  await query(first.connectionString, 'create table kept (n int)')
  t.equal(statSync(join(dataDir, 'socket')).mode & 0o777, 0o700, 'nobody else can enter the socket\'s directory')
  await first.stop()
  t.notOk(existsSync(join(dataDir, 'socket')))

  const second = await startEmbeddedPostgres({ dataDir })
  t.strictSame(await query(second.connectionString, 'select * from kept'), [])
  await second.stop()
})

t.test('stopping it is no error when it was killed', async t => {
  const dataDir = createDir(t)
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  await query(postgres.connectionString, 'select pg_terminate_backend(pid) from pg_stat_activity where application_name = \'sipher-sessions owner\'')
  await query(postgres.connectionString, 'select 1')
  process.kill(Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0]), 'SIGKILL')
  for (let up = true; up;) up = await query(postgres.connectionString, 'select 1').then(() => true, () => false)
  // Its owner waits before it looks again whether the server is there.
  await sleep(150)
  await postgres.stop()
})

t.test('a crash within it leaves it to its owner', async t => {
  const dataDir = createDir(t)
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.teardown(() => postgres.stop())
  const ownerPid = async () => {
    const rows: { pid: number }[] = await query(postgres.connectionString, 'select pid from pg_stat_activity where application_name = \'sipher-sessions owner\'').catch(() => [])
    return rows[0]?.pid
  }
  const before = (await ownerPid())!
  process.kill(before, 'SIGKILL')
  for (let pid = before as number | undefined; pid === undefined || pid === before;) pid = await ownerPid()
  await t.rejects(startEmbeddedPostgres({ dataDir, durable: false }), { name: 'EmbeddedPostgresError', message: /^Another process of sipher-sessions uses/ })
})

t.test('one that is started after another has ended by itself belongs to who started it', async t => {
  const dataDir = createDir(t)
  const pidFile = join(dataDir, 'postgres', 'postmaster.pid')
  const first = await startEmbeddedPostgres({ dataDir, durable: false })
  process.kill(Number(readFileSync(pidFile, 'utf8').split('\n')[0]), 'SIGINT')
  while (existsSync(pidFile)) await sleep(1)
  const second = await startEmbeddedPostgres({ dataDir, durable: false })
  await sleep(500)
  await second.stop()
  await first.stop()
})

t.test('one of which a process stands still is stopped all the same', async t => {
  const dataDir = createDir(t)
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false, stopTimeoutMs: 300 })
  const client = new pg.Client({ connectionString: postgres.connectionString })
  client.on('error', () => {})
  await client.connect()
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  process.kill(rows[0]!.pid, 'SIGSTOP')
  await postgres.stop()
  t.notOk(existsSync(join(dataDir, 'postgres', 'postmaster.pid')))
  const again = await startEmbeddedPostgres({ dataDir, durable: false })
  await again.stop()
})

t.test('one that does not come up in time is ended', async t => {
  const dataDir = createDir(t)
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  await postgres.stop()
  const binaries = createDir(t)
  mkdirSync(join(binaries, 'bin'))
  const pidFile = join(dataDir, 'pids')
  writeFileSync(pidFile, '')
  chmodSync(pidFile, 0o666)
  writeFileSync(join(binaries, 'bin', 'postgres'), `#!/bin/sh\necho $$ >> ${pidFile}\nexec sleep 60\n`, { mode: 0o755 })
  await t.rejects(startEmbeddedPostgres({ dataDir, durable: false, binaries, startTimeoutMs: 2_000 }), { name: 'EmbeddedPostgresError', message: /^The embedded PostgreSQL did not start in / })
  const pids = readFileSync(pidFile, 'utf8').trim().split('\n').map(Number)
  t.ok(pids.length >= 1)
  for (const pid of pids) t.notOk(isAlive(pid), 'with all of its processes')
})

t.test('a variable that asks for TLS is not about it', async t => {
  process.env.PGSSLMODE = 'require'
  t.teardown(() => { delete process.env.PGSSLMODE })
  const postgres = await startEmbeddedPostgres({ dataDir: createDir(t), durable: false })
  t.teardown(() => postgres.stop())
  t.strictSame(await query(postgres.connectionString, 'select 1 as one'), [{ one: 1 }])
})

t.test('stopping it again takes nothing from the next one', async t => {
  const dataDir = createDir(t)
  const first = await startEmbeddedPostgres({ dataDir, durable: false })
  await first.stop()
  const second = await startEmbeddedPostgres({ dataDir, durable: false })
  await first.stop()
  t.strictSame(await query(second.connectionString, 'select 1 as one'), [{ one: 1 }])
  await second.stop()
})

t.test('the file of a server that was killed while it started is in nobody\'s way', async t => {
  const dataDir = createDir(t)
  const first = await startEmbeddedPostgres({ dataDir, durable: false })
  await first.stop()
  writeFileSync(join(dataDir, 'postgres', 'postmaster.pid'), `${spawnSync('true').pid}\n${join(dataDir, 'postgres')}\n`)
  const second = await startEmbeddedPostgres({ dataDir, durable: false })
  t.strictSame(await query(second.connectionString, 'select 1 as one'), [{ one: 1 }])
  await second.stop()
})

t.test('of a server that somebody has started by hand no directory is removed but those of ours', async t => {
  const dataDir = createDir(t)
  const first = await startEmbeddedPostgres({ dataDir, durable: false })
  await first.stop()
  const data = join(dataDir, 'postgres')
  const sockets = createDir(t)
  chmodSync(sockets, 0o777)
  writeFileSync(join(sockets, 'precious'), '')
  const { uid, gid } = statSync(data)
  const started = spawnSync(join(locateBinaries(`${process.platform}-${process.arch}`), 'bin', 'pg_ctl'),
    ['start', '-D', data, '-w', '-l', join(data, 'by-hand.log'), '-o', `-k ${sockets} -p 5432 -c listen_addresses=`], { uid, gid, cwd: data, stdio: 'ignore' })
  t.equal(started.status, 0)
  const second = await startEmbeddedPostgres({ dataDir, durable: false })
  t.match(second.connectionString, encodeURIComponent(sockets), 'it is taken over')
  await second.stop()
  t.strictSame(readdirSync(sockets), ['precious'])
})

t.test('a path too long for a socket gets one elsewhere, and a path by another name is the same place', async t => {
  const dir = createDir(t)
  const temporary = createDir(t)
  const before = { ...process.env }
  process.env.TMPDIR = temporary
  t.teardown(() => {
    if (before.TMPDIR === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = before.TMPDIR
  })
  const dataDir = join(dir, 'x'.repeat(100))
  const first = spawn(process.execPath, ['-e', `
    import('./dist/embedded-postgres.js').then(async ({ startEmbeddedPostgres }) => {
      console.log((await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, durable: false })).connectionString)
    })`], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => { first.kill('SIGKILL') })
  const [connectionString] = await once(createInterface({ input: first.stdout }), 'line') as [string]
  t.match(decodeURIComponent(connectionString), `${temporary}/sipher-sessions-`)

  symlinkSync(dataDir, join(dir, 'link'))
  await t.rejects(startEmbeddedPostgres({ dataDir: join(dir, 'link'), durable: false }), { name: 'EmbeddedPostgresError', message: /^Another process of sipher-sessions uses/ })
  first.kill('SIGKILL')
  const heir = await startEmbeddedPostgres({ dataDir, durable: false })
  t.equal(heir.connectionString, connectionString)
  t.equal(readdirSync(temporary).length, 1, 'nothing is left of the attempts to start another')

  await heir.stop()
  t.strictSame(readdirSync(temporary), [])
})

t.test('the libraries are linked where npm ran no install scripts', async t => {
  const dir = createDir(t)
  const binaries = join(dir, 'renamed')
  const native = locateBinaries(`${process.platform}-${process.arch}`)
  cpSync(native, binaries, { recursive: true, verbatimSymlinks: true })
  rmSync(join(binaries, 'lib', 'libicuuc.so.60'))
  writeFileSync(join(binaries, 'pg-symlinks.json'), JSON.stringify([{ source: 'native/lib/libicuuc.so.60.2', target: 'native/lib/libicuuc.so.60' }]))
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ name: 'x', version: '1' }))
  const postgres = await startEmbeddedPostgres({ dataDir: join(dir, 'data'), durable: false, binaries })
  t.ok(existsSync(join(binaries, 'lib', 'libicuuc.so.60')))
  await postgres.stop()
})

t.test('what initdb left when it was killed long ago is removed', async t => {
  const dataDir = createDir(t)
  mkdirSync(join(dataDir, 'initdb-old'))
  utimesSync(join(dataDir, 'initdb-old'), 0, 0)
  mkdirSync(join(dataDir, 'initdb-new'))
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  await postgres.stop()
  t.strictSame(readdirSync(dataDir).sort(), ['initdb-new', 'postgres', 'postgres.log'])
})

t.test('what goes wrong is told in a sentence', async t => {
  t.throws(() => locateBinaries('plan9-mips'), {
    name: 'EmbeddedPostgresError',
    message: /^There is no embedded PostgreSQL for plan9-mips in this installation\. Set DATABASE_URL to a PostgreSQL of yours/
  })

  const broken = createDir(t)
  mkdirSync(join(broken, 'bin'))
  for (const name of ['initdb', 'postgres']) writeFileSync(join(broken, 'bin', name), '#!/bin/sh\necho no space left >&2\nexit 1\n', { mode: 0o755 })
  await t.rejects(startEmbeddedPostgres({ dataDir: join(broken, 'data'), binaries: broken }), {
    name: 'EmbeddedPostgresError',
    message: `The embedded PostgreSQL could not make its database in ${join(broken, 'data')}: no space left`
  })
  t.strictSame(readdirSync(join(broken, 'data')), [], 'nothing is left of the attempt')
  writeFileSync(join(broken, 'bin', 'initdb'), '#!/no/such/loader\n')
  await t.rejects(startEmbeddedPostgres({ dataDir: join(broken, 'data'), binaries: broken }), {
    name: 'EmbeddedPostgresError',
    message: /^The embedded PostgreSQL cannot be run on this system: .* ENOENT\. Set DATABASE_URL to a PostgreSQL of yours\.$/
  }, 'as on a system with other libraries')

  // A directory that is there, and takes nothing from anybody.
  await t.rejects(startEmbeddedPostgres({ dataDir: '/proc' }), {
    name: 'EmbeddedPostgresError',
    message: /^The directory for the embedded PostgreSQL, \/proc, cannot be used: \w+: .*\. Set DATA_DIR to another one\.$/
  })

  // As of another user: data that its server cannot be started on, and a log that cannot be written.
  const foreign = createDir(t)
  mkdirSync(join(foreign, 'postgres'))
  writeFileSync(join(broken, 'bin', 'postgres'), '#!/no/such/loader\n')
  const remedy = '\\. If another user has made it, give it to this one \\(chown\\), or set DATA_DIR to another directory\\.$'
  await t.rejects(startEmbeddedPostgres({ dataDir: foreign, binaries: broken }), { name: 'EmbeddedPostgresError', message: new RegExp(`^The embedded PostgreSQL cannot be started on ${foreign}/postgres: spawn .*${remedy}`) })
  rmSync(join(foreign, 'postgres.log'))
  mkdirSync(join(foreign, 'postgres.log'))
  await t.rejects(startEmbeddedPostgres({ dataDir: foreign, binaries: broken }), { name: 'EmbeddedPostgresError', message: new RegExp(`^The embedded PostgreSQL cannot be started on ${foreign}/postgres\\.log: EISDIR.*${remedy}`) })

  // Data that is no data, with the file of a server that runs on other data: that one is not taken over.
  const dataDir = createDir(t)
  const otherDir = createDir(t)
  const other = await startEmbeddedPostgres({ dataDir: otherDir, durable: false })
  mkdirSync(join(dataDir, 'postgres'))
  copyFileSync(join(otherDir, 'postgres', 'postmaster.pid'), join(dataDir, 'postgres', 'postmaster.pid'))
  await t.rejects(startEmbeddedPostgres({ dataDir }), {
    name: 'EmbeddedPostgresError',
    message: /^The embedded PostgreSQL did not start in [^ ]+\. The end of [^ ]+:\n/
  })
  t.strictSame(await query(other.connectionString, 'select 1 as one'), [{ one: 1 }])
  await other.stop()
})
