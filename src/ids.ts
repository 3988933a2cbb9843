import { randomFillSync } from 'node:crypto'

/** The system is asked for so many at once: for those of one id it takes almost as long. No id has had those from `used` on. */
const random = Buffer.allocUnsafeSlow(8192)
let used = random.length

/**
 * Six bytes of milliseconds since the epoch, then bytes from the system's random source.
 *
 * The time keeps inserts at the right edge of an index and sorts a listing; the rest is what cannot be guessed.
 */
export function timePrefixedId (length: number): Buffer {
  const id = Buffer.allocUnsafe(length)
  id.writeUIntBE(Date.now(), 0, 6)
  const count = length - 6
  if (used + count > random.length) {
    randomFillSync(random)
    used = 0
  }
  random.copy(id, 6, used, used + count)
  // Whoever comes to read this memory finds no id that was given out.
  random.fill(0, used, used += count)
  return id
}

const sessionPrefix = 'sess_'

/** How a session's id is written: `sess_` and 64 hex digits; of a part of one, as many as it has. */
export function sessionIdOf (bytes: Buffer): string {
  return sessionPrefix + bytes.toString('hex')
}

/** The hex digits of a session's id. */
export function hexOf (sessionId: string): string {
  return sessionId.slice(sessionPrefix.length)
}
