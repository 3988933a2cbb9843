import { createClient, createKey, createRandom, query, sleep, startInstance, startPostgres, startSlowProxy, waitUntil, withCleanup } from './harness.js'

export const name = 'PostgreSQL stopped, then slow by 2 s, under load'

const defaults = { chain: 'near', privacyLevel: 'shielded' }

/**
 * 32 clients use, create and read sessions, and two more ask how the service is. Every answer is held against what the
 * database was like when its request was sent; of what was sent while that changed only the form of the answer is.
 */
export function run ({ short, seed, pooler }) {
  return withCleanup(async defer => {
    const random = createRandom(seed)
    const postgres = await startPostgres(defer, { pooler })
    const proxy = await startSlowProxy(defer, postgres.connectionString)
    const ask = createClient(defer)
    const probe = createClient(defer)
    const instance = await startInstance(defer, proxy.connectionString, postgres.variables)
    let exited = false
    instance.exited.then(() => { exited = true })
    const { key } = await createKey(ask, instance.origin)
    const { body: { data: { sessionId } } } = await ask(instance.origin, 'POST', '/v1/sessions', { key, body: { defaults, ttlSeconds: 86_400 } })

    /** 'up', 'down', or 'between': while it changes, and for the 5 s after the database is back. */
    let state = 'up'
    const load = { ended: false }
    const counts = { up: 0, down: 0, between: 0 }
    const problems = []
    let slowest = 0
    let recoveredMs = 0
    let back
    const report = problem => { if (problems.length < 10) problems.push(problem) }

    const client = async () => {
      while (!load.ended) {
        await sleep(20 + random() * 40)
        const chance = random()
        const sent = { state, time: performance.now() }
        const use = chance < 0.5
        const answer = use
          ? await ask(instance.origin, 'POST', '/v1/resolve?properties=chain,privacyLevel', { key, body: {}, headers: { 'x-session-id': sessionId } })
          : chance < 0.75
            ? await ask(instance.origin, 'POST', '/v1/sessions', { key, body: { defaults } })
            : await ask(instance.origin, 'GET', `/v1/sessions/${sessionId}`, { key })
        const tookMs = performance.now() - sent.time
        const steady = sent.state === state ? state : 'between'
        counts[steady]++
        slowest = Math.max(slowest, tookMs)
        const what = `${use ? 'use' : chance < 0.75 ? 'create' : 'get'}, sent while ${sent.state}, answered ${answer.status} while ${state} after ${Math.round(tookMs)} ms`
        if (tookMs > 1000) report(`${what}: too late`)
        if (answer.status === 503) {
          if (!(Number(answer.headers['retry-after']) > 0)) report(`${what}: without Retry-After`)
          if (steady === 'up') report(what)
          if (back) recoveredMs = Math.max(recoveredMs, performance.now() - back)
        } else if (answer.status === 200 || answer.status === 201) {
          if (steady === 'down') report(what)
          const got = use ? answer.body.data.body : answer.body.data.defaults
          if (got.chain !== defaults.chain || got.privacyLevel !== defaults.privacyLevel) report(`${what}: without its defaults`)
        } else {
          report(`${what} ${answer.error ?? JSON.stringify(answer.body)}`)
        }
      }
    }
    const watchHealth = async () => {
      while (!load.ended) {
        const { status } = await probe(instance.origin, 'GET', '/v1/health')
        if (status !== 200) report(`/v1/health answered ${status}`)
        await sleep(100)
      }
    }
    const readyTells = []
    /** How long /v1/ready takes to say it. */
    const toldReady = async status => {
      const began = performance.now()
      await waitUntil(`/v1/ready says ${status}`, async () => (await probe(instance.origin, 'GET', '/v1/ready')).status === status)
      const tookMs = Math.round(performance.now() - began)
      readyTells.push(`${tookMs} ms`)
      if (tookMs > 2000) report(`/v1/ready said ${status} only after ${tookMs} ms`)
    }
    const running = Promise.all([...Array.from({ length: 32 }, client), watchHealth()])
    const phase = async (ms) => {
      await sleep(ms)
      if (exited) throw new Error('the service ended')
    }
    const recovered = async () => {
      back = performance.now()
      await toldReady(200)
      await sleep(5000 - (performance.now() - back))
      back = undefined
      state = 'up'
    }
    try {
      await phase(1000)
      state = 'between'
      await postgres.stop()
      state = 'down'
      await toldReady(503)
      await phase(short ? 4000 : 30_000)
      state = 'between'
      await postgres.start()
      await recovered()
      await phase(1000)

      state = 'between'
      proxy.delay(2000)
      // What is on its way already is not late.
      await sleep(100)
      state = 'down'
      await toldReady(503)
      await phase(short ? 4000 : 30_000)
      state = 'between'
      proxy.delay(0)
      await recovered()
      await phase(1000)
    } finally {
      load.ended = true
      await running
    }
    await sleep(200)
    const [{ count }] = await query(postgres.connectionString, 'select count(*)::int as count from pg_stat_activity where application_name = \'sipher-sessions\'')
    if (count > 10) report(`${count} connections are open, which is more than the pool has`)
    return {
      did: `${counts.up} requests while it was up, ${counts.down} while it was not, ${counts.between} between: slowest answer ${Math.round(slowest)} ms, /v1/ready told each change within ${readyTells.join(', ')}, ` +
        `the last 503 ${Math.round(recoveredMs)} ms after it was back, ${count} connections left${problems.map(problem => `\n  ${problem}`).join('')}`,
      passed: problems.length === 0
    }
  })
}
