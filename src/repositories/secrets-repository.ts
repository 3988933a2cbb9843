import type { Queryable } from '../plugins/database.js'
import type { SealedSecrets, SecretsOwner } from './session-secrets.js'

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
