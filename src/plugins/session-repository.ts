import { setTimeout as sleep } from 'node:timers/promises'
import { Kind, type TObject } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import { createBackgroundWork } from '../background.js'
import { createBatch } from '../batch.js'
import { createKeyRing, KeyRingError, type KeyRing } from '../encryption.js'
import { ApiError } from '../errors.js'
import { timePrefixedId } from '../ids.js'
import { createNoting } from '../noting.js'
import { secretNames } from '../schemas/secret.js'
import { type SessionDefaultValues } from '../schemas/session.js'
import { waitingSince, type Queryable } from './database.js'
import { byteaArray, isUnstorable, rejectUnstorable, scalarArray, type Swept } from './repositories.js'
import { createSessionSecrets, type SealedSecrets, type SealedValues, type SecretsOwner, type SessionSecrets } from './session-secrets.js'
import { byIdText, countLiveText, deleteExpiredText, forUseText, insertText, makeRoomText, noteAccessText, patchText, removeText, uncountRemovedText } from './session-statements.js'

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

/** What a statement answers for one of the ids it was given. */
interface Positioned {
  /** The id's place among them, from 1. */
  position: number
}

/** What every statement that answers a session selects; the names are those of its properties. */
interface StoredValues {
  /** JSON text: requests that share a row each parse an object of their own. */
  defaults: string
  /** JSON text of the ciphertexts by name; null where there are none. */
  secrets: string | null
}

interface SessionRow extends StoredValues {
  ownerId: string
}

interface Accessed {
  /** Where the row is, if its last access was noted so long ago that this one is worth a write. */
  staleCtid: string | null
}

type Times = Pick<Session, 'expiresAt' | 'lastAccessedAt'>
type UseRow = SessionRow & Accessed
type GetRow = UseRow & Times & Pick<Session, 'createdAt'>

interface UsedSession {
  sessionId: string
  /** Where its row was when it was read. */
  ctid: string
}

interface NewSession {
  sessionId: string
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
  const { maxWaitMs } = database
  const forUse = createBatch<string, UseRow | undefined>((sessionIds, since) => read(forUseText, 'use-sessions', sessionIds, since), { maxWaitMs })

  const byId = createBatch<string, GetRow | undefined>((sessionIds, since) => read(byIdText, 'get-sessions', sessionIds, since), { maxWaitMs })

  const noting = createNoting<UsedSession>(used => database.query(noteAccessText,
    [used.map(({ ctid }) => ctid), idArray(used.map(({ sessionId }) => sessionId))], 'note-access'), error => {
    onFailed(error, 'noting when sessions were last used failed; their next use tries again')
  })

  const uncounting = createBackgroundWork(uncountRemoved, error => {
    onFailed(error, 'taking deleted sessions off the counts failed; the next sweep tries again')
  })

  /** The rows that a statement answers for ids, in their order. */
  async function read<Row extends object> (text: string, name: string, sessionIds: readonly string[], since: number): Promise<(Row | undefined)[]> {
    const asked = [...new Set(sessionIds)]
    const { rows } = await waitingSince(database, since).query<Row & Positioned>(text, [idArray(asked)], name)
    const found = new Map<string, Row>()
    for (const row of rows) found.set(asked[row.position - 1]!, row)
    return sessionIds.map(sessionId => found.get(sessionId))
  }

  /** When each was created; undefined for one that its owner has no room for. */
  const insert = createBatch<NewSession, number | undefined>(async (sessions, since) => {
    const { rows } = await waitingSince(database, since).query<{ createdAt: number, refused: number[] }>(insertText, [
      idArray(sessions.map(({ sessionId }) => sessionId)),
      sessions.map(({ ownerId }) => ownerId),
      sessions.map(({ values }) => values.plain),
      sessions.map(({ values }) => JSON.stringify(values.secrets)),
      scalarArray(sessions.map(({ ttlSeconds }) => ttlSeconds)),
      scalarArray(sessions.map(({ maxSessions }) => maxSessions))
    ], 'create-sessions')
    const { createdAt, refused } = rows[0]!
    return sessions.map((_session, index) => refused.includes(index + 1) ? undefined : createdAt)
  }, { maxWaitMs, isOneItemsFault: isUnstorable })

  // Patches of one session at the same time are one, the later over the earlier: each is answered what came of all.
  const patch = createBatch<Patch, StoredValues & Times | undefined>(async (patches, since) => {
    const keys = patches.map(patchKey)
    const merged = new Map<string, Patch>()
    patches.forEach((given, index) => {
      const earlier = merged.get(keys[index]!)
      merged.set(keys[index]!, earlier ? { ...given, values: mergeSealed(earlier.values, given.values), checked: earlier.checked || given.checked } : given)
    })
    const all = [...merged.values()]
    const { rows } = await waitingSince(database, since).query<StoredValues & Times & Positioned>(patchText, [
      idArray(all.map(({ sessionId }) => sessionId)),
      all.map(({ ownerId }) => ownerId),
      all.map(({ values }) => values.plain),
      all.map(({ values }) => JSON.stringify(values.secrets)),
      scalarArray(all.map(({ checked }) => checked))
    ], 'patch-sessions')
    const asked = [...merged.keys()]
    const found = new Map(rows.map(row => [asked[row.position - 1]!, row]))
    return keys.map(key => found.get(key))
  }, { maxWaitMs, isOneItemsFault: isUnstorable })

