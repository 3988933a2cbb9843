import { startInstance, startPostgres, withCleanup } from './harness.js'
import { runFault, suite } from './suite.js'

export const name = 'the same through PgBouncer in transaction mode'

/** The whole suite in the form that is asked for, and the mistake of not saying that there is a pooler. */
export async function run (options) {
  const failed = []
  for (const [id, fault] of Object.entries(suite)) {
    if (!await runFault(`pgbouncer, ${id}`, fault, { ...options, pooler: true })) failed.push(id)
  }
  const said = await withCleanup(async defer => {
    const { connectionString } = await startPostgres(defer, { pooler: true })
    return startInstance(defer, connectionString).then(() => 'it started', error => error.message)
  })
  const told = /DATABASE_URL leads to a pooler .* Set DATABASE_POOLER=transaction\./.test(said)
  return {
    did: `${Object.keys(suite).length} faults, ${failed.length} failed${failed.length > 0 ? `: ${failed.join(', ')}` : ''}; without DATABASE_POOLER: ${told ? 'told so' : said}`,
    passed: failed.length === 0 && told
  }
}
