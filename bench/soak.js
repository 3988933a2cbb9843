// Whether the process of the service grows under load: its memory at the end of ten minutes at full load, against that
// after the first. Garbage makes memory go up and down, so each is a median of ten seconds.
import { seed } from './load-data.js'
import { createRequests, median, startServer, withPostgres } from './load-lab.js'
import { createClient } from './load-client.js'

const limit = 1.05
const stored = 100_000

export async function run ({ short, json, connections }) {
  const seconds = short ? 30 : 600
  const first = short ? 10 : 60
  return withPostgres(async connectionString => {
    const requests = createRequests(await seed(connectionString, { s: stored }), stored)
    const server = await startServer('service', connectionString)
    const client = await createClient(server.origin, connections)
    const memory = []
    const timer = setInterval(async () => memory.push((await server.usage()).rss / 2 ** 20), 1000)
    try {
      const served = (await client.run(requests.use, seconds * 1000)).length
      clearInterval(timer)
      const [before, after] = [memory.slice(first - 10, first), memory.slice(-10)].map(median)
      const ratio = after / before
      if (json) console.log(JSON.stringify([{ path: 'use', seconds, served, before, after, ratio, limit, met: ratio < limit }]))
      else console.log(`soak: ${served} requests in ${seconds} s; memory of the process ${before.toFixed(1)} MiB after ${first} s, ${after.toFixed(1)} MiB at the end: ratio ${ratio.toFixed(3)}; it must be under ${limit.toFixed(2)}`)
      return ratio < limit ? 0 : 1
    } finally {
      clearInterval(timer)
      client.close()
      server.stop()
    }
  })
}
