import fp from 'fastify-plugin'
import { displayPrefix, generateApiKey, hashApiKey } from '../api-key.js'
import { createBatch } from '../batch.js'
import { ApiError, validationError } from '../errors.js'
import { timePrefixedId } from '../ids.js'
import { createNoting } from '../noting.js'
import { byteaArray, milliseconds, opaque, rejectUnstorable, scalarArray } from '../repositories/sql.js'
import { tierNames, type Tier } from '../schemas/tier.js'
import { auditKeys } from './audit-repository.js'
import { waitingSince, type Queryable } from './database.js'
import { countRequests, handOut, requestWindowMs, tally, type RequestCount } from './request-count-repository.js'

export interface ApiKeyRecord {
  id: string
  displayPrefix: string
  tier: Tier
  name: string
  metadata: Record<string, unknown>
  /** By the database's clock; only an active key is accepted. */
  status: 'active' | 'expired' | 'revoked'
  /** Milliseconds since the epoch, as are the other times. */
  createdAt: number
  expiresAt: number | null
  revokedAt: number | null
  /** When the key was last used, exact to a minute. */
  lastUsedAt: number | null
  /** Until when the secret before this one is accepted as well; null where there is none. */
  graceEndsAt: number | null
}

export interface NewApiKey {
  tier: Tier
  name: string
  /** Milliseconds since the epoch; a key without it works until it is revoked. */
  expiresAt?: number
  metadata?: Record<string, unknown>
}

/** What of a key is changed; what is left out stays. */
export interface ApiKeyChanges {
  tier?: Tier
  name?: string
  /** Milliseconds since the epoch; null for a key that works until it is revoked. */
  expiresAt?: number | null
  /** Replaces the metadata as a whole. */
  metadata?: Record<string, unknown>
}

const active = 'revoked_at is null and (expires_at is null or expires_at > now())'

const columns = `
  id, display_prefix as "displayPrefix", tier, name, metadata,
  case when ${active} then 'active' when revoked_at is null then 'expired' else 'revoked' end as status,
  ${milliseconds('created_at')} as "createdAt",
  ${milliseconds('expires_at')} as "expiresAt",
  ${milliseconds('revoked_at')} as "revokedAt",
  ${milliseconds('last_used_at')} as "lastUsedAt",
  ${milliseconds('case when previous_ends_at > now() then previous_ends_at end')} as "graceEndsAt"`

const stale = '(last_used_at is null or last_used_at < now() - interval \'1 minute\')'

/** Whose secret it is that a request carries. */
interface Authenticated {
  id: string
  tier: Tier
}

interface FoundRow extends Authenticated {
  /** Whether the last use was noted so long ago that this one is worth a write. */
  useIsStale: boolean
  /** The secrets' positions in what was asked for, from 1; null for one that was not. */
  position: number | null
  previousPosition: number | null
}

interface CountedRow extends FoundRow, RequestCount {}

/** The secrets that a statement is given. */
const secrets = opaque('$1::bytea[]')

/** The keys that have one of the secrets `$1`, with what authentication needs of them. */
const foundBySecret = `
  select id, tier, ${stale} as stale,
    array_position(${secrets}, secret_hash) as position,
    array_position(${secrets}, case when previous_ends_at > now() then previous_secret_hash end) as previous_position
  from sipher_sessions.api_keys
  where ${active} and (
    secret_hash = any (${secrets}::bytea[])
    or previous_secret_hash is not null and previous_secret_hash = any (${secrets}::bytea[]) and previous_ends_at > now())`

const foundColumns = 'id, tier, stale as "useIsStale", position, previous_position as "previousPosition"'

const authenticateText = `select ${foundColumns} from (${foundBySecret}) as found`

/** `$2` says how many requests carry each of the secrets, `$3` the length of the window. */
const authenticateAndCountText = `
  with found as (${foundBySecret}), counted as (${countRequests('$3', `
    select id, coalesce(($2::int[])[position], 0) + coalesce(($2::int[])[previous_position], 0) from found order by id`)})
  select ${foundColumns}, requests, remaining_ms as "remainingMs"
  from found join counted on principal_id = id`

/**
 * API keys in Postgres. Every call goes to the database, whose clock alone decides what has expired. Each change is
 * one statement, so that it is made as a whole or not at all.
 *
 * @param actor who makes the changes, for the audit log
 * @param onNotingFailed told when the time of a use could not be written, which fails no request
 */
