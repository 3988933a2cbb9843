import fp from 'fastify-plugin'
import { createBatch } from '../batch.js'
import { isFrom, milliseconds, onlyOneSweeps, scalarArray, type Swept } from '../repositories/sql.js'
import { waitingSince, type Queryable } from './database.js'

/** The window that requests are counted in: an hour, in milliseconds. */
export const requestWindowMs = 3_600_000

/** How many requests a principal has made in its window, and what is left of that. */
export interface RequestCount {
  requests: number
  /** Milliseconds until the window ends, by the database's clock. */
  remainingMs: number
}

interface CountRow extends RequestCount {
  id: string
}

// A statement that waited for the row began before one that has started the window anew.
const remaining = (windowMs: string, start: string) => `least(${windowMs}::float8, ${windowMs}::float8 - date_part('epoch', now() - ${start}) * 1000)`

/** Whether a window is not over; one that begins much later is of a clock that has been moved back since. */
const isOpen = (windowMs: string, start: string) => `${start} > now() - ${windowMs}::float8 * interval '1 ms' and ${start} < now() + interval '1 minute'`

/**
 * The part of a statement that counts requests: adds what `given` selects, of each principal one row with its id and a
 * number, and returns `principal_id`, `requests` and `remaining_ms`. `given` must be in the order of the ids, so that two
 * instances that count the same principals never wait for each other in a circle.
 *
 * @param windowMs and given: SQL
 */
export function countRequests (windowMs: string, given: string): string {
  return `
    insert into sipher_sessions.request_counts as counts (principal_id, window_start, requests)
    select id, now(), number from (${given}) as given (id, number)
    on conflict (principal_id) do update set
      window_start = case when ${isOpen(windowMs, 'counts.window_start')} then counts.window_start else now() end,
      requests = excluded.requests + case when ${isOpen(windowMs, 'counts.window_start')} then counts.requests else 0 end
    returning principal_id, requests, ${remaining(windowMs, 'window_start')} as remaining_ms`
}

/** Numbers of equal items, in the order in which each comes first. */
export function tally<Item> (items: readonly Item[]): Map<Item, number> {
  const numbers = new Map<Item, number>()
  for (const item of items) numbers.set(item, (numbers.get(item) ?? 0) + 1)
  return numbers
}

/**
 * The number of each request of a batch. What was counted together comes back with the number of its last, so they are given
 * out from the last to the first.
 *
 * @param names by which `counted` has the count of each request; those that it has not get none
 */
export function handOut<Count extends RequestCount> (names: readonly string[], counted: ReadonlyMap<string, Count>): (Count | undefined)[] {
  const numbered: (Count | undefined)[] = []
  for (let i = names.length - 1; i >= 0; i--) {
    const count = counted.get(names[i]!)
    numbered[i] = count && { ...count, requests: count.requests-- }
  }
  return numbered
}

/**
 * Counts of requests in Postgres, exact on any number of instances: every count is an increment of the one row, and
 * the number that comes back is the request's own. The window is fixed; it begins with a principal's first request.
 *
 * @param windowMs the window's length, in milliseconds
 */
function createRequestCountRepository (database: Queryable, windowMs: number) {
  const { maxWaitMs } = database
  const incrementText = `
    with counted as (${countRequests('$1', 'select * from unnest($2::text[], $3::int[]) as given (id, number) order by id')})
    select principal_id as id, requests, remaining_ms as "remainingMs" from counted`

  // The increments of a batch are one statement, however many are one principal's.
  const increment = createBatch<string, RequestCount>(async (principalIds, since) => {
    const numbers = tally(principalIds)
    const { rows } = await waitingSince(database, since).query<CountRow>(incrementText,
      [windowMs, [...numbers.keys()], scalarArray([...numbers.values()])], 'count')
    return handOut(principalIds, new Map(rows.map(row => [row.id, row]))) as RequestCount[]
  }, { maxWaitMs })

  const read = createBatch<string, RequestCount>(async (principalIds, since) => {
    const { rows } = await waitingSince(database, since).query<CountRow>(`
      select principal_id as id, requests, ${remaining('$1', 'window_start')} as "remainingMs"
      from sipher_sessions.request_counts
      where principal_id = any ($2::text[]) and ${isOpen('$1', 'window_start')}`, [windowMs, [...new Set(principalIds)]])
    const counts = new Map(rows.map(({ id, ...count }) => [id, count]))
    return principalIds.map(id => counts.get(id) ?? { requests: 0, remainingMs: windowMs })
  }, { maxWaitMs })

  return {
    /** Counts a request, and answers which one of the principal's window it is, from 1. */
    increment,

    /** The principal's count, without counting. */
    read,

    /**
     * Removes at most `limit` counts whose window is over, the oldest first: none while another instance removes what has expired.
     *
     * @param from what the call before has answered as `last`, if it is of the same sweep
     */
    async deleteExpired (limit: number, from?: unknown): Promise<Swept> {
      const { rows } = await database.query<Swept>(`
        with deleted as (
          delete from sipher_sessions.request_counts
          where principal_id = any (array(
            select principal_id from sipher_sessions.request_counts
            where ${onlyOneSweeps} and window_start < now() - make_interval(secs => $1::float8 / 1000) and ${isFrom('window_start', '$3')}
            order by window_start
            limit $2::int
            for update skip locked
          ))
          returning window_start
        )
        select count(*)::int as count, ${milliseconds('max(window_start)')} as last from deleted`, [windowMs, limit, from])
      return rows[0]!
    }
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    requestCountRepository: ReturnType<typeof createRequestCountRepository>
  }
}

export default fp(async (fastify) => {
  fastify.decorate('requestCountRepository', createRequestCountRepository(fastify.sessionDatabase, requestWindowMs))
}, { name: 'request-count-repository', fastify: '5.x', dependencies: ['database'] })
