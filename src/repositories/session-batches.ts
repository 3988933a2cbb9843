import { createBatch } from '../batch.js'
import { hexOf } from '../ids.js'
import { waitingSince, type Queryable } from '../plugins/database.js'
import type { SealedValues } from './session-secrets.js'
import { byIdText, countLiveText, forUseText, insertText, noteAccessText, patchText, removeText } from './session-statements.js'
import { byteaArray, isUnstorable, scalarArray } from './sql.js'

/** What a statement answers for one of the ids it was given. */
interface Positioned {
  /** The id's place among them, from 1. */
  position: number
}

/** What every statement that answers a session selects; the names are those of its properties. */
export interface StoredValues {
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

/** Milliseconds since the epoch, by the database's clock. */
interface Times {
  expiresAt: number
  lastAccessedAt: number
}

export type UseRow = SessionRow & Accessed
export type GetRow = UseRow & Times & { createdAt: number }

export interface UsedSession {
  sessionId: string
  /** Where its row was when it was read. */
  ctid: string
}

interface OwnedSession {
  sessionId: string
  ownerId: string
}

interface NewSession extends OwnedSession {
  values: SealedValues
  ttlSeconds: number
  maxSessions: number
}

interface Patch extends OwnedSession {
  values: SealedValues
  /** Whether the secrets that stay are known to be readable. */
  checked: boolean
}

/**
 * The statements that serve many sessions at once: what is asked for at the same time shares one.
 *
 * @param secretNames the secret properties of what sessions hold
 */
export function createSessionBatches (database: Queryable, secretNames: readonly string[]) {
  const { maxWaitMs } = database

  const forUse = createBatch<string, UseRow | undefined>((sessionIds, since) => read(forUseText, 'use-sessions', sessionIds, since), { maxWaitMs })

  const byId = createBatch<string, GetRow | undefined>((sessionIds, since) => read(byIdText, 'get-sessions', sessionIds, since), { maxWaitMs })

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
    const keys = patches.map(ownedKey)
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
      scalarArray(all.map(({ checked }) => checked)),
      secretNames
    ], 'patch-sessions')
    const asked = [...merged.keys()]
    const found = new Map(rows.map(row => [asked[row.position - 1]!, row]))
    return keys.map(key => found.get(key))
  }, { maxWaitMs, isOneItemsFault: isUnstorable })

  /** Whether each was deleted. */
  const remove = createBatch<OwnedSession, boolean>(async (sessions, since) => {
    const { rows } = await waitingSince(database, since).query<Positioned>(removeText,
      [idArray(sessions.map(({ sessionId }) => sessionId)), sessions.map(({ ownerId }) => ownerId)], 'delete-sessions')
    // Of two that delete the same session one has done it.
    const keys = sessions.map(ownedKey)
    const deleted = new Set(keys)
    for (const { position } of rows) deleted.delete(keys[position - 1]!)
    return keys.map(key => deleted.delete(key))
  }, { maxWaitMs })

  /** How many sessions each owner has that have not expired. */
  const countLive = createBatch<string, number>(async (ownerIds, since) => {
    const { rows } = await waitingSince(database, since).query<{ ownerId: string, live: number }>(countLiveText, [[...new Set(ownerIds)]])
    const live = new Map(rows.map(row => [row.ownerId, row.live]))
    return ownerIds.map(ownerId => live.get(ownerId)!)
  }, { maxWaitMs })

  async function noteAccess (used: readonly UsedSession[]): Promise<void> {
    await database.query(noteAccessText, [used.map(({ ctid }) => ctid), idArray(used.map(({ sessionId }) => sessionId))], 'note-access')
  }

  return { forUse, byId, insert, patch, remove, countLive, noteAccess }
}

function ownedKey ({ sessionId, ownerId }: OwnedSession): string {
  return sessionId + ownerId
}

function mergeSealed (earlier: SealedValues, later: SealedValues): SealedValues {
  const plain = { ...JSON.parse(earlier.plain) as object, ...JSON.parse(later.plain) as object }
  return { plain: JSON.stringify(plain), secrets: { ...earlier.secrets, ...later.secrets } }
}

/** The parameter that has the ids of sessions. */
function idArray (sessionIds: readonly string[]): string {
  return byteaArray(sessionIds.map(sessionId => `\\x${hexOf(sessionId)}`))
}
