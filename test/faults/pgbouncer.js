import * as coldStarts from './cold-starts.js'
import * as crashes from './crashes.js'
import * as hostile from './hostile.js'
import * as model from './model.js'
import * as patches from './patches.js'
import * as races from './races.js'
import { startInstance, startPostgres, withCleanup } from './harness.js'

export const name = 'the same through PgBouncer in transaction mode'

const suite = { crashes, patches, races, 'cold-starts': coldStarts, model, hostile }

/** Always in short form; PostgreSQL itself is not stopped here, only the service. And the mistake of not saying so. */
export async function run ({ seed }) {
  const results = []
  for (const [id, fault] of Object.entries(suite)) {
    const { did, passed } = await fault.run({ short: true, seed, pooler: true })
    results.push({ did: `${id}: ${did}`, passed })
  }
  await withCleanup(async defer => {
    const { connectionString } = await startPostgres(defer, { pooler: true })
    const said = await startInstance(defer, connectionString).then(() => 'it started', error => error.message)
    const passed = /DATABASE_URL leads to a pooler .* Set DATABASE_POOLER=transaction\./.test(said)
    results.push({ did: `without DATABASE_POOLER: ${passed ? 'told so' : said}`, passed })
  })
  return { did: results.map(({ did }) => did).join('\n  '), passed: results.every(({ passed }) => passed) }
}
