import { setTimeout as sleep } from 'node:timers/promises'

/**
 * How long ids are gathered before they are written, in milliseconds: nobody waits for it, and a statement for each turn of
 * the event loop would keep Postgres busy with flushing.
 */
const gatherMs = 100
/** Ids of one statement at most. */
const maxAtOnce = 500
/** Ids that are kept until they are written at most. What comes beyond is left to its next use. */
const maxKept = 5_000

/**
 * Notes when things were used, in the background: who uses one does not wait for it. What is used is gathered for a while and
 * written at once; never more than one statement is under way, and nothing is noted again while it is.
 *
 * @param write the statement
 * @param onFailed told of a failure, which is left to the next use
 */
export function createNoting (write: (ids: readonly string[]) => Promise<unknown>, onFailed: (error: unknown) => void) {
  const used = new Set<string>()
  let noting: Promise<void> | null = null

  async function writeAll (): Promise<void> {
    while (used.size > 0) {
      if (used.size < maxAtOnce) await sleep(gatherMs)
      const ids = [...used].slice(0, maxAtOnce)
      try {
        await write(ids)
      } catch (error) {
        onFailed(error)
      }
      // Only now, so that what is used all the time is not written down again while that is under way.
      for (const id of ids) used.delete(id)
    }
    noting = null
  }

  return {
    note (id: string): void {
      if (used.size < maxKept) used.add(id)
      noting ??= writeAll()
    },

    /** Resolves when nothing is left to be noted. */
    async settled (): Promise<void> {
      await noting
    }
  }
}
