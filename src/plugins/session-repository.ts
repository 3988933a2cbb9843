import { type TObject } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import { createBatch } from '../batch.js'
import { createKeyRing, KeyRingError, type KeyRing } from '../encryption.js'
import { ApiError } from '../errors.js'
import { timePrefixedId } from '../ids.js'
import { secretNames } from '../schemas/secret.js'
import { type SessionDefaultValues } from '../schemas/session.js'
import { auditSessions } from './audit-repository.js'
import { waitingSince, type Queryable } from './database.js'
import { isUnstorable, milliseconds, rejectUnstorable } from './repositories.js'
import { createSessionSecrets, type SealedSecrets, type SealedValues, type SecretsOwner, type SessionSecrets } from './session-secrets.js'

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

/** What every statement that answers a session selects; the names are those of its properties. */
interface SessionRow {
  id: Buffer
  ownerId: string
  /** JSON text: requests that share a row each parse an object of their own. */
  defaults: string
  /** JSON text of the ciphertexts by name; null where there are none. */
  secrets: string | null
}

interface UsedRow extends SessionRow {
  /** Whether the last access was noted so long ago that this one is worth a write. */
  accessIsStale: boolean
}

type WholeRow = SessionRow & Omit<Session, 'sessionId' | 'defaults'>

const columns = 'id, owner_id as "ownerId", defaults::text, nullif(secrets, \'{}\')::text as secrets'

const wholeColumns = `${columns},
  ${milliseconds('created_at')} as "createdAt",
  ${milliseconds('expires_at')} as "expiresAt",
  ${milliseconds('last_accessed_at')} as "lastAccessedAt"`

const stale = 'last_accessed_at < now() - interval \'1 minute\''

const forUseText = `
  select ${columns}, ${stale} as "accessIsStale"
  from sipher_sessions.sessions
  where id = any ($1::bytea[]) and expires_at > now()`

const byIdText = `
  select ${wholeColumns}, ${stale} as "accessIsStale"
  from sipher_sessions.sessions
  where id = any ($1::bytea[]) and expires_at > now()`

/** The parts of a statement that take what `deleted` has removed off the owners' counts, which are locked in one order. */
const uncountDeleted = `
  held as (
    select owner_id from sipher_sessions.session_counts
    where owner_id in (select owner_id from deleted)
    order by owner_id
    for update
  ), uncounted as (
    update sipher_sessions.session_counts as counts
    set sessions = counts.sessions - gone.number
    from held join (select owner_id, count(*) as number from deleted group by owner_id) as gone using (owner_id)
    where counts.owner_id = held.owner_id
  )`

/** Properties are given as JSON; of both kinds of values, as they are stored, the names alone. */
const namesOf = (defaults: string, secrets: string) => `array(select jsonb_object_keys(${defaults} || ${secrets}))`

interface NewSession {
  id: Buffer
  ownerId: string
  values: SealedValues
  ttlSeconds: number
  maxSessions: number
}

interface Patch {
  sessionId: string
  ownerId: string
  values: SealedValues
  /** Whether the secrets that stay are known to be readable. */
  checked: boolean
}

/** A session that is being read. What it holds is its owner's, and nobody else is told. */
export interface BegunUse {
  sessionId: string
  row: Promise<UsedRow | undefined>
}

/**
 * Sessions in Postgres. Every call goes to the database, whose clock alone decides what has expired; there is no
 * upsert, so that a deleted session cannot come back.
 *
 * Calls of the same time share a statement. Each locks its rows in one order, sessions before counts, so that no two
 * wait for each other in a circle.
 */
