import pg from 'pg'
import { setDeadline } from './deadline.js'

interface Waiting {
  take: (client: pg.PoolClient) => void
  fail: (error: Error) => void
  /** Why Postgres refused the connection that was to be made for it. */
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

  function ask (asker?: Waiting): void {
    asked++
    pool.connect().then(client => {
      asked--
      const [first] = waiting
      // One that comes too late is there for the next.
      if (first) first.take(client)
      else client.release()
    }, (error: Error) => {
      asked--
      if (asker && error instanceof pg.DatabaseError && pool.totalCount > 0) {
        asker.refusal = error
        return
      }
      asker?.fail(error)
      // Those whose connection was refused while there were others.
      if (pool.totalCount === 0) for (const { fail } of waiting) fail(error)
    })
  }

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
        ask(asker)
      })
    },

    /** Gives a connection back; one that is broken is closed. */
    release (client: pg.PoolClient, broken: boolean): void {
      client.release(broken)
      // Who waits for one that is being made, or was refused one, has not asked for this one.
      if (waiting.size > asked || (waiting.size > 0 && pool.idleCount > 0)) ask()
    }
  }
}
