import { setTimeout as sleep } from 'node:timers/promises'

/**
 * How long uses are gathered before they are written, in milliseconds: nobody waits for it, and a statement for each turn of
 * the event loop would keep Postgres busy with flushing.
 */
const gatherMs = 100
/** How much one statement notes at most. */
const maxAtOnce = 500
/** How much is kept until it is written at most. What comes beyond is left to its next use. */
const maxKept = 5_000

/**
 * Notes when things were used, in the background: who uses one does not wait for it. What is used is gathered for a while and
 * written at once; never more than one statement is under way, and nothing is noted again while it is.
 *
 * @param write the statement, which is given what was used
 * @param onFailed told of a failure, which is left to the next use
 */
export function createNoting<Used> (write: (used: readonly Used[]) => Promise<unknown>, onFailed: (error: unknown) => void) {
  const kept = new Map<string, Used>()
  let noting: Promise<void> | null = null
  let gathering = new AbortController()

  async function writeAll (): Promise<void> {
    while (kept.size > 0) {
      if (kept.size < maxAtOnce) await sleep(gatherMs, undefined, { signal: gathering.signal }).catch(() => {})
      const entries = [...kept].slice(0, maxAtOnce)
      try {
        await write(entries.map(([, used]) => used))
      } catch (error) {
        onFailed(error)
      }
      // Only now, so that what is used all the time is not written down again while that is under way.
      for (const [id] of entries) kept.delete(id)
    }
    noting = null
  }

  return {
    /** Notes that what has this id is used; what is kept of it is what came last. */
    note (id: string, used: Used): void {
      if (kept.size < maxKept) kept.set(id, used)
      noting ??= writeAll()
    },

    /** Resolves when nothing is left to be noted. It is written at once, as an app that closes waits for it. */
    async settled (): Promise<void> {
      gathering.abort()
      await noting
      gathering = new AbortController()
    }
  }
}