export function createApiKeyRepository (database: Queryable, actor: string, onNotingFailed: (error: unknown) => void = () => {}) {
  const { maxWaitMs } = database
  // Lookups of the same time share one statement; nothing is kept for the next, so that a revoked key stops working
  // everywhere at once. One condition over both columns, which walks through both indexes; as a
  // union of two halves PostgreSQL starts parallel workers for a large batch, which takes it ten times as long.
  const bySecret = createBatch<string, FoundRow | undefined>(async (hashes, since) => {
    const asked = [...new Set(hashes)]
    const { rows } = await waitingSince(database, since).query<FoundRow>(authenticateText, [byteaArray(asked)], 'authenticate')
    const found = byHash(asked, rows)
    return hashes.map(hash => found.get(hash))
  }, { maxWaitMs })

  const bySecretCounted = createBatch<string, FoundRow & RequestCount | undefined>(async (hashes, since) => {
    const numbers = tally(hashes)
    const asked = [...numbers.keys()]
    const { rows } = await waitingSince(database, since).query<CountedRow>(authenticateAndCountText,
      [byteaArray(asked), scalarArray([...numbers.values()]), requestWindowMs], 'authenticate-and-count')
    return handOut(hashes, byHash(asked, rows))
  }, { maxWaitMs })

  // Rows that another statement holds are skipped: it changes the key, or notes the same use. So no two of these can wait
  // for each other in a circle, whatever keys they share.
  const noting = createNoting<string>(ids => database.query(`
    update sipher_sessions.api_keys set last_used_at = now()
    where id = any (array(
      select id from sipher_sessions.api_keys
      where id = any ($1::text[]) and ${stale}
      for update skip locked
    ))`, [ids]), onNotingFailed)

  function inUse ({ id, tier, useIsStale }: FoundRow): Authenticated {
    if (useIsStale) noting.note(id, id)
    return { id, tier }
  }

  /** Why a change found no row to make it to. */
  async function refuse (id: string, whenActive: () => Error): Promise<never> {
    const { status } = await get(id)
    if (status === 'revoked') throw new ApiError('KEY_NOT_ACTIVE')
    throw whenActive()
  }

  /** @throws KEY_NOT_FOUND */
  async function get (id: string): Promise<ApiKeyRecord> {
    const { rows } = await database.query<ApiKeyRecord>(
      `select ${columns} from sipher_sessions.api_keys where id = $1::text`, [id])
    return rows[0] ?? notFound()
  }

  return {
    get,

    /**
     * The id and tier of the key whose secret has this hash, or had it and is within the grace period, unless the key is
     * revoked or has expired. The use is noted at most once a minute for each key, and not waited for.
     */
    async authenticate (hash: string): Promise<{ principal: Authenticated } | null> {
      const key = await bySecret(hash)
      return key ? { principal: inUse(key) } : null
    },

    /** The same, and counts the request in the same statement. What is no key is not counted. */
    async authenticateAndCount (hash: string): Promise<{ principal: Authenticated, count: RequestCount } | null> {
      const key = await bySecretCounted(hash)
      return key ? { principal: inUse(key), count: key } : null
    },

    /** Resolves when no use of a key is left to be noted. */
    usesNoted: noting.settled,

    /**
     * Stores a new key and returns it with its secret, which cannot be had again.
     *
     * @throws VALIDATION_ERROR when it would have expired already, by the database's clock
     */
    async create (given: NewApiKey): Promise<{ secret: string, record: ApiKeyRecord }> {
      const { tier, name, expiresAt, metadata = {} } = given
      const secret = generateApiKey(tier)
      const { rows } = await rejectUnstorable('metadata', database.query<ApiKeyRecord>(`
        with changed as (
          insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name, metadata, expires_at)
          select $1::text, $2::bytea, $3::text, $4::text, $5::text, $6::jsonb, to_timestamp($7::float8 / 1000)
          where $7::float8 is null or to_timestamp($7::float8 / 1000) > now()
          returning *
        ), audited as (${auditKeys('key.create', 'changed', '$8::text', '$9::text[]')})
        select ${columns} from changed`,
      [`key_${timePrefixedId(16).toString('hex')}`, hashApiKey(secret), displayPrefix(secret), tier, name, JSON.stringify(metadata), expiresAt, actor, namesOf(given)]))
      const [record] = rows
      if (!record) throw expiryLiesInThePast(expiresAt!)
      return { secret, record }
    },

    /** A page of keys, the oldest first, revoked ones included; `after` is the id of the last of the page before. */
    async list ({ limit, after }: { limit: number, after?: string | undefined }): Promise<ApiKeyRecord[]> {
      const { rows } = await database.query<ApiKeyRecord>(`
        select ${columns} from sipher_sessions.api_keys
        where id > $1::text
        order by id
        limit $2::int`, [after ?? '', limit])
      return rows
    },

    /**
     * Gives the key a new secret, which cannot be had again. The secret it replaces is accepted for `graceSeconds`
     * more by the database's clock, and one that an earlier rotation replaced ends now: of a key no more than two
     * secrets ever work.
     *
     * @returns with `graceEndsAt`, when the secret that was replaced ends or has ended
     * @throws KEY_NOT_FOUND, or KEY_NOT_ACTIVE for a key that is revoked or has expired
     */
    async rotate (id: string, graceSeconds: number): Promise<{ secret: string, record: ApiKeyRecord, graceEndsAt: number }> {
      // A secret says its tier, which only the statement knows: it takes the one that fits.
      const secrets = tierNames.map(generateApiKey)
      const { rows } = await database.query<ApiKeyRecord & { replacedEndsAt: number }>(`
        with changed as (
          update sipher_sessions.api_keys
          set secret_hash = ($2::bytea[])[array_position($4::text[], tier)],
            display_prefix = ($3::text[])[array_position($4::text[], tier)],
            previous_secret_hash = case when $5::int > 0 then secret_hash end,
            previous_ends_at = case when $5::int > 0 then now() + make_interval(secs => $5::int) end
          where id = $1::text and ${active}
          returning *
        ), audited as (${auditKeys('key.rotate', 'changed', '$6::text', '\'{secret}\'::text[]')})
        select ${columns}, ${milliseconds('now() + make_interval(secs => $5::int)')} as "replacedEndsAt" from changed`,
      [id, secrets.map(hashApiKey), secrets.map(displayPrefix), tierNames, graceSeconds, actor])
      const [row] = rows
      if (!row) {
        return refuse(id, () => new ApiError('KEY_NOT_ACTIVE', { message: 'This API key has expired. Give it a later expiresAt, then rotate it.' }))
      }
      const { replacedEndsAt, ...record } = row
      return { secret: secrets[tierNames.indexOf(record.tier)]!, record, graceEndsAt: replacedEndsAt }
    },

    /**
     * Changes what is given and leaves the rest. From when this resolves every instance goes by the new tier and
     * expiry. The secret stays, and goes on saying the tier that it was made for.
     *
     * @throws KEY_NOT_FOUND, KEY_NOT_ACTIVE for a key that is revoked, or VALIDATION_ERROR when it would have expired
     * already, by the database's clock
     */
    async update (id: string, changes: ApiKeyChanges): Promise<ApiKeyRecord> {
      const { tier, name, expiresAt, metadata } = changes
      const { rows } = await rejectUnstorable('metadata', database.query<ApiKeyRecord>(`
        with changed as (
          update sipher_sessions.api_keys
          set tier = coalesce($2::text, tier),
            name = coalesce($3::text, name),
            metadata = coalesce($4::jsonb, metadata),
            expires_at = case when $5::boolean then to_timestamp($6::float8 / 1000) else expires_at end
          where id = $1::text and revoked_at is null
            and ($6::float8 is null or to_timestamp($6::float8 / 1000) > now())
          returning *
        ), audited as (${auditKeys('key.update', 'changed', '$7::text', '$8::text[]')})
        select ${columns} from changed`,
      [id, tier, name, metadata && JSON.stringify(metadata), expiresAt !== undefined, expiresAt, actor, namesOf(changes)]))
      return rows[0] ?? refuse(id, () => expiryLiesInThePast(expiresAt!))
    },

    /**
     * Revokes a key for good, with all its secrets; one that is revoked already stays as it was. From when this
     * resolves no instance accepts it.
     *
     * @throws KEY_NOT_FOUND
     */
    async revoke (id: string): Promise<void> {
      const { rows } = await database.query(`
        with changed as (
          update sipher_sessions.api_keys
          set revoked_at = now(), previous_secret_hash = null, previous_ends_at = null
          where id = $1::text and revoked_at is null
          returning id
        ), audited as (${auditKeys('key.revoke', 'changed', '$2::text', 'array[]::text[]')})
        select id from changed`, [id, actor])
      if (rows.length === 0) await get(id)
    }
  }
}

