import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** Runs an example by its one command, in an environment with nothing else, and resolves when it has printed its curl. */
export async function runExample (t: Test, name: string, environment: Record<string, string> = {}) {
  const { PATH = '', HOME = '' } = process.env
  const directory = mkdtempSync(join(tmpdir(), 'sipher-run-'))
  chmodSync(directory, 0o755)
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  // Without what tap puts there to measure coverage, which is that of src alone.
  const child = spawn('env', ['-u', 'NODE_OPTIONS', process.execPath, `examples/${name}/start.js`], { env: { PATH, HOME, TMPDIR: directory, ...environment } })
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  t.teardown(() => { child.kill() })
  let output = ''
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk
        if (/^curl .*\n/m.test(output)) resolve()
      })
    }
    void exit.then(([code]) => reject(new Error(`examples/${name}/start.js ended with ${code} and printed:\n${output}`)))
  })
  return {
    output: () => output,
    printed: (pattern: RegExp) => pattern.exec(output)![1]!,
    /** Executes the command that was printed, and answers what it prints. */
    curl (...more: string[]) {
      const { status, stdout, stderr } = spawnSync('bash', ['-c', `${/^curl .*$/m.exec(output)![0]} ${more.join(' ')}`], { encoding: 'utf8' })
      if (status !== 0) throw new Error(stderr)
      return stdout
    },
    /** Ends it by a signal: its exit code, and what it has left behind. */
    async end (signal: NodeJS.Signals) {
      child.kill(signal)
      const [code] = await exit
      return { code, left: leftIn(directory) }
    }
  }
}

/** Files in the directory, and processes that were told to work there. */
function leftIn (directory: string): string[] {
  const { stdout } = spawnSync('ps', ['-eo', 'stat=,args='], { encoding: 'utf8' })
  return [...readdirSync(directory), ...stdout.split('\n').filter(line => line.includes(directory) && !line.startsWith('Z'))]
}
