import fp from 'fastify-plugin'
import { type Queryable } from './database.js'
import { milliseconds } from './repositories.js'

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
    insert into sipher_sessions.audit (actor, action, key_id, subject, properties)
    select ${actor}, '${action}', id, id, ${properties} from ${changed}`
}

/**
 * The part of a statement that records changes that owners made to their sessions: one entry for each row of `changed`,
 * a part before it with the columns `id` and `owner_id`. The first 12 of an id's 32 bytes identify it; nobody can use it
 * by them.
 *
 * @param properties SQL of a text[], which may refer to the row
 */
export function auditSessions (action: AuditAction, changed: string, properties: string): string {
  return `
    insert into sipher_sessions.audit (actor, action, key_id, subject, properties)
    select owner_id, '${action}', owner_id, 'sess_' || encode(substring(id for 12), 'hex'), ${properties} from ${changed}`
}

/** The log of changes in Postgres. Whoever makes a change writes its entry, in the same statement. */
function createAuditRepository (database: Queryable, retentionDays: number) {
  return {
    /** A page of entries, the newest first; `before` is the id of the last of the page before. */
    async list ({ limit, before, keyId, action }: { limit: number, before?: string | undefined, keyId?: string | undefined, action?: AuditAction | undefined }): Promise<AuditEntry[]> {
      const { rows } = await database.query<AuditEntry>(`
        select id::text, ${milliseconds('at')} as at, actor, action, key_id as "keyId", subject, properties
        from sipher_sessions.audit
        where ($2::bigint is null or id < $2::bigint)
          and ($3::text is null or key_id = $3::text)
          and ($4::text is null or action = $4::text)
          ${action?.startsWith('key.') ? 'and action like \'key.%\'' : ''}
        order by id desc
        limit $1::int`, [limit, before, keyId, action])
      return rows
    },

    /**
     * Removes entries that are older than they are kept, and returns how many: of the `limit` that were written first.
     * By their order, for there is no index on the time.
     */
    async deleteExpired (limit: number): Promise<number> {
      const { rowCount } = await database.query(`
        delete from sipher_sessions.audit
        where at < now() - make_interval(days => $1::int) and id = any (array(
          select id from sipher_sessions.audit order by id limit $2::int for update skip locked
        ))`, [retentionDays, limit])
      return rowCount!
    }
  }
}

export interface AuditOptions {
  /**
   * How long entries of the audit log are kept, in days.
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
  fastify.decorate('auditRepository', createAuditRepository(fastify.sessionDatabase, auditRetentionDays))
}, { name: 'audit-repository', fastify: '5.x', dependencies: ['database'] })
