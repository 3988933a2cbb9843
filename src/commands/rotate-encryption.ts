import type pg from 'pg'
import { ConfigError, loadConfig } from '../config.js'
import { checkSchemaVersion } from '../migrate.js'
import type { Queryable } from '../plugins/database.js'
import { rotateEncryption, type RotationResult } from '../rotate-encryption.js'
import type { Command, Terminal } from './command.js'
import { createPool } from './database.js'

/** How many sessions go by between two lines of progress. */
const progressStep = 10_000
/** How many of the sessions that cannot be read are told of. */
const maxTold = 10

// Not the embedded database, which has one key of its own.
export const rotateEncryptionCommand: Command = {
  name: 'rotate-encryption',
  summary: 'Encrypt the secret values of all sessions under the first key of SESSION_ENCRYPTION_KEYS.',
  options: { json: { help: 'Print one line of JSON, for scripts.' } },
  async run ({ options }, terminal) {
    const { DATABASE_URL, SESSION_ENCRYPTION_KEYS } = terminal.environment
    const { databaseUrl, encryptionKeys } = loadConfig({ DATABASE_URL, SESSION_ENCRYPTION_KEYS })
    if (databaseUrl === undefined) throw new ConfigError('Set DATABASE_URL to the database to go through.')
    if (encryptionKeys === undefined) throw new ConfigError('Set SESSION_ENCRYPTION_KEYS as for the service: the new key first, then those before it.')
    const pool = createPool(databaseUrl, { application_name: 'sipher-sessions rotate-encryption' })
    try {
      await checkSchemaVersion(pool)
      const result = await rotateEncryption(inTransactions(pool), encryptionKeys, options.json ? {} : { onProgress: progressTo(terminal) })
      report(result, options.json === true, terminal)
      return isDone(result) ? 0 : 1
    } finally {
      await pool.end()
    }
  }
}

/**
 * Each statement in a transaction of its own, which sees what the service has just written and may take its time, whatever the user
 * of the database is set to; the settings are the transaction's alone, as a pooler may give the connection to others.
 */
function inTransactions (pool: pg.Pool): Queryable {
  return {
    async query<Row extends object> (text: string, values?: unknown[]) {
      const client = await pool.connect()
      // A connection that breaks under a statement emits `error` besides failing the statement.
      client.on('error', ignore)
      const giveBack = (error?: Error) => {
        client.removeListener('error', ignore)
        // Closing its connection ends a transaction as well.
        client.release(error)
      }
      try {
        await client.query('begin isolation level read committed; set local statement_timeout = 0; set local lock_timeout = 0')
        const result = await client.query<Row>(text, values)
        await client.query('commit')
        giveBack()
        return result
      } catch (error) {
        giveBack(error as Error)
        throw error
      }
    }
  }
}

function ignore (): void {}

function progressTo ({ out }: Terminal): (rotated: number) => void {
  let next = progressStep
  return rotated => {
    if (rotated < next) return
    out(`${rotated} sessions encrypted anew so far\n`)
    next += progressStep
  }
}

function report (result: RotationResult, json: boolean, { out, err }: Terminal): void {
  const { rotated, unreadable, busy } = result
  if (json) {
    out(`${JSON.stringify({ rotated, unreadable: unreadable.length, busy })}\n`)
  } else {
    out(`${rotated} sessions encrypted anew. ${isDone(result)
      ? 'All are under the first key now.'
      : `${unreadable.length} could not be read, ${busy} were being changed all the time; run it again when that is mended.`}\n`)
  }
  for (const message of unreadable.slice(0, maxTold)) err(`${message}\n`)
  if (unreadable.length > maxTold) err(`… and ${unreadable.length - maxTold} more.\n`)
}

function isDone ({ unreadable, busy }: RotationResult): boolean {
  return unreadable.length + busy === 0
}
