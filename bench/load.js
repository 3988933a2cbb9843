// How fast the service is, against a bare Fastify, the obvious way, and itself without batches, on the machine at hand.
// Every figure is a median of rounds in which both servers were measured in turn; the figures of a row are those of the
// service and of what it is compared with.
import { seed, spreadAccesses } from './load-data.js'
import { createClient } from './load-client.js'
import { compare, createRequests, startServer, withPostgres } from './load-lab.js'
import { createTable } from './load-table.js'

const goals = [
  { path: 'use', against: 'bare', goal: 0.60 },
  { path: 'use', against: 'naive', goal: 5 },
  // For comparison: what a limit costs that way, which the service has for little.
  { path: 'use', against: 'uncounted' },
  { path: 'create', against: 'bare', goal: 0.60 },
  { path: 'get', against: 'bare', goal: 0.55 },
  { path: 'patch', against: 'bare', goal: 0.55 },
  { path: 'delete', against: 'bare', goal: 0.55 },
  { path: 'use', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'create', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'get', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'patch', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'delete', against: 'unbatched', goal: 0.95, connections: 1 }
]

/** @param options `connections` of all rows but those that say otherwise */
export async function run ({ short, json, connections: many }) {
  const stored = short ? 20_000 : 100_000
  const deletable = short ? 250_000 : 1_000_000
  // V8 goes on compiling the service for some eight seconds, and a bare Fastify for two.
  const timing = short ? { starts: 2, rounds: 2, seconds: 1.5, warmUp: 3 } : { starts: 4, rounds: 6, seconds: 0.7, warmUp: 10 }
  return withPostgres(async connectionString => {
    const requests = createRequests(await seed(connectionString, { s: stored, d: deletable }), stored, deletable)
    const table = createTable(json)
    for (const { path, against, goal, connections = many } of goals) {
      const start = ['service', against].map(kind => () => startServer(kind, connectionString))
      await spreadAccesses(connectionString)
      table.add({ path, against, connections, goal, ...await compare(start, [requests[path], requests[path]], { connections, ...timing }) })
    }
    return table.end()
  })
}

/** Starts each server once and sends it a request of each kind that it is measured with, whose answer must be a 2xx. */
export async function check () {
  return withPostgres(async connectionString => {
    const requests = createRequests(await seed(connectionString, { s: 100, d: 100 }), 100, 100)
    for (const kind of new Set(['service', ...goals.map(({ against }) => against)])) {
      const server = await startServer(kind, connectionString)
      const client = await createClient(server.origin, 1)
      try {
        const paths = new Set(goals.filter(({ against }) => kind === 'service' || kind === against).map(({ path }) => path))
        for (const path of paths) await client.run(() => requests[path](kind), 0)
      } finally {
        client.close()
        server.stop()
      }
    }
    return 0
  }, { small: true })
}
