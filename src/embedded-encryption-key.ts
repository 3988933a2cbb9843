import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generateEncryptionKey } from './encryption.js'

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
  return readFileSync(file, 'utf8').trim()
}
