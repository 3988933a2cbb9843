import { type TObject } from '@sinclair/typebox'
import DataLoader from 'dataloader'
import fp from 'fastify-plugin'
import { createKeyRing, KeyRingError, type KeyRing } from '../encryption.js'
import { ApiError } from '../errors.js'
import { timePrefixedId } from '../ids.js'
import { secretNames } from '../schemas/secret.js'
import { type SessionDefaultValues } from '../schemas/session.js'
import { type Queryable } from './database.js'
import { rejectUnstorable, oneStatementPerTick } from './repositories.js'
import { createSessionSecrets, type SealedSecrets, type SecretsOwner, type SessionSecrets } from './session-secrets.js'

export interface SessionRepositoryOptions {
  /** What sessions hold. */
  defaults: TObject
  /**
   * The keys that secret values are encrypted with, each 32 bytes in base64 (`openssl rand -base64 32`): the first
   * encrypts, all decrypt. Needed where `defaults` has a secret property, as the preset has; the same on every instance.
   * @default none
   */
  encryptionKeys?: readonly string[] | undefined
}

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
  /** JSON text of the ciphertexts by name; null where there are none. */
  secrets: string | null
  /** Whether the last access was noted so long ago that this one is worth a write. */
  accessIsStale: boolean
}

const milliseconds = (column: string) => `floor(extract(epoch from ${column}) * 1000)::float8`

const columns = `
  id, owner_id as "ownerId", defaults::text, nullif(secrets, '{}')::text as secrets,
  ${milliseconds('created_at')} as "createdAt",
  ${milliseconds('expires_at')} as "expiresAt",
  ${milliseconds('last_accessed_at')} as "lastAccessedAt"`

const stale = 'last_accessed_at < now() - interval \'1 minute\''

/**
 * Sessions in Postgres. Every call goes to the database, whose clock alone decides what has expired; there is no
 * upsert, so that a deleted session cannot come back.
 */
function createSessionRepository (database: Queryable, secrets: SessionSecrets) {
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
      const id = timePrefixedId(32)
      const values = secrets.seal({ id, ownerId }, defaults)
      const { rows } = await rejectUnstorable('defaults', database.query<SessionRow>(`
        insert into sipher_sessions.sessions (id, owner_id, defaults, secrets, expires_at)
        values ($1::bytea, $2::text, $3::jsonb, $4::jsonb, now() + make_interval(secs => $5::int))
        returning ${columns}`, [id, ownerId, JSON.stringify(values.plain), JSON.stringify(values.secrets), ttlSeconds]))
      return toSession(rows[0]!)
    },

    /**
     * The owner's session, as it is in the database now. Notes the access, at most once a minute for each session.
     *
     * @throws SESSION_NOT_FOUND, the same for a session that never existed, has expired, was deleted or is another's
     * @throws SERVICE_UNAVAILABLE when a secret value cannot be decrypted
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
     * Each is left in one column only, should it have been secret once or not have been.
     *
     * @throws SESSION_NOT_FOUND
     * @throws SERVICE_UNAVAILABLE, and changes nothing, when a secret value that stays cannot be decrypted
     */
    async update (sessionId: string, ownerId: string, defaults: SessionDefaultValues): Promise<Session> {
      const id = toBytes(sessionId)
      const values = secrets.seal({ id, ownerId }, defaults)
      await requireReadable(sessionId, ownerId, Object.keys(defaults))
      const { rows } = await rejectUnstorable('defaults', database.query<SessionRow>(`
        update sipher_sessions.sessions
        set
          defaults = (defaults - $5::text[]) || $3::jsonb,
          secrets = (secrets - $5::text[]) || $4::jsonb,
          last_accessed_at = now()
        where id = $1::bytea and owner_id = $2::text and expires_at > now()
        returning ${columns}`, [id, ownerId, JSON.stringify(values.plain), JSON.stringify(values.secrets), Object.keys(defaults)]))
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

  /**
   * Patching a session whose other secrets cannot be read would commit what can then not be answered. A statement of its
   * own, for only this process can tell; what goes bad between the two is answered 503 all the same.
   */
  async function requireReadable (sessionId: string, ownerId: string, replaced: readonly string[]): Promise<void> {
    const row = await byId.load(sessionId)
    if (row?.ownerId !== ownerId) notFound()
    openRow(row, replaced)
  }

  function toSession (row: SessionRow): Session {
    const { id, createdAt, expiresAt, lastAccessedAt } = row
    return { sessionId: fromBytes(id), defaults: openRow(row), createdAt, expiresAt, lastAccessedAt }
  }

  /** What a row holds, less what is not asked for. */
  function openRow (row: SessionRow, except: readonly string[] = []): SessionDefaultValues {
    const plain = JSON.parse(row.defaults) as SessionDefaultValues
    const sealed = row.secrets === null ? {} : JSON.parse(row.secrets) as SealedSecrets
    for (const name of except) {
      delete plain[name]
      delete sealed[name]
    }
    return secrets.open(row, plain, sealed)
  }
}

