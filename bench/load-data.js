// What is stored for the benchmark "load": keys, and sessions of which id and owner follow from a number.
import { createHash } from 'node:crypto'
import pg from 'pg'
import { generateApiKey, hashApiKey } from '../dist/api-key.js'

export const encryptionKey = Buffer.alloc(32, 7).toString('base64')
export const keyCount = 100

/** The id of the n-th session of a group, and whose it is. */
export function sessionOf (group, n) {
  return { id: `sess_${createHash('sha256').update(`${group}${n}`).digest('hex')}`, key: n % keyCount }
}

/** Stores the keys, and as many sessions of a group as asked for; returns the keys. */
export async function seed (connectionString, groups) {
  const pool = new pg.Pool({ connectionString, max: 1 })
  const keys = Array.from({ length: keyCount }, () => generateApiKey('pro'))
  await pool.query(`
    insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name, last_used_at)
    select 'key_' || lpad(to_hex(n - 1), 32, '0'), hash, '', 'pro', 'bench', now()
    from unnest($1::bytea[]) with ordinality as given (hash, n)`, [keys.map(hashApiKey)])
  for (const [group, count] of Object.entries(groups)) {
    await pool.query(`
      insert into sipher_sessions.sessions (id, owner_id, defaults, expires_at)
      select sha256(($1::text || n)::bytea), 'key_' || lpad(to_hex(n % $3), 32, '0'), '{"chain": "near", "privacyLevel": "shielded"}', now() + interval '1 day'
      from generate_series(0, $2::int - 1) as n`, [group, count, keyCount])
  }
  await pool.query(`
    insert into sipher_sessions.session_counts (owner_id, sessions, max_sessions, admitted)
    select owner_id, count(*), 0, 0 from sipher_sessions.sessions group by owner_id`)
  await pool.query('vacuum analyze')
  await pool.query('create extension if not exists pg_stat_statements').catch(() => {})
  await pool.end()
  return keys
}
