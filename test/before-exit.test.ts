import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'

const hugePages = '/proc/sys/vm/nr_hugepages'

t.test('a benchmark that a signal ends leaves no PostgreSQL and no files', async t => {
  const { directory, child, outcome } = start(t, 'bench/index.js', 'size', '--short')
  const pid = await until(() => postmaster(directory))
  child.kill('SIGTERM')
  child.kill('SIGTERM')
  t.strictSame(await outcome, { signal: 'SIGTERM', files: [], errors: '', output: '== size\n' })
  t.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
})

t.test('and gives back the memory that it has reserved', async t => {
  const reserved = () => existsSync(hugePages) ? readFileSync(hugePages, 'utf8') : ''
  const before = reserved()
  const { child, outcome } = start(t, 'bench/index.js', 'size', '--short')
  // Where it may: not every system lets it.
  const deadline = performance.now() + 10_000
  await until(() => reserved() !== before || performance.now() > deadline || undefined)
  child.kill('SIGTERM')
  t.match(await outcome, { signal: 'SIGTERM', files: [] })
  t.equal(reserved(), before)
})

t.test('so do the faults when Ctrl-C ends all their processes, and nothing more is begun or told', async t => {
  const { directory, child, outcome } = start(t, 'test/faults/index.js', '--short', '--seed', '1')
  await until(() => readdirSync(directory).find(name => readdirSync(join(directory, name)).length > 0))
  process.kill(-child.pid!, 'SIGINT')
  t.strictSame(await outcome, { signal: 'SIGINT', files: [], errors: '', output: 'short form, seed 1\n' })
})

t.test('an error that nobody has caught leaves nothing either, and is told', async t => {
  const { outcome } = start(t, '--input-type=module', '--eval', `
    import { mkdtempSync, rmSync } from 'node:fs'
    import { setTimeout as sleep } from 'node:timers/promises'
    import { beforeExit } from './scripts/before-exit.js'
    const directory = mkdtempSync(process.env.TMPDIR + '/x')
    beforeExit(async () => {
      await sleep(20)
      rmSync(directory, { recursive: true })
    })
    setTimeout(() => { throw new Error('a bug') })
    setInterval(() => {}, 1000)`)
  const { errors, ...rest } = await outcome
  t.strictSame(rest, { signal: null, files: [], output: '' })
  t.match(errors, /^Error: a bug\n {4}at /)
})

/** A script in a group of processes of its own, with a directory for its files, and what is left when it has ended. */
function start (t: Test, script: string, ...options: string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'sipher-signal-'))
  chmodSync(directory, 0o755)
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  // By way of env, so that tap does not count what of its code is run.
  const child = spawn('env', ['-i', `PATH=${process.env.PATH}`, `TMPDIR=${directory}`, process.execPath, script, ...options], { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const ended = once(child, 'close') as Promise<[code: number | null, signal: NodeJS.Signals | null]>
  const output = text(child.stdout)
  const errors = text(child.stderr)
  const outcome = ended.then(async ([, signal]) => ({ signal, files: readdirSync(directory), errors: await errors, output: await output }))
  return { directory, child, outcome }
}

/** What is found once there is something. */
async function until<Found> (find: () => Found | undefined): Promise<Found> {
  for (;;) {
    const found = find()
    if (found !== undefined) return found
    await sleep(20)
  }
}

/** The process of the PostgreSQL that has its data in a directory of a directory, if it is up. */
function postmaster (directory: string): number | undefined {
  for (const name of readdirSync(directory)) {
    try {
      const lines = readFileSync(join(directory, name, 'postgres', 'postmaster.pid'), 'utf8').split('\n')
      if (lines.some(line => line.startsWith('ready'))) return Number(lines[0])
    } catch {
      // It is not there, yet or any more.
    }
  }
}
