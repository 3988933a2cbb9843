import DataLoader from 'dataloader'
import fp from 'fastify-plugin'
import { ApiError } from '../errors.js'
import { timePrefixedId } from '../ids.js'
import { type SessionDefaultValues } from '../schemas/session.js'
import { type Queryable } from './database.js'
import { rejectUnstorable, oneStatementPerTick } from './repositories.js'

export interface Session {
  /** `sess_` and 64 hex digits. */
  sessionId: string
  defaults: SessionDefaultValues
  /** Milliseconds since the epoch by the database's clock, as are the other times. */
  createdAt: number
  expiresAt: number
  lastAccessedAt: number
}

interface SessionRow extends Omit<Session, 'sessionId' | 'defaults'> {
  id: Buffer
  ownerId: string
  /** JSON text: requests that share a row each parse an object of their own. */
  defaults: string
  /** Whether the last access was noted so long ago that this one is worth a write. */
  accessIsStale: boolean
}

const milliseconds = (column: string) => `floor(extract(epoch from ${column}) * 1000)::float8`

const columns = `
  id, owner_id as "ownerId", defaults::text,
  ${milliseconds('created_at')} as "createdAt",
  ${milliseconds('expires_at')} as "expiresAt",
  ${milliseconds('last_accessed_at')} as "lastAccessedAt"`

const stale = 'last_accessed_at < now() - interval \'1 minute\''

/**
 * Sessions in Postgres. Every call goes to the database, whose clock alone decides what has expired; there is no
 * upsert, so that a deleted session cannot come back.
 */
function createSessionRepository (database: Queryable) {
  const byId = new DataLoader<string, SessionRow | null>(async (sessionIds) => {
    const { rows } = await database.query<SessionRow>(`
      select ${columns}, ${stale} as "accessIsStale"
      from sipher_sessions.sessions
      where id = any ($1::bytea[]) and expires_at > now()`, [sessionIds.map(toBytes)])
    const found = new Map(rows.map(row => [fromBytes(row.id), row]))
    return sessionIds.map(sessionId => found.get(sessionId) ?? null)
  }, oneStatementPerTick)

  // Rows that another statement holds are skipped: it deletes or patches them, or notes the same access. So no two of
  // these can wait for each other in a circle, whatever ids they share.
  const access = new DataLoader<string, number | null>(async (sessionIds) => {
    const { rows } = await database.query<{ id: Buffer, lastAccessedAt: number }>(`
      update sipher_sessions.sessions set last_accessed_at = now()
      where id = any (array(
          select id from sipher_sessions.sessions
          where id = any ($1::bytea[]) and ${stale} and expires_at > now()
          for update skip locked
        ))
      returning id, ${milliseconds('last_accessed_at')} as "lastAccessedAt"`, [sessionIds.map(toBytes)])
    const noted = new Map(rows.map(row => [fromBytes(row.id), row.lastAccessedAt]))
    return sessionIds.map(sessionId => noted.get(sessionId) ?? null)
  }, oneStatementPerTick)

  return {
    async create (ownerId: string, defaults: SessionDefaultValues, ttlSeconds: number): Promise<Session> {
      const { rows } = await rejectUnstorable('defaults', database.query<SessionRow>(`
        insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
        values ($1::bytea, $2::text, $3::jsonb, now() + make_interval(secs => $4::int))
        returning ${columns}`, [timePrefixedId(32), ownerId, JSON.stringify(defaults), ttlSeconds]))
      return toSession(rows[0]!)
    },

    /**
     * The owner's session, as it is in the database now. Notes the access, at most once a minute for each session.
     *
     * @throws SESSION_NOT_FOUND, the same for a session that never existed, has expired, was deleted or is another's
     */
    async use (sessionId: string, ownerId: string): Promise<Session> {
      const row = await byId.load(sessionId)
      if (row?.ownerId !== ownerId) notFound()
      const session = toSession(row)
      if (row.accessIsStale) session.lastAccessedAt = await access.load(sessionId) ?? session.lastAccessedAt
      return session
    },

    /**
     * Sets the defaults that are given and leaves the others, in one statement: of concurrent patches none is lost.
     *
     * @throws SESSION_NOT_FOUND
     */
    async update (sessionId: string, ownerId: string, defaults: SessionDefaultValues): Promise<Session> {
      const { rows } = await rejectUnstorable('defaults', database.query<SessionRow>(`
        update sipher_sessions.sessions
        set defaults = defaults || $3::jsonb, last_accessed_at = now()
        where id = $1::bytea and owner_id = $2::text and expires_at > now()
        returning ${columns}`, [toBytes(sessionId), ownerId, JSON.stringify(defaults)]))
      return rows[0] ? toSession(rows[0]) : notFound()
    },

    /**
     * Deletes the owner's session. From when this resolves no instance uses it.
     *
     * @throws SESSION_NOT_FOUND
     */
    async delete (sessionId: string, ownerId: string): Promise<void> {
      const { rowCount } = await database.query(`
        delete from sipher_sessions.sessions
        where id = $1::bytea and owner_id = $2::text and expires_at > now()`, [toBytes(sessionId), ownerId])
      if (rowCount === 0) notFound()
    },

    /**
     * Removes at most `limit` sessions that have expired and returns how many. Instances that sweep at the same time
     * each take other rows.
     */
    async deleteExpired (limit: number): Promise<number> {
      const { rowCount } = await database.query(`
        delete from sipher_sessions.sessions
        where id = any (array(
          select id from sipher_sessions.sessions
          where expires_at <= now()
          order by expires_at
          limit $1::int
          for update skip locked
        ))`, [limit])
      return rowCount!
    }
  }
}

function toBytes (sessionId: string): Buffer {
  return Buffer.from(sessionId.slice('sess_'.length), 'hex')
}

function fromBytes (id: Buffer): string {
  return `sess_${id.toString('hex')}`
}

function toSession ({ id, defaults, createdAt, expiresAt, lastAccessedAt }: SessionRow): Session {
  return { sessionId: fromBytes(id), defaults: JSON.parse(defaults) as SessionDefaultValues, createdAt, expiresAt, lastAccessedAt }
}

function notFound (): never {
  throw new ApiError('SESSION_NOT_FOUND')
}

declare module 'fastify' {
  interface FastifyInstance {
    sessionRepository: ReturnType<typeof createSessionRepository>
  }
}

export default fp(async (fastify) => {
  fastify.decorate('sessionRepository', createSessionRepository(fastify.sessionDatabase))
}, { name: 'session-repository', fastify: '5.x', dependencies: ['database'] })
