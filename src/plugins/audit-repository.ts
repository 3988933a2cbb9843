import fp from 'fastify-plugin'
import { milliseconds, onlyOneSweeps, type Swept } from '../repositories/sql.js'
import type { Queryable } from './database.js'

export const auditActions = [
  'key.create', 'key.update', 'key.rotate', 'key.revoke', 'session.create', 'session.update', 'session.delete'
] as const

export type AuditAction = typeof auditActions[number]

export interface AuditEntry {
  id: string
  /** Milliseconds since the epoch, by the database's clock. */
  at: number
  /** Who made the change: the id of an API key or of a host's caller, `admin` or `command line`. */
  actor: string
  action: AuditAction
  /** The key, or the host's caller, that it is about. */
  keyId: string
  /** The key's id, or the beginning of the session's. */
  subject: string
  /** The names of the properties that were set. */
  properties: string[]
}

/**
 * The part of a statement that records changes to keys: one entry for each row of `changed`, a part before it.
 *
 * @param actor and the properties: SQL, such as parameters
 */
export function auditKeys (action: AuditAction, changed: string, actor: string, properties: string): string {
  return `
    insert into sipher_sessions.changes (actor, action, key_ids, properties)
    select ${actor}, '${action}', array[id], jsonb_build_array(${properties}) from ${changed}`
}

/**
 * The part of a statement that records changes that owners made to their sessions: one row for all of `changed`, a part before
 * it with the columns `id` and `owner_id`. The first 12 of an id's 32 bytes identify it; nobody can use it by them.
 *
 * @param properties SQL of a text[] that refers to the row; none where the change sets none
 */
export function auditSessions (action: AuditAction, changed: string, properties?: string): string {
  return `
    insert into sipher_sessions.changes (action, key_ids, subjects, properties)
    select '${action}', array_agg(owner_id), array_agg(substring(id for 12)), ${properties ? `jsonb_agg(${properties})` : 'null'} from ${changed}
    having count(*) > 0`
}

export interface AuditQuery {
  limit: number
  /** The `nextCursor` of the page before; without it the page is the first. */
  cursor?: string | undefined
  keyId?: string | undefined
  action?: AuditAction | undefined
}

export interface AuditPage {
  /** The newest first. Fewer than were asked for, or none, where they are far apart. */
  entries: AuditEntry[]
  /** Where the next page begins; none on the last. */
  nextCursor?: string
}

const columns = `id::text, ${milliseconds('at')} as at, actor, action, key_id as "keyId", subject, to_jsonb(properties) as properties`

/**
 * Entries of the rows from `$5` on that have ids below `$2`. Of those rows the first may have no entry that is asked for, which
 * is why there is one more. In the order of the rows first, so that no more of them are taken apart than it takes.
 *
 * @param condition SQL that the index of some needs to be told
 */
const changesText = (condition: string) => `
  select ${columns} from (
    select entry.id, at, coalesce(actor, key_id) as actor, action, key_id, coalesce('sess_' || encode(subject, 'hex'), key_id) as subject,
      coalesce(properties -> position, '[]') as properties
    from (
      select * from sipher_sessions.changes
      where id < $2::bigint and id >= $5::bigint
        and ($3::text is null or key_ids @> array[$3::text])
        and ($4::text is null or action = $4::text) ${condition}
      order by id desc
      limit $1::int + 1
    ) as changed
    cross join lateral (
      select changed.id + number - 1 as id, (number - 1)::int as position, key_id, subject
      from unnest(key_ids, subjects) with ordinality as element (key_id, subject, number)
    ) as entry
    where entry.id < $2::bigint and ($3::text is null or key_id = $3::text)
    order by changed.id desc, entry.id desc
    limit $1::int
  ) as entries`

/** Entries from when each had a row of its own, with ids below `$2`. */
const olderText = (condition: string) => `
  select ${columns}
  from sipher_sessions.audit
  where id < $2::bigint
    and ($3::text is null or key_id = $3::text)
    and ($4::text is null or action = $4::text) ${condition}
  order by audit.id desc
  limit $1::int`

/** Greater than every id. */
const endOfLog = 10n ** 18n
/** The ids of rows are multiples of this. */
const rowStep = 1000n
/** Rows that are looked through for a page, by its first statement and by any. */
const rowsAtFirst = 2_000n
const rowsAtMost = 32_000n
/** How long entries are looked for, in milliseconds, before a page is what was found until then. */
const lookForMs = 150

