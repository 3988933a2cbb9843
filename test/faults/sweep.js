import { createClient, createKey, quantile, query, sleep, startInstance, startPostgres, waitUntil, withCleanup } from './harness.js'

export const name = 'expired sessions swept by 3 instances under load'

/** It holds times against each other, which another process on the machine can upset: see index.js. */
export const comparesTimes = true

/** Uses a second over the three instances: what two cores can do beside PostgreSQL and this process. */
const perSecond = 150

/**
 * Rows are put in by SQL that all expire within one second, and three instances find them by their own sweeps, while
 * sessions are used. The use is measured with all the rows there and none expired, while they go, and after they have gone;
 * what it was while they went is held against the other two together, so that a machine whose pace changes counts less.
 */
export function run ({ short, pooler }) {
  return withCleanup(async defer => {
    const rows = short ? 50_000 : 1_000_000
    const quietMs = short ? 6_000 : 30_000
    const postgres = await startPostgres(defer, { pooler })
    const ask = createClient(defer)
    const ofDatabase = async column => Number((await query(postgres.connectionString, `select ${column} as value from pg_stat_database where datname = current_database()`))[0].value)
    // As PostgreSQL counts them; counting the rows would be a load of its own.
    const deleted = async () => Number((await query(postgres.connectionString, 'select n_tup_del as value from pg_stat_user_tables where relname = \'sessions\''))[0].value)
    const origins = []
    for (let i = 0; i < 3; i++) origins.push((await startInstance(defer, postgres.connectionString, { SWEEP_INTERVAL_MS: short ? '2000' : '5000', ...postgres.variables }, 'test/faults/sweeping-instance.js')).origin)
    const { key, id } = await createKey(ask, origins[0])
    const { body: { data: { sessionId } } } = await ask(origins[0], 'POST', '/v1/sessions', { key, body: { defaults: { chain: 'near' }, ttlSeconds: 86_400 } })

    // The ids are in the order of time, as the service's are. They expire when all are there and the first measuring is over.
    const expireAt = Date.now() + (short ? 5_000 : 120_000) + quietMs
    await query(postgres.connectionString, `
      insert into sipher_sessions.sessions (id, owner_id, defaults, created_at, expires_at, last_accessed_at)
      select decode(lpad(to_hex(n), 12, '0'), 'hex') || substr(sha256(n::text::bytea), 1, 26), $2, '{"chain": "near", "privacyLevel": "shielded"}', now() - interval '2 hours', to_timestamp($3::float8 / 1000) + n * interval '1 second' / $1::int, now() - interval '2 hours'
      from generate_series(1, $1::int) n`, [rows, id, expireAt])
    await query(postgres.connectionString, 'vacuum analyze sipher_sessions.sessions')
    await query(postgres.connectionString, 'checkpoint')
    const deadlocks = await ofDatabase('deadlocks')

    let times = []
    let failed = 0
    const load = { ended: false }
    const running = (async () => {
      const began = performance.now()
      const sent = []
      for (let i = 0; !load.ended; i++) {
        const waitMs = began + i / perSecond * 1000 - performance.now()
        if (waitMs > 1) await sleep(waitMs)
        const measured = times
        const due = performance.now()
        sent.push(ask(origins[i % 3], 'POST', '/v1/resolve', { key, body: {}, headers: { 'x-session-id': sessionId } }).then(({ status }) => {
          measured.push(performance.now() - due)
          if (status !== 200) failed++
        }))
      }
      await Promise.all(sent)
    })()
    const measure = async wait => {
      times = []
      await wait()
      return times
    }
    try {
      await sleep(1000)
      const spareMs = expireAt - Date.now() - quietMs
      if (spareMs < 0) throw new Error('putting in the rows took too long for what was to be measured before they expire')
      await sleep(spareMs)
      const before = await measure(() => sleep(quietMs - 500))
      const deletedBefore = await deleted()
      await waitUntil('a sweep has begun', async () => await sleep(250) ?? await deleted() > deletedBefore)
      const began = performance.now()
      const during = await measure(() => waitUntil('all are gone', async () => await sleep(500) ?? await deleted() >= deletedBefore + rows, { timeoutMs: 300_000 }))
      const took = (performance.now() - began) / 1000
      const [{ count: left }] = await query(postgres.connectionString, 'select count(*)::int as count from sipher_sessions.sessions where expires_at <= now()')
      const after = await measure(() => sleep(quietMs))
      const newDeadlocks = await ofDatabase('deadlocks') - deadlocks
      const [quiet, busy] = [[...before, ...after], during].map(list => ({ median: quantile(list, 0.5), p99: quantile(list, 0.99), count: list.length }))
      const ratio = busy.p99 / quiet.p99
      const tell = ({ median, p99, count }) => `median ${median.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${count}`
      return {
        did: `${rows} rows gone ${took.toFixed(1)} s after the first, ${left} left; use while they went: ${tell(busy)}; without: ${tell(quiet)}; p99 ${ratio.toFixed(2)} times; ${newDeadlocks} deadlocks, ${failed} failed uses`,
        passed: left === 0 && ratio <= 1.5 && newDeadlocks === 0 && failed === 0
      }
    } finally {
      load.ended = true
      await running
    }
  })
}
