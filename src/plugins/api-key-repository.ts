import DataLoader from 'dataloader'
import fp from 'fastify-plugin'
import { displayPrefix, generateApiKey, hashApiKey } from '../api-key.js'
import { ApiError, validationError } from '../errors.js'
import { timePrefixedId } from '../ids.js'
import { type Tier } from '../schemas/tier.js'
import { type Queryable } from './database.js'
import { rejectUnstorable, oneStatementPerTick } from './repositories.js'

export interface ApiKeyRecord {
  id: string
  displayPrefix: string
  tier: Tier
  name: string
  metadata: Record<string, unknown>
  /** Milliseconds since the epoch, as are the other times. */
  createdAt: number
  expiresAt: number | null
  revokedAt: number | null
}

export interface NewApiKey {
  tier: Tier
  name: string
  /** Milliseconds since the epoch; a key without it works until it is revoked. */
  expiresAt?: number
  metadata?: Record<string, unknown>
}

const columns = `
  id, display_prefix as "displayPrefix", tier, name, metadata,
  floor(extract(epoch from created_at) * 1000)::float8 as "createdAt",
  floor(extract(epoch from expires_at) * 1000)::float8 as "expiresAt",
  floor(extract(epoch from revoked_at) * 1000)::float8 as "revokedAt"`

function createApiKeyRepository (database: Queryable) {
  // The lookups of one turn of the event loop share one statement; nothing is kept for the next, so that a revoked
  // key stops working everywhere at once.
  const bySecret = new DataLoader<Buffer, { id: string, tier: Tier } | null>(async (hashes) => {
    const { rows } = await database.query<{ hash: Buffer, id: string, tier: Tier }>(`
      select secret_hash as hash, id, tier
      from sipher_sessions.api_keys
      where secret_hash = any ($1::bytea[])
        and revoked_at is null
        and (expires_at is null or expires_at > now())`, [hashes])
    const found = new Map(rows.map(({ hash, id, tier }) => [hash.toString('latin1'), { id, tier }]))
    return hashes.map(hash => found.get(hash.toString('latin1')) ?? null)
  }, oneStatementPerTick)

  return {
    /** The id and tier of the key whose secret has this hash, unless it is revoked or has expired. */
    async authenticate (hash: Buffer): Promise<{ id: string, tier: Tier } | null> {
      return bySecret.load(hash)
    },

    /**
     * Stores a new key and returns it with its secret, which cannot be had again.
     *
     * @throws VALIDATION_ERROR when it would have expired already, by the database's clock
     */
    async create ({ tier, name, expiresAt, metadata = {} }: NewApiKey): Promise<{ secret: string, record: ApiKeyRecord }> {
      const secret = generateApiKey(tier)
      const { rows } = await rejectUnstorable('metadata', database.query<ApiKeyRecord>(`
        insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name, metadata, expires_at)
        select $1::text, $2::bytea, $3::text, $4::text, $5::text, $6::jsonb, to_timestamp($7::float8 / 1000)
        where $7::float8 is null or to_timestamp($7::float8 / 1000) > now()
        returning ${columns}`,
      [`key_${timePrefixedId(16).toString('hex')}`, hashApiKey(secret), displayPrefix(secret), tier, name, JSON.stringify(metadata), expiresAt]))
      const [record] = rows
      if (!record) throw validationError('body', [{ field: 'expiresAt', reason: 'lies in the past' }])
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

    /** @throws KEY_NOT_FOUND */
    async get (id: string): Promise<ApiKeyRecord> {
      const { rows } = await database.query<ApiKeyRecord>(
        `select ${columns} from sipher_sessions.api_keys where id = $1::text`, [id])
      return rows[0] ?? notFound()
    },

    /**
     * Revokes a key for good; one that is revoked already stays as it was. From when this resolves no instance
     * accepts it.
     *
     * @throws KEY_NOT_FOUND
     */
    async revoke (id: string): Promise<void> {
      const { rowCount } = await database.query(`
        update sipher_sessions.api_keys
        set revoked_at = coalesce(revoked_at, now())
        where id = $1::text`, [id])
      if (rowCount === 0) notFound()
    }
  }
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
  fastify.decorate('apiKeyRepository', createApiKeyRepository(fastify.sessionDatabase))
}, { name: 'api-key-repository', fastify: '5.x', dependencies: ['database'] })
