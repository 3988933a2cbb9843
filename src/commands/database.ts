import pg from 'pg'
import { ConfigError, loadConfig } from '../config.js'
import { findEmbeddedPostgres } from '../embedded-postgres.js'
import { checkSchemaVersion } from '../migrate.js'

/**
 * Runs something on the database of `DATABASE_URL`, or on the embedded one of `DATA_DIR` while a service runs it. The
 * service's other settings are not looked at.
 *
 * @throws ConfigError when there is neither, and what cannot be done with a database whose schema is not up to date
 */
export async function withDatabase<T> ({ DATABASE_URL, DATABASE_POOLER, DATA_DIR }: NodeJS.ProcessEnv, run: (database: pg.Pool) => Promise<T>): Promise<T> {
  const { databaseUrl, pooler, dataDir } = loadConfig({ DATABASE_URL, DATABASE_POOLER, DATA_DIR })
  const connectionString = databaseUrl ?? await findEmbeddedPostgres(dataDir)
  if (connectionString === null) {
    throw new ConfigError(`There is no database to talk to: set DATABASE_URL, or start the service (npm start), whose embedded PostgreSQL in ${dataDir} is then used.`)
  }
  const pool = createPool(connectionString, { query_timeout: 35_000, ...(!pooler && { statement_timeout: 30_000 }) })
  try {
    await checkSchemaVersion(pool)
    return await run(pool)
  } finally {
    await pool.end()
  }
}

/** The one connection of a command, made when it is needed; a new one once it breaks. */
export function createPool (connectionString: string, options: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({ connectionString, application_name: 'sipher-sessions command', max: 1, connectionTimeoutMillis: 10_000, ...options })
  // Told of a connection that breaks while nothing uses it, as may one that is being closed while PostgreSQL stops. Whatever
  // is asked of a broken one says so itself.
  pool.on('error', () => {})
  return pool
}
