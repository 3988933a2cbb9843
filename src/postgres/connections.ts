import type pg from 'pg'
import { setDeadline } from '../deadline.js'
import { isDatabaseError } from './database-error.js'

interface Waiting {
  take: (client: pg.PoolClient) => void
  fail: (error: Error) => void
  /** Why the connection that was to be made for it could not be. */
  refusal?: Error
}

/**
 * Gives out the connections of a pool, each that is free to whoever has been waiting longest. A pool that is not full lets
 * everybody wait for a connection that is made for them, which takes long on a busy machine, though others have become free
 * meanwhile; and fails them where Postgres has no room for another, though it would do to wait for one that is there.
 *
 * @param maxWaitMs how long a connection is waited for, in milliseconds
 */
export function createConnections (pool: pg.Pool, maxWaitMs: number) {
  const waiting = new Set<Waiting>()
  /** What the pool was asked for and has not answered. */
  let asked = 0
  /** That of it which waits in the pool's queue for a connection that is in use. */
  let queued = 0

  function ask (asker?: Waiting): void {
    const before = pool.waitingCount
    const answer = pool.connect()
    const isQueued = pool.waitingCount > before
    const count = (step: number) => {
      asked += step
      if (isQueued) queued += step
    }
    count(1)
    answer.then(client => {
      count(-1)
      const [first] = waiting
      // One that comes too late is there for the next.
      if (first) first.take(client)
      else client.release()
    }, (error: Error) => {
      count(-1)
      const [first] = waiting
      // What an asker has left behind when it gave up or was served is asked for whoever waits by now.
      const isOwn = asker !== undefined && waiting.has(asker)
      const loser = isOwn ? asker : waiting.size > asked ? first : undefined
      // Who has just come need not pay for what took too long for another.
      if (loser && pool.totalCount > 0 && (isDatabaseError(error) || !isOwn)) {
        loser.refusal = error
        return
      }
      loser?.fail(error)
      // Those whose connection was refused while there were others.
      if (pool.totalCount === 0) for (const { fail } of waiting) fail(error)
    })
  }

  /** Who waits for one that is being made, or was refused one, is not in the pool's queue for those that become free. */
  function wake (): void {
    if (waiting.size > asked || (waiting.size > 0 && pool.idleCount > 0)) ask()
  }

  function wakeSoon (): void {
    // The pool tells of it before it has it back.
    if (waiting.size > 0) process.nextTick(wake)
  }

  // Whoever gave it back: of a host's pool, the host as well.
  pool.on('release', wakeSoon)
  pool.on('remove', wakeSoon)

  return {
    /**
     * A connection in time, or the error.
     *
     * @param since when it began to be waited for, by `performance.now()`
     */
    acquire (since: number): Promise<pg.PoolClient> {
      return new Promise((resolve, reject) => {
        const end = () => {
          clear()
          waiting.delete(asker)
        }
        const asker: Waiting = {
          take (client) {
            end()
            resolve(client)
          },
          fail (error) {
            end()
            reject(error)
          }
        }
        const clear = setDeadline(() => {
          const { refusal } = asker
          asker.fail(new Error(`no database connection became free within ${maxWaitMs} ms${refusal ? `, and none more could be made: ${refusal.message}` : ''}`))
        }, maxWaitMs - (performance.now() - since))
        waiting.add(asker)
        // Those who gave up have left their places in the queue, which would become longer and longer.
        if (queued < waiting.size || pool.idleCount > 0) ask(asker)
      })
    },

    /** Leaves the pool as it was before. */
    close (): void {
      pool.off('release', wakeSoon)
      pool.off('remove', wakeSoon)
    }
  }
}