/** The log of changes in Postgres. Whoever makes a change writes its entry, in the same statement. */
function createAuditRepository (database: Queryable, retentionDays: number) {
  /**
   * Removes rows of those `limit` that were written first: there is no index on the time. Those of a clock that has been moved back
   * since are passed over, or nothing behind them would ever be removed.
   */
  async function deleteExpired (table: string, limit: number, from?: unknown): Promise<Swept> {
    const { rows } = await database.query<Swept>(`
      with deleted as (
        delete from ${table}
        where at < now() - make_interval(days => $1::int) and id = any (array(
          select id from ${table}
          where ${onlyOneSweeps} and id > coalesce($3::bigint, 0) and at < now() + interval '1 minute'
          order by id
          limit $2::int
          for update skip locked
        ))
        returning id
      )
      select count(*)::int as count, max(id)::text as last from deleted`, [retentionDays, limit, from])
    return rows[0]!
  }

  return {
    /**
     * A page of entries. No index has those of a key in their order: they are looked for in so many rows at a time that no
     * statement takes long, whether the key made half of all changes or none for months.
     */
    async list ({ limit, cursor, keyId, action }: AuditQuery): Promise<AuditPage> {
      const began = performance.now()
      const entries: AuditEntry[] = []
      let below = cursor === undefined ? endOfLog : BigInt(cursor)
      // One entry more than asked for tells whether there is a next page.
      const collect = async (text: string, ...from: bigint[]): Promise<boolean> => {
        const { rows } = await database.query<AuditEntry>(text, [limit + 1 - entries.length, below, keyId, action, ...from])
        entries.push(...rows)
        return entries.length > limit
      }
      const full = () => ({ entries: entries.slice(0, limit), nextCursor: entries[limit - 1]!.id })
      const ofKeys = action?.startsWith('key.') ? 'and action like \'key.%\'' : ''
      const isLookedFor = ofKeys === '' && (keyId !== undefined || action !== undefined)

      const { rows: [log] } = await database.query<{ oldest: string | null, newest: string | null }>(
        'select min(id)::text as oldest, max(id)::text as newest from sipher_sessions.changes')
      const oldest = log!.oldest === null ? endOfLog : BigInt(log!.oldest)
      if (below > oldest) {
        below = least(below, BigInt(log!.newest!) + rowStep)
        for (let rows = rowsAtFirst; below > oldest; rows = least(rows * 4n, rowsAtMost)) {
          const from = isLookedFor ? (below - 1n) / rowStep * rowStep - (rows - 1n) * rowStep : oldest
          if (await collect(changesText(ofKeys), from)) return full()
          below = from
          if (below > oldest && performance.now() - began > lookForMs) return { entries, nextCursor: String(below) }
        }
      }
      return await collect(olderText(ofKeys)) ? full() : { entries }
    },

    /**
     * Removes at most `limit` rows with entries that are older than they are kept, the oldest first: none while another instance
     * removes what has expired.
     *
     * @param from what the call before has answered as `last`, if it is of the same sweep
     */
    deleteExpired: (limit: number, from?: unknown) => deleteExpired('sipher_sessions.changes', limit, from),

    /** The same for entries from when each had a row of its own. */
    deleteExpiredOlder: (limit: number, from?: unknown) => deleteExpired('sipher_sessions.audit', limit, from)
  }
}

function least (a: bigint, b: bigint): bigint {
  return a < b ? a : b
}

/** As many as 100 years; PostgreSQL knows no time before 4713 BC. */
export const maxRetentionDays = 36_500

export interface AuditOptions {
  /**
   * How long entries of the audit log are kept, in days: a whole number from 1 to 36,500.
   * @default 90
   */
  auditRetentionDays?: number
}

declare module 'fastify' {
  interface FastifyInstance {
    auditRepository: ReturnType<typeof createAuditRepository>
  }
}

export default fp<AuditOptions>(async (fastify, { auditRetentionDays = 90 }) => {
  if (!Number.isInteger(auditRetentionDays) || auditRetentionDays < 1 || auditRetentionDays > maxRetentionDays) throw new Error(`The option auditRetentionDays is ${auditRetentionDays}; it must be a whole number from 1 to ${maxRetentionDays}`)
  fastify.decorate('auditRepository', createAuditRepository(fastify.sessionDatabase, auditRetentionDays))
}, { name: 'audit-repository', fastify: '5.x', dependencies: ['database'] })