/** A session's secrets as they are stored. */
export interface StoredSecrets extends SecretsOwner {
  secrets: SealedSecrets
}

/** The secrets of all sessions, for encrypting them anew. */
export function createSecretsRepository (database: Queryable) {
  return {
    /** The next sessions, by their ids, with a secret whose ciphertext does not begin with the prefix. */
    async listOthers (prefix: string, after: Buffer, limit: number): Promise<StoredSecrets[]> {
      const { rows } = await database.query<StoredSecrets>(`
        select id, owner_id as "ownerId", secrets
        from sipher_sessions.sessions
        where id > $2::bytea and expires_at > now() and exists (
          select from jsonb_each_text(secrets) as secret where not starts_with(secret.value, $1::text)
        )
        order by id
        limit $3::int`, [prefix, after, limit])
      return rows
    },

    /**
     * Replaces the secrets of sessions whose secrets are still those that were read, and returns how many. Of the others
     * nothing is written: they were patched or deleted meanwhile. Rows that another statement holds are skipped, so that
     * no request waits for more than its own row.
     */
    async replace (changes: readonly { id: Buffer, before: SealedSecrets, after: SealedSecrets }[]): Promise<number> {
      const { rowCount } = await database.query(`
        with change as (
          select * from unnest($1::bytea[], $2::jsonb[], $3::jsonb[]) as change (id, before, after)
        ), held as (
          select session.id
          from sipher_sessions.sessions as session join change on change.id = session.id
          where session.secrets = change.before
          for update of session skip locked
        )
        update sipher_sessions.sessions as session
        set secrets = change.after
        from change join held on held.id = change.id
        where session.id = change.id and session.secrets = change.before`, [
        changes.map(({ id }) => id),
        changes.map(({ before }) => JSON.stringify(before)),
        changes.map(({ after }) => JSON.stringify(after))
      ])
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

function notFound (): never {
  throw new ApiError('SESSION_NOT_FOUND')
}

declare module 'fastify' {
  interface FastifyInstance {
    sessionRepository: ReturnType<typeof createSessionRepository>
  }
}

export default fp<SessionRepositoryOptions>(async (fastify, { defaults, encryptionKeys = [] }) => {
  const keyRing = readKeyRing(encryptionKeys)
  const secret = secretNames(defaults)
  if (secret.length > 0 && keyRing.currentKeyId === undefined) {
    throw new Error(`sipher-sessions needs encryptionKeys: sessions hold secret values (${secret.join(', ')}), which are stored encrypted. ` +
      'Give it a list of keys, each 32 random bytes in base64 (openssl rand -base64 32), or `defaults` without a secret property.')
  }
  fastify.decorate('sessionRepository', createSessionRepository(fastify.sessionDatabase, createSessionSecrets(defaults, keyRing)))
}, { name: 'session-repository', fastify: '5.x', dependencies: ['database'] })

function readKeyRing (encryptionKeys: readonly string[]): KeyRing {
  try {
    return createKeyRing(encryptionKeys)
  } catch (error) {
    throw new KeyRingError(`The option encryptionKeys is wrong: ${(error as KeyRingError).message}`)
  }
}