/** Which row has which of the secrets that were asked for. */
function byHash<Row extends FoundRow> (asked: readonly string[], rows: readonly Row[]): Map<string, Row> {
  const found = new Map<string, Row>()
  for (const row of rows) {
    if (row.position !== null) found.set(asked[row.position - 1]!, row)
    if (row.previousPosition !== null) found.set(asked[row.previousPosition - 1]!, row)
  }
  return found
}

/** The names of what is given. */
function namesOf (values: object): string[] {
  return Object.entries(values).filter(([, value]) => value !== undefined).map(([name]) => name)
}

function expiryLiesInThePast (expiresAt: number): ApiError {
  // As milliseconds they are in the seventies.
  const isInSeconds = expiresAt > Date.now() / 1000
  return validationError('body', [{ field: 'expiresAt', reason: `lies in the past${isInSeconds && expiresAt < 1e11 ? '; it is in milliseconds since the epoch, and this looks like seconds' : ''}` }])
}

function notFound (): never {
  throw new ApiError('KEY_NOT_FOUND')
}

declare module 'fastify' {
  interface FastifyInstance {
    apiKeyRepository: ReturnType<typeof createApiKeyRepository>
  }
}

export default fp(async (fastify) => {
  const repository = createApiKeyRepository(fastify.sessionDatabase, 'admin', error => {
    fastify.log.warn({ err: error }, 'noting when keys were last used failed; their next use tries again')
  })
  fastify.decorate('apiKeyRepository', repository)
  fastify.addHook('onClose', () => repository.usesNoted())
}, { name: 'api-key-repository', fastify: '5.x', dependencies: ['database'] })
