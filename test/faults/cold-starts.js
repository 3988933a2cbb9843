import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import pg from 'pg'
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
    let atWork = 0
    for (let round = 0; round < rounds; round++) {
      const database = await createDatabase(postgres.connectionString, `cold_${round}`, { empty: true })
      await withCleanup(async defer => {
        const instances = await Promise.all(Array.from({ length: 5 }, () => startInstance(defer, database, postgres.variables)))
        for (const { origin } of instances) if ((await ask(origin, 'GET', '/v1/ready')).status !== 200) failed++
        const [{ count }] = await query(database, 'select count(*)::int as count from sipher_sessions.migrations')
        if (count !== migrations) failed++
      })

      // Every other time as soon as it is seen at work, else somewhere between the first statement and the last; the start of the
      // process takes the longest part.
      const other = await createDatabase(postgres.connectionString, `killed_${round}`, { empty: true })
      const child = spawn(process.execPath, ['dist/cli.js', 'migrate'], { env: { PATH: process.env.PATH, DATABASE_URL: other }, stdio: 'ignore' })
      const exited = once(child, 'exit')
      const seen = round % 2 === 0 ? 'pg_locks where locktype = \'advisory\' and database = (select oid from pg_database where datname = current_database())' : 'pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()'
      await watch(other, async watcher => {
        while ((await watcher.query(`select 1 from ${seen}`)).rowCount === 0 && child.exitCode === null);
      })
      if (round % 2 === 1) await sleep(random() * 10)
      child.kill('SIGKILL')
      await exited
      const [{ present }] = await query(other, 'select to_regclass(\'sipher_sessions.migrations\') is not null as present')
      if (!present) {
        interrupted++
        if (round % 2 === 0) atWork++
      } else if ((await query(other, 'select count(*)::int as count from sipher_sessions.migrations'))[0].count !== migrations) failed++
      await withCleanup(async defer => {
        const { origin } = await startInstance(defer, other, postgres.variables)
        if ((await ask(origin, 'GET', '/v1/ready')).status !== 200) failed++
      })
    }
    return { did: `${rounds} times five starts at once, ${rounds} kills (${interrupted} before the migration was committed, ${atWork} of these while it was seen at work): ${failed} failed`, passed: failed === 0 && atWork > 0 }
  })
}

/** Looks at a database by one connection: a migration takes less time than many. */
async function watch (connectionString, look) {
  const watcher = new pg.Client({ connectionString })
  await watcher.connect()
  try {
    await look(watcher)
  } finally {
    await watcher.end()
  }
}
