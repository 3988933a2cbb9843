import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from '@sinclair/typebox'
import { createKeyRing, KeyRingError } from './encryption.js'
import type { ApiError } from './errors.js'
import type { Queryable } from './plugins/database.js'
import { createSecretsRepository } from './repositories/secrets-repository.js'
import { createSessionSecrets } from './repositories/session-secrets.js'

export interface RotationOptions {
  /**
   * Sessions of one statement.
   * @default 500
   */
  batchSize?: number
  /**
   * How long to come back to sessions that others were just changing, once all have been gone through, in milliseconds.
   * @default 5000
   */
  patienceMs?: number
  /** Told after each batch how many sessions have been encrypted anew so far. */
  onProgress?: (rotated: number) => void
}

export interface RotationResult {
  /** Sessions that were encrypted anew. */
  rotated: number
  /** Sessions whose secrets could not be read, and were left as they are: a sentence about each. */
  unreadable: string[]
  /** Sessions that others were changing all the time, and still have another key. */
  busy: number
}

/**
 * Encrypts under the first key what is encrypted under the others, while the service runs: batch by batch, each in one
 * statement that writes only to sessions that are still as they were read. Whatever stops it, the next run goes on from
 * there, for it looks only at what is not under the first key.
 *
 * @param encryptionKeys as the service has them; the first one encrypts
 * @throws KeyRingError when there is no key, or a wrong one
 */
export async function rotateEncryption (database: Queryable, encryptionKeys: readonly string[], options: RotationOptions = {}): Promise<RotationResult> {
  const { batchSize = 500, patienceMs = 5_000, onProgress } = options
  const keyRing = createKeyRing(encryptionKeys)
  if (keyRing.currentKeyId === undefined) throw new KeyRingError('there is no key.')
  const repository = createSecretsRepository(database)
  const sessionSecrets = createSessionSecrets(Type.Object({}), keyRing)
  let rotated = 0

  let { unreadable, busy } = await pass()
  const deadline = performance.now() + patienceMs
  while (busy > 0 && performance.now() < deadline) {
    await sleep(Math.min(100, patienceMs));
    ({ unreadable, busy } = await pass())
  }
  return { rotated, unreadable, busy }

  /** Once through all sessions in the order of their ids. */
  async function pass (): Promise<Omit<RotationResult, 'rotated'>> {
    const unreadable: string[] = []
    let busy = 0
    let after: Buffer = Buffer.alloc(0)
    for (;;) {
      const rows = await repository.listOthers(keyRing.currentPrefix, after, batchSize)
      if (rows.length === 0) return { unreadable, busy }
      const changes = rows.flatMap(row => {
        try {
          return [{ id: row.id, before: row.secrets, after: sessionSecrets.reseal(row, row.secrets) }]
        } catch (error) {
          unreadable.push(((error as ApiError).cause as Error).message)
          return []
        }
      })
      const replaced = await repository.replace(changes)
      rotated += replaced
      busy += changes.length - replaced
      after = rows.at(-1)!.id
      onProgress?.(rotated)
    }
  }
}
