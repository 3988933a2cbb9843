import { setTimeout as sleep } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { removalsAtOnce } from './session-repository.js'

export interface ExpiredRowsOptions {
  /**
   * The mean time between two sweeps of one instance, in milliseconds, of at most a week; 0 sweeps never.
   * @default 60000
   */
  sweepIntervalMs?: number
}

/** Rows of one statement, where it says no other: a request that comes while they are removed waits for a millisecond or two. */
const rowsAtOnce = 100

/**
 * How long a sweep rests after a batch, as a multiple of what the batch took: whatever the machine and its load, Postgres
 * is busy with sweeping for a fifth of the time, and requests find it free in between. For soon a single instance sweeps: two
 * remove nothing at the same time, and the one that is turned away waits for its next sweep.
 */
const restFactor = 4
/**
 * A batch begins where the one so many before it ended, not at the beginning: the index has what is gone until Postgres vacuums.
 * Nor where the last one ended, because Postgres marks in the index what is gone when somebody comes by, once nobody can see
 * it any more; whoever begins at the beginning next would have all of it to mark at once, which of a million rows takes longer
 * than a statement may.
 */
const batchesBehind = 10
/** The longest rest, in milliseconds: a slow Postgres must not let expired rows become more and more. */
const maxRestMs = 250

/** A week, in milliseconds: timers of Node hold some more than three. */
const maxIntervalMs = 604_800_000

/**
 * Removes in the background what has expired: sessions, counts whose hour is over, and audit entries that are older than
 * they are kept; and takes deleted sessions off the counts. What has expired or was deleted is disregarded by every statement
 * whether it was swept or not; this is only about the space.
 */
export default fp<ExpiredRowsOptions>(async (fastify, { sweepIntervalMs = 60_000 }) => {
  if (!(sweepIntervalMs >= 0 && sweepIntervalMs <= maxIntervalMs)) throw new Error(`The option sweepIntervalMs is ${sweepIntervalMs}; it must be a number from 0, for never, to ${maxIntervalMs}`)
  if (sweepIntervalMs === 0) return
  const { sessionRepository, requestCountRepository, auditRepository } = fastify
  const sweeps = [
    { what: 'expired sessions', run: sessionRepository.deleteExpired },
    { what: 'counts of deleted sessions', run: sessionRepository.uncountRemoved, batchSize: removalsAtOnce },
    { what: 'expired counts', run: requestCountRepository.deleteExpired },
    // Each may have an entry for each of 500 sessions.
    { what: 'expired audit rows', run: auditRepository.deleteExpired, batchSize: 50 },
    { what: 'expired audit entries from before they shared rows', run: auditRepository.deleteExpiredOlder }
  ]
  let timer: NodeJS.Timeout
  let sweep: Promise<void> = Promise.resolve()
  const closing = new AbortController()

  function schedule () {
    // Between half and one and a half of the interval, so that instances started together do not stay in step.
    timer = setTimeout(() => { sweep = sweepAll() }, sweepIntervalMs * (0.5 + Math.random()))
    timer.unref()
  }

  async function sweepAll (): Promise<void> {
    for (const { what, run, batchSize = rowsAtOnce } of sweeps) {
      if (closing.signal.aborted) return
      let total = 0
      try {
        const ends: unknown[] = []
        let goesOn: boolean
        do {
          const began = performance.now()
          const { count, last } = await run(batchSize, ends.at(-batchesBehind))
          total += count
          ends.push(last)
          if (ends.length > batchesBehind) ends.shift()
          // Of a batch some may be missing that others hold or have moved. Few are what has expired since, for the next sweep.
          goesOn = count >= batchSize / 2
          if (goesOn) await rest(Math.min(maxRestMs, (performance.now() - began) * restFactor))
        } while (goesOn && !closing.signal.aborted)
      } catch (error) {
        fastify.log.warn({ err: error }, `sweeping ${what} failed; the next sweep tries again`)
      }
      if (total > 0) fastify.log.debug({ deleted: total }, `${what} swept`)
    }
    if (!closing.signal.aborted) schedule()
  }

  /** Ends at once when the app does. */
  async function rest (ms: number): Promise<void> {
    await sleep(ms, undefined, { ref: false, signal: closing.signal }).catch(() => {})
  }

  fastify.addHook('onReady', async () => schedule())
  fastify.addHook('preClose', async () => {
    closing.abort()
    clearTimeout(timer)
    await sweep
  })
}, { name: 'expired-rows', fastify: '5.x', dependencies: ['session-repository', 'request-count-repository', 'audit-repository'] })