function createSessionRepository (database: Queryable, secrets: SessionSecrets) {
  const forUse = createBatch<string, UsedRow | undefined>(async (sessionIds, since) => {
    const { rows } = await waitingSince(database, since).query<UsedRow>(forUseText, [sessionIds.map(toBytes)], 'use-sessions')
    return inOrder(sessionIds, rows)
  })

  const byId = createBatch<string, (WholeRow & UsedRow) | undefined>(async (sessionIds, since) => {
    const { rows } = await waitingSince(database, since).query<WholeRow & UsedRow>(byIdText, [sessionIds.map(toBytes)], 'get-sessions')
    return inOrder(sessionIds, rows)
  })

  // Rows that another statement holds are skipped: it deletes or patches them, or notes the same access.
  const noteAccess = createBatch<string, { id: Buffer, lastAccessedAt: number } | undefined>(async (sessionIds, since) => {
    const { rows } = await waitingSince(database, since).query<{ id: Buffer, lastAccessedAt: number }>(`
      update sipher_sessions.sessions set last_accessed_at = now()
      where id = any (array(
          select id from sipher_sessions.sessions
          where id = any ($1::bytea[]) and ${stale} and expires_at > now()
          for update skip locked
        ))
      returning id, ${milliseconds('last_accessed_at')} as "lastAccessedAt"`, [sessionIds.map(toBytes)])
    return inOrder(sessionIds, rows)
  })

  // Of an owner's new sessions as many are stored as there is room for; the others answer no row. The count decides,
  // under its row's lock: of statements at the same time each sees what those before it have taken.
  const insert = createBatch<NewSession, WholeRow | undefined>(async (sessions, since) => {
    const { rows } = await waitingSince(database, since).query<WholeRow>(`
      with given as (
        select *, row_number() over (partition by owner_id order by position) as number
        from unnest($1::bytea[], $2::text[], $3::jsonb[], $4::jsonb[], $5::int[], $6::int[]) with ordinality
          as given (id, owner_id, defaults, secrets, ttl_seconds, max_sessions, position)
      ), counted as (
        insert into sipher_sessions.session_counts as counts (owner_id, sessions, max_sessions, admitted)
        select owner_id, least(count(*), max(max_sessions)), max(max_sessions), least(count(*), max(max_sessions))
        from given group by owner_id order by owner_id
        on conflict (owner_id) do update set
          sessions = counts.sessions + greatest(0, least(excluded.admitted, excluded.max_sessions - counts.sessions)),
          max_sessions = excluded.max_sessions,
          admitted = greatest(0, least(excluded.admitted, excluded.max_sessions - counts.sessions))
        returning owner_id, admitted
      ), created as (
        insert into sipher_sessions.sessions (id, owner_id, defaults, secrets, expires_at)
        select id, owner_id, defaults, secrets, now() + make_interval(secs => ttl_seconds)
        from given join counted using (owner_id)
        where number <= admitted
        returning *
      ), audited as (${auditSessions('session.create', 'created', namesOf('defaults', 'secrets'))})
      select ${wholeColumns} from created`, [
      sessions.map(({ id }) => id),
      sessions.map(({ ownerId }) => ownerId),
      sessions.map(({ values }) => JSON.stringify(values.plain)),
      sessions.map(({ values }) => JSON.stringify(values.secrets)),
      sessions.map(({ ttlSeconds }) => ttlSeconds),
      sessions.map(({ maxSessions }) => maxSessions)
    ])
    const found = new Map(rows.map(row => [row.id.toString('latin1'), row]))
    return sessions.map(({ id }) => found.get(id.toString('latin1')))
  }, { isOneItemsFault: isUnstorable })

  // Patches of one session at the same time are one, the later over the earlier: each is answered what came of all.
  // A session with secrets that stay is left alone until they are known to be readable, which only this process can
  // tell: else what was committed could not be answered.
  const patch = createBatch<Patch, WholeRow | undefined>(async (patches, since) => {
    const merged = new Map<string, Patch>()
    for (const given of patches) {
      const earlier = merged.get(patchKey(given))
      merged.set(patchKey(given), earlier ? { ...given, values: mergeSealed(earlier.values, given.values), checked: earlier.checked || given.checked } : given)
    }
    const all = [...merged.values()]
    const { rows } = await waitingSince(database, since).query<WholeRow>(`
      with given as (
        select *, ${namesOf('defaults', 'secrets')} as names
        from unnest($1::bytea[], $2::text[], $3::jsonb[], $4::jsonb[], $5::boolean[]) as given (id, owner_id, defaults, secrets, checked)
      ), held as (
        select session.id
        from sipher_sessions.sessions as session join given on given.id = session.id and given.owner_id = session.owner_id
        where expires_at > now() and (given.checked or session.secrets - given.names = '{}')
        order by session.id
        for update of session
      ), patched as (
        update sipher_sessions.sessions as session
        set
          defaults = (session.defaults - given.names) || given.defaults,
          secrets = (session.secrets - given.names) || given.secrets,
          last_accessed_at = now()
        from held join given on given.id = held.id
        where session.id = held.id and session.owner_id = given.owner_id
        returning session.*, given.names
      ), audited as (${auditSessions('session.update', 'patched', 'names')})
      select ${wholeColumns} from patched`, [
      all.map(({ sessionId }) => toBytes(sessionId)),
      all.map(({ ownerId }) => ownerId),
      all.map(({ values }) => JSON.stringify(values.plain)),
      all.map(({ values }) => JSON.stringify(values.secrets)),
      all.map(({ checked }) => checked)
    ])
    const found = new Map(rows.map(row => [patchKey({ sessionId: fromBytes(row.id), ownerId: row.ownerId }), row]))
    return patches.map(given => found.get(patchKey(given)))
  }, { isOneItemsFault: isUnstorable })

  const remove = createBatch<Pick<Patch, 'sessionId' | 'ownerId'>, boolean>(async (sessions, since) => {
    const { rows } = await waitingSince(database, since).query<{ id: Buffer, ownerId: string }>(`
      with locked as (
        select session.id
        from sipher_sessions.sessions as session
          join unnest($1::bytea[], $2::text[]) as given (id, owner_id) on given.id = session.id and given.owner_id = session.owner_id
        where expires_at > now()
        order by session.id
        for update of session
      ), deleted as (
        delete from sipher_sessions.sessions
        where id in (select id from locked)
        returning id, owner_id
      ), ${uncountDeleted}, audited as (${auditSessions('session.delete', 'deleted', 'array[]::text[]')})
      select id, owner_id as "ownerId" from deleted`, [sessions.map(({ sessionId }) => toBytes(sessionId)), sessions.map(({ ownerId }) => ownerId)])
    const deleted = new Set(rows.map(row => patchKey({ sessionId: fromBytes(row.id), ownerId: row.ownerId })))
    // Of two that delete the same session one has done it.
    return sessions.map(session => deleted.delete(patchKey(session)))
  })

  return {
    /**
     * Stores a new session.
     *
     * @param maxSessions how many the owner may have at the same time
     * @throws SESSION_LIMIT_REACHED
     */
    async create (ownerId: string, defaults: SessionDefaultValues, ttlSeconds: number, maxSessions: number): Promise<Session> {
      const id = timePrefixedId(32)
      const session = { id, ownerId, values: secrets.seal({ id, ownerId }, defaults), ttlSeconds, maxSessions }
      const row = await rejectUnstorable('defaults', insert(session)) ??
        // What has expired and was not removed yet takes up room.
        (await deleteExpired(expiredAtOnce, ownerId) > 0 ? await insert(session) : undefined)
      if (!row) {
        throw new ApiError('SESSION_LIMIT_REACHED', {
          message: `This key has ${maxSessions} sessions, which is as many as it may have at the same time. Delete one, or wait until one expires.`
        })
      }
      return toSession(row)
    },

    /**
     * Begins to read a session for `use`, before it is known who asks for it. A failure is told by `use`.
     */
    beginUse (sessionId: string): BegunUse {
      const row = forUse(sessionId)
      row.catch(() => {})
      return { sessionId, row }
    },

    /**
     * What the owner's session holds in the database now, or held when its reading began. Notes the access, at most once a
     * minute for each session.
     *
     * @throws SESSION_NOT_FOUND, the same for a session that never existed, has expired, was deleted or is another's
     * @throws SERVICE_UNAVAILABLE when a secret value cannot be decrypted
     */
    async use (session: string | BegunUse, ownerId: string): Promise<{ defaults: SessionDefaultValues }> {
      const { sessionId, row: reading } = typeof session === 'string' ? { sessionId: session, row: forUse(session) } : session
      const row = await reading
      if (row?.ownerId !== ownerId) notFound()
      const defaults = openRow(row)
      if (row.accessIsStale) await noteAccess(sessionId)
      return { defaults }
    },

    /**
     * The owner's session, as it is in the database now. To read it is to use it.
     *
     * @throws as `use` does
     */
    async get (sessionId: string, ownerId: string): Promise<Session> {
      const row = await byId(sessionId)
      if (row?.ownerId !== ownerId) notFound()
      const session = toSession(row)
      if (row.accessIsStale) session.lastAccessedAt = (await noteAccess(sessionId))?.lastAccessedAt ?? session.lastAccessedAt
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
      const values = secrets.seal({ id: toBytes(sessionId), ownerId }, defaults)
      let row = await rejectUnstorable('defaults', patch({ sessionId, ownerId, values, checked: false }))
      if (!row) {
        const unchanged = await byId(sessionId)
        if (unchanged?.ownerId !== ownerId) notFound()
        openRow(unchanged, Object.keys(defaults))
        row = await rejectUnstorable('defaults', patch({ sessionId, ownerId, values, checked: true }))
      }
      return row ? toSession(row) : notFound()
    },

    /**
     * Deletes the owner's session. From when this resolves no instance uses it.
     *
     * @throws SESSION_NOT_FOUND
     */
    async delete (sessionId: string, ownerId: string): Promise<void> {
      if (!await remove({ sessionId, ownerId })) notFound()
    },

    /** How many sessions the owner has that have not expired. */
    async countLive (ownerId: string): Promise<number> {
      const { rows } = await database.query<{ live: number }>(`
        select (
          coalesce((select sessions from sipher_sessions.session_counts where owner_id = $1::text), 0)
          - (select count(*) from sipher_sessions.sessions where owner_id = $1::text and expires_at <= now())
        )::int as live`, [ownerId])
      return rows[0]!.live
    },

    deleteExpired
  }

  /**
   * Removes at most `limit` sessions that have expired, of one owner or of all, and returns how many. Instances that sweep
   * at the same time each take other rows.
   */
  async function deleteExpired (limit: number, ownerId?: string): Promise<number> {
    const { rows } = await database.query<{ deleted: number }>(`
      with deleted as (
        delete from sipher_sessions.sessions
        where id = any (array(
          select id from sipher_sessions.sessions
          where expires_at <= now() and ($2::text is null or owner_id = $2::text)
          order by expires_at
          limit $1::int
          for update skip locked
        ))
        returning owner_id
      ), ${uncountDeleted}
      select count(*)::int as deleted from deleted`, [limit, ownerId])
    return rows[0]!.deleted
  }

  function toSession (row: WholeRow): Session {
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

/** Sessions that are removed at once where an owner has no room left. */
const expiredAtOnce = 100

/** The row of each id, in the order of the ids. */
function inOrder<Row extends { id: Buffer }> (sessionIds: readonly string[], rows: readonly Row[]): (Row | undefined)[] {
  const found = new Map(rows.map(row => [fromBytes(row.id), row]))
  return sessionIds.map(sessionId => found.get(sessionId))
}

function patchKey ({ sessionId, ownerId }: Pick<Patch, 'sessionId' | 'ownerId'>): string {
  return sessionId + ownerId
}

function mergeSealed (earlier: SealedValues, later: SealedValues): SealedValues {
  return { plain: { ...earlier.plain, ...later.plain }, secrets: { ...earlier.secrets, ...later.secrets } }
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
