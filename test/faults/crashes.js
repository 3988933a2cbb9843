import { createClient, createKey, createRandom, query, startInstance, startPostgres, waitUntil, withCleanup } from './harness.js'

const chains = ['solana', 'ethereum', 'polygon', 'arbitrum', 'optimism', 'base', 'near', 'aptos', 'sui']
const levels = ['standard', 'shielded', 'maximum']

/** How many sessions more are counted than there are. */
const miscountedText = `select (
    (select coalesce(sum(sessions), 0) from sipher_sessions.session_counts)
    - (select coalesce(sum(cardinality(owner_ids)), 0) from sipher_sessions.session_removals)
    - (select count(*) from sipher_sessions.sessions)
  )::int as difference`

export const name = 'kill -9 of the service, and immediate stop of PostgreSQL, during create, patch and delete'

/**
 * Eight clients create, patch and delete sessions, and note what was acknowledged. In the middle of it the service is
 * killed, or PostgreSQL stopped as by a power cut; after the restart all that was acknowledged must be there. Each
 * patch sets two values that belong together, so that half of one would show, and the sessions that are counted must be
 * those that there are.
 */
export function run ({ short, seed, pooler }) {
  return withCleanup(async defer => {
    const rounds = short ? 6 : 200
    const random = createRandom(seed)
    const postgres = await startPostgres(defer, { pooler })
    const ask = createClient(defer)
    let instance = await startInstance(defer, postgres.connectionString, postgres.variables)
    const { key } = await createKey(ask, instance.origin)
    let acknowledged = 0
    let lost = 0
    let halfApplied = 0

    for (let round = 0; round < rounds; round++) {
      /** By session: what it holds for sure, and what an unanswered request may have made of it (null: deleted). */
      const sessions = new Map()
      const load = { ended: false }
      const client = async () => {
        const own = []
        while (!load.ended) {
          const chance = random()
          const pick = own[Math.floor(random() * own.length)]
          const number = Math.floor(random() * chains.length)
          const values = { chain: chains[number], privacyLevel: levels[number % 3] }
          if (pick === undefined || chance < 0.4) {
            const { status, body } = await ask(instance.origin, 'POST', '/v1/sessions', { key, body: { defaults: values } })
            if (status !== 201) continue
            acknowledged++
            own.push(body.data.sessionId)
            sessions.set(body.data.sessionId, { certain: values, possible: undefined })
          } else {
            const state = sessions.get(pick)
            const remove = chance > 0.85
            state.possible = remove ? null : values
            const { status } = await ask(instance.origin, remove ? 'DELETE' : 'PATCH', `/v1/sessions/${pick}`, { key, ...(!remove && { body: { defaults: values } }) })
            if (remove || status !== 200) own.splice(own.indexOf(pick), 1)
            if (status !== 200) continue
            acknowledged++
            state.certain = state.possible
            state.possible = undefined
          }
        }
      }
      const clients = Array.from({ length: 8 }, client)
      const goal = acknowledged + 20 + Math.floor(random() * 80)
      await waitUntil('clients were answered', () => acknowledged >= goal)

      if (pooler || round % 2 === 0) {
        await instance.stop('SIGKILL')
        load.ended = true
        await Promise.all(clients)
        instance = await startInstance(defer, postgres.connectionString, postgres.variables)
      } else {
        await postgres.stopImmediately()
        load.ended = true
        await Promise.all(clients)
        await postgres.start()
        await waitUntil('the service is ready again', async () => (await ask(instance.origin, 'GET', '/v1/ready')).status === 200)
      }

      const rows = await query(postgres.connectionString, 'select encode(id, \'hex\') as id, defaults from sipher_sessions.sessions where id = any ($1::bytea[])',
        [[...sessions.keys()].map(id => Buffer.from(id.slice(5), 'hex'))])
      const stored = new Map(rows.map(({ id, defaults }) => [`sess_${id}`, defaults]))
      for (const [id, { certain, possible }] of sessions) {
        const found = stored.get(id) ?? null
        if (found && levels[chains.indexOf(found.chain) % 3] !== found.privacyLevel) halfApplied++
        else if (!isSame(found, certain) && (possible === undefined || !isSame(found, possible))) lost++
      }
      const [{ difference }] = await query(postgres.connectionString, miscountedText)
      halfApplied += Math.abs(difference)
    }
    return { did: `${rounds} crashes, ${acknowledged} acknowledged writes: ${lost} lost, ${halfApplied} half applied`, passed: lost + halfApplied === 0 }
  })
}

function isSame (found, expected) {
  return found === null || expected === null ? found === expected : found.chain === expected.chain && found.privacyLevel === expected.privacyLevel
}
