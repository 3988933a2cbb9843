import pg from 'pg'
import { ConfigError, loadConfig } from './config.js'
import { explainError } from './explain-error.js'
import { migrate } from './migrate.js'

// Not the embedded database: npm start migrates it, and nobody else may be using it meanwhile.
try {
  const { databaseUrl } = loadConfig(process.env)
  if (databaseUrl === undefined) throw new ConfigError('Set DATABASE_URL to the database to migrate. The embedded one is migrated by npm start.')
  const pool = new pg.Pool({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 })
  await migrate(pool, { info: (fields: object, message?: string) => console.log(`${message}: ${JSON.stringify(fields)}`) })
  await pool.end()
  console.log('The database schema is up to date.')
} catch (error) {
  console.error(explainError(error))
  process.exitCode = 1
}
