import { setTimeout as sleep } from 'node:timers/promises'

/** How long after it was asked for the work begins, in milliseconds: it is then done for all that has come meanwhile. */
const delayMs = 100

/**
 * Does work in the background that nobody waits for: some time after it was asked for, never twice at the same time, and once
 * more where it was asked for while it was under way.
 *
 * @param onFailed told of a failure, which is left to the next time
 */
export function createBackgroundWork (work: () => Promise<unknown>, onFailed: (error: unknown) => void) {
  let asked = false
  let working: Promise<void> | null = null

  async function run (): Promise<void> {
    while (asked) {
      await sleep(delayMs)
      asked = false
      try {
        await work()
      } catch (error) {
        onFailed(error)
      }
    }
    working = null
  }

  return {
    ask (): void {
      asked = true
      working ??= run()
    },

    /** Resolves when nothing is left to be done. */
    async settled (): Promise<void> {
      await working
    }
  }
}
