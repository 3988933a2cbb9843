// What is stored for the benchmarks of the load: keys, and sessions whose id and owner follow from a number.
import { createHash } from 'node:crypto'
import pg from 'pg'
import { generateApiKey, hashApiKey } from '../dist/api-key.js'
import { migrate } from '../dist/migrate.js'

export const encryptionKey = Buffer.alloc(32, 7).toString('base64')
export const keyCount = 100

/** When the first session was made: ids begin with a time, a millisecond apart here. */
const began = 1_789_551_600_000

/**
 * The ids of a group's sessions by their number, the n-th of which is the session of the n-th key, counted round. They are as
 * the service makes them, six bytes of time and 26 of a hash for 26 random ones.
 */
export function idsOf (group, count) {
  const ids = Buffer.alloc(32 * count)
  for (let n = 0; n < count; n++) {
    ids.writeUIntBE(began + n, 32 * n, 6)
    createHash('sha256').update(`${group}${n}`).digest().copy(ids, 32 * n + 6, 0, 26)
  }
  return n => `sess_${ids.hexSlice(32 * n, 32 * n + 32)}`
}

/** Makes the tables, the keys, and as many sessions of each group as asked for; returns the keys. */
export async function seed (connectionString, groups) {
  const pool = new pg.Pool({ connectionString, max: 1 })
  await migrate(pool)
  const keys = Array.from({ length: keyCount }, () => generateApiKey('pro'))
  await pool.query(`
    insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name, last_used_at)
    select 'key_' || lpad(to_hex(n - 1), 32, '0'), hash, '', 'pro', 'bench', now()
    from unnest($1::bytea[]) with ordinality as given (hash, n)`, [keys.map(hashApiKey)])
  for (const [group, count] of Object.entries(groups)) {
    await pool.query(`
      insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
      select substring(int8send($4::int8 + n) from 3) || substring(sha256(($1::text || n)::bytea) for 26), 'key_' || lpad(to_hex(n % $3), 32, '0'),
        '{"chain": "near", "privacyLevel": "shielded"}', now() + interval '1 day'
      from generate_series(0, $2::int - 1) as n`, [group, count, keyCount, began])
  }
  await pool.query(`
    insert into sipher_sessions.session_counts (owner_id, sessions, max_sessions, admitted)
    select owner_id, count(*), 0, 0 from sipher_sessions.sessions group by owner_id`)
  await pool.query('vacuum analyze')
  await pool.end()
  return keys
}

/**
 * Makes it as long ago that sessions were used as it is under steady load, up to the minute past which the service notes it
 * anew: what was just seeded would cost nothing, and what is older a write for each request.
 */
export async function spreadAccesses (connectionString) {
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query('update sipher_sessions.sessions set last_accessed_at = now() - random() * interval \'1 minute\' where id = any (array(select id from sipher_sessions.sessions order by id limit 200000))')
  // Now, rather than by autovacuum in the middle of what is measured.
  await client.query('vacuum sipher_sessions.sessions')
  await client.end()
}
