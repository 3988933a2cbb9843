import { createClient, createKey, createRandom, quantile, query, startInstance, startPostgres, withCleanup } from './harness.js'

export const name = 'missing, foreign and expired sessions cannot be told apart'

/** It holds times against each other, which another process on the machine can upset: see index.js. */
export const comparesTimes = true

/** What is another in each answer: times, counts, and the request's id. */
const varying = ['date', 'x-request-id', 'ratelimit-remaining', 'ratelimit-reset']

/**
 * Reads and uses sessions that never existed, are another key's, and have expired, one request at a time and in random
 * order: the answers must be equal to the byte, and so must the medians of the time they take, within 5 %.
 */
export function run ({ short, seed, pooler }) {
  return withCleanup(async defer => {
    const rounds = short ? 1000 : 10_000
    const random = createRandom(seed)
    const postgres = await startPostgres(defer, { pooler })
    const ask = createClient(defer, { connections: 1 })
    // One that does not sweep: expired ones that were would be missing ones.
    const { origin } = await startInstance(defer, postgres.connectionString, { SWEEP_INTERVAL_MS: '0', ...postgres.variables }, 'test/faults/sweeping-instance.js')
    const mine = await createKey(ask, origin)
    const other = await createKey(ask, origin)
    const create = async ({ key }) => (await ask(origin, 'POST', '/v1/sessions', { key, body: { defaults: { chain: 'near' }, ttlSeconds: 86_400 } })).body.data.sessionId
    const kinds = {
      missing: async () => `sess_${Buffer.from(Array.from({ length: 32 }, () => Math.floor(random() * 256))).toString('hex')}`,
      foreign: () => create(other),
      expired: () => create(mine)
    }
    const ids = Object.fromEntries(await Promise.all(Object.entries(kinds).map(async ([kind, make]) => [kind, await Promise.all(Array.from({ length: 50 }, make))])))
    const bytes = ids.expired.map(id => Buffer.from(id.slice(5), 'hex'))
    await query(postgres.connectionString, 'update sipher_sessions.sessions set created_at = created_at - interval \'2 hours\', last_accessed_at = now() - interval \'1 hour\', expires_at = now() - interval \'1 hour\' where id = any ($1::bytea[])', [bytes])

    const requests = {
      GET: id => ask(origin, 'GET', `/v1/sessions/${id}`, { key: mine.key }),
      'X-Session-Id': id => ask(origin, 'POST', '/v1/resolve', { key: mine.key, body: {}, headers: { 'x-session-id': id } })
    }
    let different = 0
    const found = []
    const worst = {}
    for (const [how, send] of Object.entries(requests)) {
      const times = { missing: [], foreign: [], expired: [] }
      let expected
      const warmUp = rounds / 5
      for (let round = -warmUp; round < rounds; round++) {
        for (const kind of shuffle(Object.keys(times), random)) {
          const id = ids[kind][Math.floor(random() * 50)]
          const began = performance.now()
          const { status, headers, body } = await send(id)
          if (round >= 0) times[kind].push(performance.now() - began)
          const answer = JSON.stringify([status, body, Object.entries(headers).filter(([name]) => !varying.includes(name))])
          expected ??= answer
          if (answer !== expected || status !== 404) different++
        }
      }
      const medians = Object.entries(times).map(([kind, list]) => [kind, quantile(list, 0.5)])
      const values = medians.map(([, median]) => median)
      worst[how] = Math.max(...values) / Math.min(...values)
      found.push(`${how}: ${medians.map(([kind, median]) => `${kind} ${Math.round(median * 1000)} µs`).join(', ')} (${((worst[how] - 1) * 100).toFixed(1)} % apart)`)
    }
    return {
      did: `${rounds} of each, medians: ${found.join('; ')}; ${different} answers differ`,
      passed: different === 0 && Object.values(worst).every(ratio => ratio <= 1.05)
    }
  })
}

function shuffle (list, random) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]]
  }
  return list
}
