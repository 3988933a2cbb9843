import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createClient, createDatabase, createRandom, query, sleep, startInstance, startPostgres, withCleanup } from './harness.js'

export const name = 'five cold starts at once on an empty database, and a kill in the middle of a migration'

export function run ({ short, seed, pooler }) {
  return withCleanup(async defer => {
    const rounds = short ? 2 : 20
    const random = createRandom(seed)
    const migrations = readdirSync('migrations').length
    const postgres = await startPostgres(defer, { pooler })
    const ask = createClient(defer)
    let failed = 0
    let interrupted = 0
    for (let round = 0; round < rounds; round++) {
      const database = await createDatabase(postgres.connectionString, `cold_${round}`, { empty: true })
      await withCleanup(async defer => {
        const instances = await Promise.all(Array.from({ length: 5 }, () => startInstance(defer, database, postgres.variables)))
        for (const { origin } of instances) if ((await ask(origin, 'GET', '/v1/ready')).status !== 200) failed++
        const [{ count }] = await query(database, 'select count(*)::int as count from sipher_sessions.migrations')
        if (count !== migrations) failed++
      })

      // Somewhere between the first statement and the last; the start of the process takes the longest part.
      const other = await createDatabase(postgres.connectionString, `killed_${round}`, { empty: true })
      const child = spawn(process.execPath, ['dist/cli.js', 'migrate'], { env: { PATH: process.env.PATH, DATABASE_URL: other }, stdio: 'ignore' })
      const exited = once(child, 'exit')
      while ((await query(other, 'select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()')).length === 0 && child.exitCode === null);
      await sleep(random() * 10)
      child.kill('SIGKILL')
      await exited
      const [{ present }] = await query(other, 'select to_regclass(\'sipher_sessions.migrations\') is not null as present')
      if (!present) interrupted++
      else if ((await query(other, 'select count(*)::int as count from sipher_sessions.migrations'))[0].count !== migrations) failed++
      await withCleanup(async defer => {
        const { origin } = await startInstance(defer, other, postgres.variables)
        if ((await ask(origin, 'GET', '/v1/ready')).status !== 200) failed++
      })
    }
    return { did: `${rounds} times five starts at once, ${rounds} kills (${interrupted} before the migration was committed): ${failed} failed`, passed: failed === 0 }
  })
}
