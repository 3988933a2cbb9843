import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'

t.test('a benchmark that a signal ends leaves no PostgreSQL and no files', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'sipher-signal-'))
  chmodSync(directory, 0o755)
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  let output = ''
  // By way of env, so that tap does not count what of the benchmark's code is run.
  const bench = spawn('env', ['-i', `PATH=${process.env.PATH}`, `TMPDIR=${directory}`, process.execPath, 'bench/index.js', 'size', '--short'], { stdio: ['ignore', 'ignore', 'pipe'] })
  bench.stderr.setEncoding('utf8').on('data', chunk => { output += chunk })
  const ended = once(bench, 'exit')

  let pid: number | undefined
  while (pid === undefined && bench.exitCode === null) {
    await sleep(20)
    pid = postmaster(directory)
  }
  t.ok(pid)
  bench.kill('SIGTERM')
  bench.kill('SIGTERM')
  t.strictSame(await ended, [null, 'SIGTERM'])
  t.throws(() => process.kill(pid!, 0), { code: 'ESRCH' })
  t.strictSame(readdirSync(directory), [])
  t.equal(output, '')
})

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
