import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EmbeddedPostgresError } from './embedded-postgres-files.js'
import { createKeyRing, generateEncryptionKey, type KeyRingError } from './encryption.js'

/**
 * The key for the secrets in the embedded database, from a file beside its data that only this user can read; made where
 * there is none yet. Called by the one process that owns the data.
 *
 * @param home the directory that holds the database's
 */
export function embeddedEncryptionKey (home: string, log: (message: string) => void): string {
  const file = join(home, 'encryption.key')
  if (!existsSync(file)) {
    // Under another name first: what has this name is whole.
    const unfinished = `${file}.new`
    writeFileSync(unfinished, `${generateEncryptionKey()}\n`, { mode: 0o600, flush: true })
    renameSync(unfinished, file)
    log(`Secret values are encrypted with a key that was made in ${file}. Keep it with the data; for a database of your own, set SESSION_ENCRYPTION_KEYS.`)
  }
  const key = readFileSync(file, 'utf8').trim()
  try {
    createKeyRing([key])
  } catch (error) {
    throw new EmbeddedPostgresError(`The file ${file} is damaged: ${(error as KeyRingError).message} Restore it from a copy: without the key that was in it the secret values in the database cannot be read.`)
  }
  return key
}
