import { setTimeout as sleep } from 'node:timers/promises'
import { Kind, type TObject } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import { createBackgroundWork } from '../background.js'
import { createKeyRing, KeyRingError, type KeyRing } from '../encryption.js'
import { ApiError } from '../errors.js'
import { sessionIdOf, timePrefixedId } from '../ids.js'
import { createNoting } from '../noting.js'
import { createSessionBatches, type GetRow, type StoredValues, type UsedSession, type UseRow } from '../repositories/session-batches.js'
import { createSessionSecrets, NamedSession, type SealedSecrets, type SessionSecrets } from '../repositories/session-secrets.js'
import { deleteExpiredText, makeRoomText, uncountRemovedText } from '../repositories/session-statements.js'
import { rejectUnstorable, type Swept } from '../repositories/sql.js'
import type { SessionDefaultValues } from '../schemas/session.js'
import type { Queryable } from './database.js'

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

/** A session that is being read. What it holds is its owner's, and nobody else is told. */
export interface Reading<Row> {
  sessionId: string
  row: Promise<Row | undefined>
}

export type UseReading = Reading<UseRow>
export type GetReading = Reading<GetRow>

/**
 * Sessions in Postgres. Every call goes to the database, whose clock alone decides what has expired; there is no
 * upsert, so that a deleted session cannot come back.
 */
function createSessionRepository (database: Queryable, secrets: SessionSecrets, onFailed: (error: unknown, message: string) => void) {
  const { forUse, byId, insert, patch, remove, countLive, noteAccess } = createSessionBatches(database, secrets.names)

  const noting = createNoting<UsedSession>(noteAccess, error => {
    onFailed(error, 'noting when sessions were last used failed; their next use tries again')
  })

  const uncounting = createBackgroundWork(async () => {
    while ((await uncountRemoved(removalsAtOnce)).count === removalsAtOnce);
  }, error => {
    onFailed(error, 'taking deleted sessions off the counts failed; the next sweep tries again')
  })

  return {
    /**
     * Stores a new session.
     *
     * @param maxSessions how many the owner may have at the same time
     * @throws VALIDATION_ERROR, when a value cannot be stored
     * @throws SESSION_LIMIT_REACHED, when the owner had as many at some moment during the call
     * @throws SERVICE_UNAVAILABLE, when there is room but it could not be had in time
     */
    async create (ownerId: string, defaults: SessionDefaultValues, ttlSeconds: number, maxSessions: number): Promise<Session> {
      const id = timePrefixedId(32)
      const sessionId = sessionIdOf(id)
      const session = { sessionId, ownerId, values: secrets.seal({ id, ownerId }, defaults), ttlSeconds, maxSessions }
      const until = performance.now() + decideWithinMs
      for (let waitMs = 0; performance.now() < until; waitMs++) {
        const createdAt = await rejectUnstorable('defaults', insert(session))
        if (createdAt !== undefined) return { sessionId, defaults, createdAt, expiresAt: createdAt + ttlSeconds * 1000, lastAccessedAt: createdAt }
        if (await countLive(ownerId) >= maxSessions) {
          throw new ApiError('SESSION_LIMIT_REACHED', {
            message: `This key may have ${maxSessions} sessions at the same time, and has as many or more. Delete some, or wait until they expire.`
          })
        }
        // There is room, which the count does not show yet; others may take it first, while they make some.
        await sleep(waitMs)
        await database.query(makeRoomText, [ownerId, expiredAtOnce])
      }
      throw new ApiError('SERVICE_UNAVAILABLE', { message: 'Too many sessions of this key are being created and removed at the moment. Try again in 1 s.' })
    },

    /** Begins to read a session for `use`, before it is known who asks for it. A failure is told by `use`. */
    beginUse: (sessionId: string): UseReading => begin(sessionId, forUse),

    /**
     * What the owner's session holds in the database now, or held when its reading began. The access is noted at most once a
     * minute for each session, and not waited for.
     *
     * @throws SESSION_NOT_FOUND, the same for a session that never existed, has expired, was deleted or is another's
     * @throws SERVICE_UNAVAILABLE when a secret value cannot be decrypted
     */
    async use ({ sessionId, row: reading }: UseReading, ownerId: string): Promise<{ defaults: SessionDefaultValues }> {
      const row = await reading
      if (row?.ownerId !== ownerId) notFound()
      const defaults = openRow(sessionId, ownerId, row)
      if (row.staleCtid !== null) noting.note(sessionId, { sessionId, ctid: row.staleCtid })
      return { defaults }
    },

    /** Resolves when nothing is left to be written in the background. */
    async settled (): Promise<void> {
      await Promise.all([noting.settled(), uncounting.settled()])
    },

    /** Begins to read a session for `get`, as `beginUse` does for `use`. */
    beginGet: (sessionId: string): GetReading => begin(sessionId, byId),

    /**
     * The owner's session as a whole. To read it is to use it, which is noted as `use` does.
     *
     * @throws as `use` does
     */
    async get ({ sessionId, row: reading }: GetReading, ownerId: string): Promise<Session> {
      const row = await reading
      if (row?.ownerId !== ownerId) notFound()
      const defaults = openRow(sessionId, ownerId, row)
      if (row.staleCtid !== null) noting.note(sessionId, { sessionId, ctid: row.staleCtid })
      return { sessionId, defaults, createdAt: row.createdAt, expiresAt: row.expiresAt, lastAccessedAt: row.lastAccessedAt }
    },

    /**
     * Sets the defaults that are given and leaves the others, in one statement: of concurrent patches none is lost.
     * Each is left in one column only, should it have been secret once or not have been.
     *
     * @throws VALIDATION_ERROR, when a value cannot be stored
     * @throws SESSION_NOT_FOUND
     * @throws SERVICE_UNAVAILABLE, and changes nothing, when a secret value that stays cannot be decrypted
     */
    async update (sessionId: string, ownerId: string, defaults: SessionDefaultValues): Promise<Omit<Session, 'createdAt'>> {
      const values = secrets.seal(new NamedSession(sessionId, ownerId), defaults)
      let row = await rejectUnstorable('defaults', patch({ sessionId, ownerId, values, checked: false }))
      if (!row) {
        const unchanged = await byId(sessionId)
        if (unchanged?.ownerId !== ownerId) notFound()
        openRow(sessionId, ownerId, unchanged, Object.keys(defaults))
        row = await rejectUnstorable('defaults', patch({ sessionId, ownerId, values, checked: true }))
      }
      if (!row) notFound()
      return { sessionId, defaults: openRow(sessionId, ownerId, row), expiresAt: row.expiresAt, lastAccessedAt: row.lastAccessedAt }
    },

    /**
     * Deletes the owner's session. From when this resolves no instance uses it.
     *
     * @throws SESSION_NOT_FOUND
     */
    async delete (sessionId: string, ownerId: string): Promise<void> {
      if (!await remove({ sessionId, ownerId })) notFound()
      uncounting.ask()
    },

    /** How many sessions the owner has that have not expired, at one moment. */
    countLive,

    /**
     * Removes at most `limit` sessions that have expired, those first that expired first: none while another instance removes
     * what has expired.
     *
     * @param from what the call before has answered as `last`, if it is of the same sweep
     */
    async deleteExpired (limit: number, from?: unknown): Promise<Swept> {
      const { rows } = await database.query<Swept>(deleteExpiredText, [limit, from])
      return rows[0]!
    },

    /**
     * Takes what at most `limit` statements have deleted off the owners' counts, and answers how many they were. A deletion sees to
     * that itself, unless the process ends too soon.
     */
    uncountRemoved
  }

  async function uncountRemoved (limit: number): Promise<Swept> {
    const { rows } = await database.query<Swept>(uncountRemovedText, [limit])
    return rows[0]!
  }

  function begin<Row> (sessionId: string, read: (sessionId: string) => Promise<Row | undefined>): Reading<Row> {
    const row = read(sessionId)
    row.catch(() => {})
    return { sessionId, row }
  }

  /** What a row holds, less what is not asked for. */
  function openRow (sessionId: string, ownerId: string, row: StoredValues, except: readonly string[] = []): SessionDefaultValues {
    const plain = JSON.parse(row.defaults) as SessionDefaultValues
    const sealed = row.secrets === null ? {} : JSON.parse(row.secrets) as SealedSecrets
    for (const name of except) {
      delete plain[name]
      delete sealed[name]
    }
    return secrets.open(new NamedSession(sessionId, ownerId), plain, sealed)
  }
}

