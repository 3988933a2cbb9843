import { createPool } from './commands/database.js'
import { ConfigError, loadConfig } from './config.js'
import { explainError } from './explain-error.js'
import { checkSchemaVersion } from './migrate.js'
import { rotateEncryption, type RotationResult } from './rotate-encryption.js'

/** How many sessions go by between two lines of progress. */
const progressStep = 10_000
/** How many of the sessions that cannot be read are told of. */
const maxTold = 10

// Not the embedded database, which has one key of its own.
try {
  const wrong = process.argv.slice(2).find(argument => argument !== '--json')
  if (wrong !== undefined) throw new ConfigError(`There is no argument ${wrong}; there is --json, for one line of JSON instead of sentences.`)
  const { databaseUrl, encryptionKeys } = loadConfig(process.env)
  if (databaseUrl === undefined) throw new ConfigError('Set DATABASE_URL to the database to go through.')
  if (encryptionKeys === undefined) throw new ConfigError('Set SESSION_ENCRYPTION_KEYS as for the service: the new key first, then those before it.')
  const pool = createPool(databaseUrl, { application_name: 'sipher-sessions rotate-encryption' })
  try {
    await checkSchemaVersion(pool)
    const json = process.argv.includes('--json')
    const result = await rotateEncryption(pool, encryptionKeys, json ? {} : { onProgress: printProgress() })
    report(result, json)
  } finally {
    await pool.end()
  }
} catch (error) {
  console.error(explainError(error))
  process.exitCode = 1
}

function printProgress (): (rotated: number) => void {
  let next = progressStep
  return rotated => {
    if (rotated < next) return
    console.log(`${rotated} sessions encrypted anew so far`)
    next += progressStep
  }
}

function report ({ rotated, unreadable, busy }: RotationResult, json: boolean): void {
  const done = unreadable.length + busy === 0
  if (json) {
    console.log(JSON.stringify({ rotated, unreadable: unreadable.length, busy }))
  } else {
    console.log(`${rotated} sessions encrypted anew. ` + (done
      ? 'All are under the first key now.'
      : `${unreadable.length} could not be read, ${busy} were being changed all the time; run it again when that is mended.`))
  }
  for (const message of unreadable.slice(0, maxTold)) console.error(message)
  if (unreadable.length > maxTold) console.error(`… and ${unreadable.length - maxTold} more.`)
  if (!done) process.exitCode = 1
}
