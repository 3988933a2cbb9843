import { randomBytes } from 'node:crypto'

/**
 * Six bytes of milliseconds since the epoch, then bytes from the system's random source.
 *
 * The time keeps inserts at the right edge of an index and sorts a listing; the rest is what cannot be guessed.
 */
export function timePrefixedId (length: number): Buffer {
  const id = randomBytes(length)
  id.writeUIntBE(Date.now(), 0, 6)
  return id
}
