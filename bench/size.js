// What it costs to have many sessions: the service with 5,000,000 stored against the service with 10,000, each with a
// database of its own on one PostgreSQL.
import pg from 'pg'
import { seed } from './load-data.js'
import { compare, createRequests, startServer, withPostgres } from './load-lab.js'
import { createTable } from './load-table.js'

const few = 10_000

export async function run ({ short, json, connections }) {
  const many = short ? 200_000 : 5_000_000
  // Warm for long: where there are no huge pages each process of PostgreSQL has yet to map every page that it
  // shares with the others, of which there are hundreds of thousands.
  const timing = short ? { starts: 2, rounds: 2, seconds: 1.5, warmUp: 3 } : { starts: 2, rounds: 12, seconds: 0.7, warmUp: 45 }
  return withPostgres(async connectionString => {
    const client = new pg.Client({ connectionString })
    await client.connect()
    await client.query('create database large')
    await client.end()
    const databases = [{ url: connectionString.replace('/postgres?', '/large?'), stored: many }, { url: connectionString, stored: few }]
    const makers = []
    for (const { url, stored } of databases) makers.push(createRequests(await seed(url, { s: stored }), stored))
    const start = databases.map(({ url }) => () => startServer('service', url))
    const table = createTable(json)
    for (const path of ['use', 'create']) {
      const result = await compare(start, makers.map(maker => maker[path]), { connections, ...timing })
      table.add({ path, against: `${few} stored`, connections, goal: 0.90, ...result })
    }
    return table.end()
  })
}