  const remove = createBatch<Pick<Patch, 'sessionId' | 'ownerId'>, boolean>(async (sessions, since) => {
    const { rows } = await waitingSince(database, since).query<Positioned>(removeText,
      [idArray(sessions.map(({ sessionId }) => sessionId)), sessions.map(({ ownerId }) => ownerId)], 'delete-sessions')
    // Of two that delete the same session one has done it.
    const keys = sessions.map(patchKey)
    const deleted = new Set(keys)
    for (const { position } of rows) deleted.delete(keys[position - 1]!)
    if (deleted.size > 0) uncounting.ask()
    return keys.map(key => deleted.delete(key))
  }, { maxWaitMs })

  const countLive = createBatch<string, number>(async (ownerIds, since) => {
    const { rows } = await waitingSince(database, since).query<{ ownerId: string, live: number }>(countLiveText, [[...new Set(ownerIds)]])
    const live = new Map(rows.map(row => [row.ownerId, row.live]))
    return ownerIds.map(ownerId => live.get(ownerId)!)
  }, { maxWaitMs })

  return {
    /**
     * Stores a new session.
     *
     * @param maxSessions how many the owner may have at the same time
     * @throws VALIDATION_ERROR, when a value cannot be stored
     * @throws SESSION_LIMIT_REACHED, when the owner had as many at one moment since
     * @throws SERVICE_UNAVAILABLE, when there is room but it could not be had in time
     */
    async create (ownerId: string, defaults: SessionDefaultValues, ttlSeconds: number, maxSessions: number): Promise<Session> {
      const id = timePrefixedId(32)
      const sessionId = `sess_${id.toString('hex')}`
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
      throw new ApiError('SERVICE_UNAVAILABLE', {
        message: 'Too many sessions of this key are being created and removed at the moment. Try again in 1 s.',
        headers: { 'retry-after': '1' }
      })
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
     * Takes what was deleted off the owners' counts, likewise, and returns how many statements had deleted it. A deletion sees
     * to that itself, unless the process ends too soon.
     */
    uncountRemoved
  }

  async function uncountRemoved (): Promise<number> {
    let total = 0
    let count: number
    do {
      const { rows } = await database.query<{ count: number }>(uncountRemovedText, [removalsAtOnce])
      count = rows[0]!.count
      total += count
    } while (count === removalsAtOnce)
    return total
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
const removalsAtOnce = 20
/**
 * How long a new session is tried where there is room that others take, or that a sweep is about to make, before its client is
 * told to try again, in milliseconds.
 */
const decideWithinMs = 400

function patchKey ({ sessionId, ownerId }: Pick<Patch, 'sessionId' | 'ownerId'>): string {
  return sessionId + ownerId
}

function mergeSealed (earlier: SealedValues, later: SealedValues): SealedValues {
  const plain = { ...JSON.parse(earlier.plain) as object, ...JSON.parse(later.plain) as object }
  return { plain: JSON.stringify(plain), secrets: { ...earlier.secrets, ...later.secrets } }
}

/** The parameter that has the ids of sessions. */
function idArray (sessionIds: readonly string[]): string {
  return byteaArray(sessionIds.map(sessionId => `\\x${sessionId.slice('sess_'.length)}`))
}

/**
 * A session, to its secrets. The id's bytes are made where they are needed: most sessions have none. A class, because a getter
 * that is defined for each request costs more than the bytes do.
 */
class NamedSession implements SecretsOwner {
  readonly #sessionId: string
  readonly ownerId: string

  constructor (sessionId: string, ownerId: string) {
    this.#sessionId = sessionId
    this.ownerId = ownerId
  }

  get id (): Buffer {
    return Buffer.from(this.#sessionId.slice('sess_'.length), 'hex')
  }
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
  // Of another version, or without the marks that copies as JSON lose, all properties would be required, and none secret.
  if ((defaults as Partial<TObject> | null)?.[Kind] !== 'Object') {
    throw new Error('The option defaults is no object of @sinclair/typebox 0.34, such as Type.Object({ region: Type.Optional(Type.String()) }).')
  }
  const keyRing = readKeyRing(encryptionKeys)
  const secret = secretNames(defaults)
  if (secret.length > 0 && keyRing.currentKeyId === undefined) {
    throw new Error(`sipher-sessions needs encryptionKeys: sessions hold secret values (${secret.join(', ')}), which are stored encrypted. ` +
      'Give it a list of keys, each 32 random bytes in base64 (openssl rand -base64 32), or `defaults` without a secret property.')
  }
  const repository = createSessionRepository(fastify.sessionDatabase, createSessionSecrets(defaults, keyRing), (error, message) => {
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
