// The built service as a process, for the tests of how it starts and ends.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { encryptionKeys } from './helpers.js'

export function createDataDir (t: Test): string {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-server-'))
  chmodSync(dataDir, 0o755)
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }))
  return dataDir
}

/** The built process as `npm start` runs it, in an environment with nothing else, on any free port. */
export function run (t: Test, environment: Record<string, string>) {
  const { PATH = '', HOME = '' } = process.env
  const coverage = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('_TAPJS_') || name === 'NODE_OPTIONS'))
  const child = spawn(process.execPath, ['dist/server.js'], { env: { ...coverage, PATH, HOME, PORT: '0', ...(environment.DATABASE_URL && { SESSION_ENCRYPTION_KEYS: encryptionKeys.join() }), ...environment } })
  let output = ''
  const waiting: (() => void)[] = []
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk
      waiting.forEach(check => check())
    })
  }
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  t.teardown(() => { child.kill('SIGKILL') })
  return {
    child,
    exit,
    output: () => output,
    /** Resolves with the first match of what the process has printed; rejects when it ends without. */
    async printed (pattern: RegExp): Promise<RegExpExecArray> {
      return new Promise((resolve, reject) => {
        const check = () => {
          const match = pattern.exec(output)
          if (match) resolve(match)
        }
        waiting.push(check)
        check()
        void exit.then(([code]) => reject(new Error(`exited with ${code} and printed:\n${output}`)))
      })
    }
  }
}

export const listening = /Server listening at (http:\/\/[^"]+)/

export function postgresPid (dataDir: string): number {
  return Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
}

/** A zombie has ended: it only waits for its parent to ask how, which not every init does. */
export function isAlive (pid: number): boolean {
  const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' })
  return stdout.trim() !== '' && !stdout.startsWith('Z')
}

export async function stop (child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM') {
  const exit = once(child, 'exit')
  child.kill(signal)
  const [code] = await exit
  return code as number | null
}
