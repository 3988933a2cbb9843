// What the examples share: a database for nothing, processes of their own, and an end that leaves nothing behind.
import './build.js'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * Runs an example until SIGINT or SIGTERM, and then ends what it began, the last first.
 *
 * @param {(example: { connectionString: string, directory: string, onEnd: (step: () => unknown) => void }) => Promise<void>} start
 *   gets the database of DATABASE_URL, or an embedded one that lives as long as the example, and a directory of its own
 */
export async function runExample (start) {
  const steps = []
  let ending = false
  const end = async (code) => {
    if (ending) return
    ending = true
    // What is being started is ended once it is there.
    await starting.catch(() => {})
    for (const step of steps.reverse()) {
      try {
        await step()
      } catch (error) {
        console.error(error)
        code = 1
      }
    }
    process.exit(code)
  }
  // Ctrl-C arrives twice under npm; the second must not cut the end short.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => end(0))

  const starting = (async () => {
    const directory = mkdtempSync(join(tmpdir(), 'sipher-example-'))
    steps.push(() => rmSync(directory, { recursive: true, force: true }))
    // Root's PostgreSQL and nginx run as other users.
    chmodSync(directory, 0o755)
    let connectionString = process.env.DATABASE_URL
    if (!connectionString) {
      const { startEmbeddedPostgres } = await import('../../dist/embedded-postgres.js')
      // What it holds is thrown away at the end: it need not survive a power cut.
      const database = await startEmbeddedPostgres({ dataDir: directory, durable: false, log: console.error })
      steps.push(() => database.stop())
      connectionString = database.connectionString
    }
    if (!ending) await start({ connectionString, directory, onEnd: step => { steps.push(step) } })
  })()
  starting.catch(error => {
    console.error(error.message)
    return end(1)
  })
}

/**
 * Starts a process that ends with the example, and resolves with its pid when an HTTP server answers at the address.
 *
 * @throws Error when it ends before
 */
export async function startServer ({ command, args, env = process.env, url, hint, onEnd }) {
  // A process group of its own keeps Ctrl-C, which the terminal sends to all, for us: the order is ours.
  const child = spawn(command, args, { env, stdio: ['ignore', 'inherit', 'inherit'], detached: true })
  let reason
  const ended = new Promise(resolve => {
    child.once('error', error => resolve(error.message))
    child.once('exit', (code, signal) => resolve(`it ended by ${signal ?? `exit code ${code}`}`))
  }).then(text => { reason = text })
  onEnd(() => {
    child.kill('SIGTERM')
    return ended
  })
  while (!await fetch(url).then(() => true, () => false)) {
    if (reason !== undefined) throw new Error(`${command} does not run: ${reason}. ${hint}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  return child.pid
}

/**
 * An address for servers that cannot say which port they were given.
 *
 * @param {string} [variable] of the environment that may have the port
 * @param {number} [standard] the port where it has none; 0 for any free one
 * @throws Error when somebody listens there already, whom a request would be taken to
 */
export async function freeAddress (variable = '', standard = 0) {
  const server = createServer().listen(Number(process.env[variable] || standard), '127.0.0.1')
  await once(server, 'listening').catch(error => { throw new Error(`${error.message}. Set ${variable} to a port that is free.`) })
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return `127.0.0.1:${port}`
}