/** Sessions that are removed at once where an owner has no room left. */
const expiredAtOnce = 100
/** Statements whose deletions are taken off the counts at once: each may have deleted some of 500 owners. */
export const removalsAtOnce = 20
/**
 * How long a new session is tried where there is room that others take, or that a sweep is about to make, before its client is
 * told to try again, in milliseconds.
 */
const decideWithinMs = 400

function notFound (): never {
  throw new ApiError('SESSION_NOT_FOUND')
}

declare module 'fastify' {
  interface FastifyInstance {
    sessionRepository: ReturnType<typeof createSessionRepository>
  }
}

export default fp<SessionRepositoryOptions>(async (fastify, { defaults, encryptionKeys = [] }) => {
  // Of another version, or without the marks that copies as JSON lose, all properties would be required, and none secret.
  if ((defaults as Partial<TObject> | null)?.[Kind] !== 'Object') {
    throw new Error('The option defaults is no object of @sinclair/typebox 0.34, such as Type.Object({ region: Type.Optional(Type.String()) }).')
  }
  const keyRing = readKeyRing(encryptionKeys)
  const secrets = createSessionSecrets(defaults, keyRing)
  if (secrets.names.length > 0 && keyRing.currentKeyId === undefined) {
    throw new Error(`sipher-sessions needs encryptionKeys: sessions hold secret values (${secrets.names.join(', ')}), which are stored encrypted. ` +
      'Give it a list of keys, each 32 random bytes in base64 (openssl rand -base64 32), or `defaults` without a secret property.')
  }
  const repository = createSessionRepository(fastify.sessionDatabase, secrets, (error, message) => {
    fastify.log.warn({ err: error }, message)
  })
  fastify.decorate('sessionRepository', repository)
  fastify.addHook('onClose', () => repository.settled())
}, { name: 'session-repository', fastify: '5.x', dependencies: ['database'] })

function readKeyRing (encryptionKeys: readonly string[]): KeyRing {
  try {
    return createKeyRing(encryptionKeys)
  } catch (error) {
    throw new KeyRingError(`The option encryptionKeys is wrong: ${(error as KeyRingError).message}`)
  }
}
