// How fast the service is, against a bare Fastify and against the obvious way, on the machine at hand.
//
// Each server is a process pinned to the first processor; PostgreSQL, with its normal durability, and the load share the
// second. All run in turn, several rounds; every figure is a median, and what counts is the ratio of two servers in the
// same call. Keys and sessions are picked at random of what is stored.
import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { Pool } from 'undici'
import { startEmbeddedPostgres } from '../dist/embedded-postgres.js'
import { migrate } from '../dist/migrate.js'
import { keyCount, seed, sessionOf } from './load-data.js'

const goals = [
  { path: 'use', against: 'bare', goal: 0.60 },
  { path: 'use', against: 'naive', goal: 5 },
  { path: 'create', against: 'bare', goal: 0.60 },
  { path: 'get', against: 'bare', goal: 0.55 },
  { path: 'patch', against: 'bare', goal: 0.55 },
  { path: 'delete', against: 'bare', goal: 0.55 },
  { path: 'use', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'create', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'get', against: 'unbatched', goal: 0.95, connections: 1 },
  { path: 'patch', against: 'unbatched', goal: 0.95, connections: 1 }
]

export async function run ({ short, json }) {
  const rounds = 3
  const seconds = short ? 1 : 4
  const stored = short ? 20_000 : 100_000
  const deletable = short ? 60_000 : 200_000
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-bench-'))
  chmodSync(dataDir, 0o755)
  const postgres = await startEmbeddedPostgres({ dataDir })
  try {
    pin(Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0]), 1)
    pin(process.pid, 1)
    const pool = new pg.Pool({ connectionString: postgres.connectionString, max: 1 })
    // When a measurement fails PostgreSQL is stopped under it.
    pool.on('error', () => {})
    await migrate(pool)
    const keys = await seed(postgres.connectionString, { s: stored, d: deletable })
    let deleted = 0
    const requests = {
      use: () => request('POST', '/transfer', keys, sessionOf('s', random(stored)), { amount: 5 }, true),
      create: () => request('POST', '/v1/sessions', keys, { key: random(keyCount) }, { defaults: { chain: 'near', privacyLevel: 'shielded' } }),
      get: () => { const session = sessionOf('s', random(stored)); return request('GET', `/v1/sessions/${session.id}`, keys, session) },
      patch: () => { const session = sessionOf('s', random(stored)); return request('PATCH', `/v1/sessions/${session.id}`, keys, session, { defaults: { chain: 'sui' } }) },
      // A session can be deleted once; who has none to delete gets any.
      delete: kind => { const session = sessionOf('d', kind === 'bare' ? random(deletable) : deleted++); return request('DELETE', `/v1/sessions/${session.id}`, keys, session) }
    }

    const results = []
    for (const { path, against, goal, connections = 64 } of goals) {
      const samples = { service: [], [against]: [] }
      const servers = Object.fromEntries(await Promise.all(Object.keys(samples).map(async kind => [kind, await start(kind, postgres.connectionString)])))
      try {
        for (const kind of Object.keys(samples)) await measure(servers[kind], requests[path], connections, short ? 0.5 : 2, pool)
        for (let round = 0; round < rounds; round++) {
          for (const kind of round % 2 === 0 ? ['service', against] : [against, 'service']) samples[kind].push(await measure(servers[kind], requests[path], connections, seconds, pool))
        }
      } finally {
        for (const server of Object.values(servers)) server.child.disconnect()
      }
      const ratio = median(samples.service.map(({ rate }, i) => rate / samples[against][i].rate))
      const of = (kind, key) => median(samples[kind].map(sample => sample[key]))
      results.push({ path, against, connections, goal, ratio, ...Object.fromEntries(['rate', 'p50', 'p99', 'cpu', 'statements'].flatMap(key => [[key, of('service', key)], [`${against === 'unbatched' ? 'unbatched' : against}.${key}`, of(against, key)]])) })
      if (!json) printRow(results.at(-1), results.length === 1)
    }
    await pool.end()
    if (json) console.log(JSON.stringify(results))
    return 0
  } finally {
    await postgres.stop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

function request (method, path, keys, { id, key }, body, named = false) {
  return {
    method,
    path,
    headers: { 'x-api-key': keys[key], ...(named && { 'x-session-id': id }), ...(body && { 'content-type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) })
  }
}

async function start (kind, databaseUrl) {
  const child = fork(new URL('load-host.js', import.meta.url), [kind], { env: { ...process.env, NODE_ENV: 'production', DATABASE_URL: databaseUrl } })
  pin(child.pid, 0)
  const [{ origin }] = await once(child, 'message')
  return { kind, child, origin }
}

async function measure ({ kind, child, origin }, make, connections, seconds, pool) {
  const client = new Pool(origin, { connections, pipelining: 1 })
  const times = []
  const usage = async () => { child.send('usage'); return (await once(child, 'message'))[0] }
  const statements = async () => Number((await pool.query('select xact_commit from pg_stat_database where datname = current_database()')).rows[0].xact_commit)
  const [before, commits] = [await usage(), await statements()]
  const began = performance.now()
  const until = began + seconds * 1000
  await Promise.all(Array.from({ length: connections }, async () => {
    while (performance.now() < until) {
      const asked = performance.now()
      const { statusCode, body } = await client.request(make(kind))
      await body.dump()
      times.push(performance.now() - asked)
      if (statusCode > 299) throw new Error(`A request was answered ${statusCode}`)
    }
  }))
  const elapsed = (performance.now() - began) / 1000
  const after = await usage()
  // The server's statistics are written about once a second.
  await new Promise(resolve => setTimeout(resolve, 1100))
  const sent = await statements() - commits
  await client.close()
  times.sort((a, b) => a - b)
  return {
    rate: times.length / elapsed,
    p50: times[Math.floor(times.length * 0.5)],
    p99: times[Math.floor(times.length * 0.99)],
    cpu: (after.cpu.user + after.cpu.system - before.cpu.user - before.cpu.system) / times.length,
    statements: sent / times.length
  }
}

function printRow ({ path, against, connections, goal, ratio, ...figures }, first) {
  if (first) console.log('path    against    conns  ratio  goal   requests/s        p50 ms       p99 ms       µs of CPU    statements a request')
  const pair = key => `${figures[key].toFixed(key === 'rate' || key === 'cpu' ? 0 : 2)} / ${figures[`${against}.${key}`].toFixed(key === 'rate' || key === 'cpu' ? 0 : 2)}`
  console.log(`${path.padEnd(8)}${against.padEnd(11)}${String(connections).padEnd(7)}${ratio.toFixed(2).padEnd(7)}${goal.toFixed(2).padEnd(7)}${pair('rate').padEnd(18)}${pair('p50').padEnd(13)}${pair('p99').padEnd(13)}${pair('cpu').padEnd(13)}${pair('statements')}`)
}

/** On Linux with util-linux; elsewhere the system chooses. */
function pin (pid, processor) {
  spawnSync('taskset', ['-a', '-c', '-p', String(processor), String(pid)])
}

function random (limit) {
  return Math.floor(Math.random() * limit)
}

function median (values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
}
