// Runs the tests against a real PostgreSQL: the one of TEST_DATABASE_URL, or one that is started for the run in a
// directory that is removed afterwards. Arguments go to tap: npm test -- test/routes/sessions/create.test.ts
import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbeddedPostgres } from '../dist/embedded-postgres.js'
import { migrate } from '../dist/migrate.js'
import { beforeExit } from './before-exit.js'

const template = 'sipher_sessions_template'
const results = join('.tap', 'results.tap')

let cleanUp
let connectionString = process.env.TEST_DATABASE_URL
if (!connectionString) {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-test-'))
  // For root, whose PostgreSQL runs as another user.
  chmodSync(dataDir, 0o755)
  const embedded = startEmbeddedPostgres({ dataDir, durable: false, log: console.error })
  cleanUp = beforeExit(async () => {
    await (await embedded).stop()
    rmSync(dataDir, { recursive: true, force: true })
  })
  connectionString = (await embedded).connectionString
}

let passed = 0
let failed = 0
let exitCode = 1
try {
  await prepareTemplate()
  exitCode = await runTap()
  // Every file ends with such a line, and the last one counts them all: # { total: 25, pass: 24, fail: 1 }
  const [total = ''] = readFileSync(results, 'utf8').match(/^# \{ total: .*$/gm)?.slice(-1) ?? []
  passed = Number(/pass: (\d+)/.exec(total)?.[1] ?? 0)
  failed = Number(/fail: (\d+)/.exec(total)?.[1] ?? 0)
} catch (error) {
  console.error(error)
} finally {
  await cleanUp?.()
}
// Missed coverage fails the run although every test passed.
if (exitCode !== 0 && failed === 0) failed = 1
// The reporter leaves its last line open.
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = exitCode

/** Every test file clones its database from this one, which is migrated once. */
async function prepareTemplate () {
  const admin = new pg.Client({ connectionString })
  await admin.connect()
  await admin.query(`drop database if exists ${template}`)
  await admin.query(`create database ${template}`)
  await admin.end()
  const url = new URL(connectionString.replace('@/', '@localhost/'))
  url.pathname = `/${template}`
  const pool = new pg.Pool({ connectionString: url.href })
  await migrate(pool)
  await pool.end()
}

function runTap () {
  mkdirSync('.tap', { recursive: true })
  // What an earlier run has counted is none of this one's.
  rmSync(results, { force: true })
  const options = process.argv.slice(2)
  // A part of the tests covers a part of the code.
  if (options.some(option => !option.startsWith('-'))) options.push('--disable-coverage')
  const tap = spawn(process.execPath, ['node_modules/.bin/tap', 'run', '--reporter=min', `--output-file=${results}`, ...options], {
    stdio: 'inherit',
    env: { ...process.env, TEST_DATABASE_URL: connectionString, TEST_TEMPLATE_DATABASE: template }
  })
  const ended = new Promise((resolve, reject) => {
    tap.once('error', reject)
    tap.once('exit', code => resolve(code ?? 1))
  })
  beforeExit(() => {
    tap.kill('SIGTERM')
    return ended
  })
  return ended
}
