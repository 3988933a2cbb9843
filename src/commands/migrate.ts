import { ConfigError, loadConfig } from '../config.js'
import { migrate } from '../migrate.js'
import type { Command } from './command.js'
import { createPool } from './database.js'

// Not the embedded database: npm start migrates it, and nobody else may be using it meanwhile.
export const migrateCommand: Command = {
  name: 'migrate',
  summary: 'Bring the schema of the database of DATABASE_URL up to date.',
  async run (_args, { environment: { DATABASE_URL }, out }) {
    const { databaseUrl } = loadConfig({ DATABASE_URL })
    if (databaseUrl === undefined) throw new ConfigError('Set DATABASE_URL to the database to migrate. The embedded one is migrated by npm start.')
    const pool = createPool(databaseUrl)
    try {
      await migrate(pool, { info: (fields: object, message?: string) => out(`${message}: ${JSON.stringify(fields)}\n`) })
    } finally {
      await pool.end()
    }
    out('The database schema is up to date.\n')
  }
}
