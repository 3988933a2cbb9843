// What the benchmarks of the load have in common: PostgreSQL, servers in processes of their own, requests, and measuring.
//
// Each server is pinned to the first processor and the load to the second. PostgreSQL, with its normal durability, has the
// others; where there are only two it shares the second.
import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbeddedPostgres } from '../dist/embedded-postgres.js'
import { beforeExit, isEnding } from '../scripts/before-exit.js'
import { reserveHugePages } from './huge-pages.js'
import { createClient } from './load-client.js'
import { idsOf, keyCount } from './load-data.js'

/**
 * What an operator gives PostgreSQL: memory for what is stored, rather than 128 MB, and room for the log between two
 * checkpoints, after each of which a page's first change is logged as the whole page. Of durability nothing is taken.
 */
const settings = { shared_buffers: '4GB', max_wal_size: '8GB' }

/**
 * Runs what is given on a new PostgreSQL, and removes it.
 *
 * @param options `small`: with the memory that PostgreSQL takes by itself, where nothing is measured
 */
export async function withPostgres (run, { small = false } = {}) {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-bench-'))
  chmodSync(dataDir, 0o755)
  let postgres = startEmbeddedPostgres({ dataDir })
  let giveBack
  const cleanUp = beforeExit(async () => {
    try {
      // The next may be starting by then.
      for (let stopped; stopped !== postgres;) {
        stopped = postgres
        await (await stopped).stop()
      }
    } finally {
      rmSync(dataDir, { recursive: true, force: true })
      giveBack?.()
    }
  })
  async function restart () {
    await (await postgres).stop()
    postgres = startEmbeddedPostgres({ dataDir })
  }
  async function ask (...statements) {
    const client = new pg.Client({ connectionString: (await postgres).connectionString })
    await client.connect()
    let answer
    for (const statement of statements) answer = await client.query(statement)
    await client.end()
    return Object.values(answer.rows[0] ?? {})[0]
  }
  async function giveMemory () {
    await ask(...Object.entries(settings).map(([name, value]) => `alter system set ${name} = '${value}'`))
    await restart()
    // -1 where this PostgreSQL knows of none.
    const pages = Number(await ask('show shared_memory_size_in_huge_pages'))
    if (pages > 0 && !isEnding()) giveBack = reserveHugePages(pages)
    if (giveBack) await restart()
    else if (!isEnding()) console.error(noHugePages(pages))
  }
  try {
    if (!small) await giveMemory()
    const { connectionString } = await postgres
    const processors = availableParallelism()
    pin(Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0]), processors > 2 ? `2-${processors - 1}` : '1')
    pin(process.pid, '1')
    return await run(connectionString)
  } finally {
    await cleanUp()
  }
}

function noHugePages (pages) {
  const advice = pages > 0 ? `: run this as root where twice as much memory is free, or reserve them (sysctl vm.nr_hugepages=${pages})` : ''
  return `PostgreSQL has no huge pages here, without which writes take longer (docs/performance.md)${advice}.`
}

/** What npm start tells Node. */
const nodeFlags = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).scripts.start.split(' ').filter(word => word.startsWith('--'))

/** A server of a kind that load-host.js knows, on a database, with the flags of npm start. Its log goes to nowhere. */
export async function startServer (kind, databaseUrl) {
  const child = fork(new URL('load-host.js', import.meta.url), [kind], {
    execArgv: nodeFlags,
    env: { ...process.env, NODE_ENV: 'production', DATABASE_URL: databaseUrl },
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc']
  })
  pin(child.pid, '0')
  const [{ origin }] = await once(child, 'message')
  const usage = async () => {
    child.send('usage')
    const [{ cpu, rss }] = await once(child, 'message')
    return { cpu: cpu.user + cpu.system, rss }
  }
  return { kind, origin, databaseUrl, usage, stop: () => child.disconnect() }
}

/**
 * What makes requests: keys and sessions are picked at random of what is stored. Ids and heads are made before anything is
 * measured, for the load shares its processor with PostgreSQL.
 */
export function createRequests (keys, stored, deletable = 0) {
  const [s, d] = [idsOf('s', stored), idsOf('d', deletable)]
  const keyHeaders = keys.map(key => ` HTTP/1.1\r\nhost: localhost\r\nx-api-key: ${key}\r\n`)
  const withBody = body => {
    const text = JSON.stringify(body)
    return `content-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`
  }
  const onSession = (method, ids, n, end) => `${method} /v1/sessions/${ids(n)}${keyHeaders[n % keyCount]}${end}`
  const [use, create, patch] = [{ amount: 5 }, { defaults: { chain: 'near', privacyLevel: 'shielded' } }, { defaults: { chain: 'sui' } }].map(withBody)
  let deleted = 0
  return {
    use: () => {
      const n = random(stored)
      return `POST /transfer${keyHeaders[n % keyCount]}x-session-id: ${s(n)}\r\n${use}`
    },
    create: () => `POST /v1/sessions${keyHeaders[random(keyCount)]}${create}`,
    get: () => onSession('GET', s, random(stored), '\r\n'),
    patch: () => onSession('PATCH', s, random(stored), patch),
    // A session can be deleted once; who has none to delete gets any.
    delete: kind => {
      if (kind !== 'bare' && deleted === deletable) throw new Error(`All of ${deletable} sessions are deleted; seed more`)
      return onSession('DELETE', d, kind === 'bare' ? random(deletable) : deleted++, '\r\n')
    }
  }
}

/**
 * Sends a server requests for a time, and answers how many it has served a second, and per request: the time that half and
 * 99 of 100 took at most, in milliseconds, and processor time of its process, in microseconds.
 */
async function measure (server, client, make, seconds) {
  const before = await server.usage()
  const began = performance.now()
  const times = await client.run(() => make(server.kind), seconds * 1000)
  const elapsed = (performance.now() - began) / 1000
  const after = await server.usage()
  times.sort((a, b) => a - b)
  return {
    rate: times.length / elapsed,
    p50: times[Math.floor(times.length * 0.5)],
    p99: times[Math.floor(times.length * 0.99)],
    cpu: (after.cpu - before.cpu) / times.length
  }
}

/**
 * Sends a server requests until it is warm: on eight connections at least, for with fewer of them V8 takes longer to see what
 * is worth compiling. More would be too many for one that has just started, and sends each statement by itself.
 */
async function warm (server, make, seconds, connections) {
  for (const [number, milliseconds] of [[connections, 500], [Math.max(connections, 8), seconds * 1000]]) {
    const client = await createClient(server.origin, number)
    try {
      await client.run(() => make(server.kind), milliseconds)
    } finally {
      client.close()
    }
  }
}

/** How many statements a server sends for each request. */
async function countStatements (server, client, make) {
  const database = new pg.Client({ connectionString: server.databaseUrl })
  await database.connect()
  const statements = async () => {
    // PostgreSQL's counts are written about once a second.
    await new Promise(resolve => setTimeout(resolve, 1100))
    return Number((await database.query('select xact_commit from pg_stat_database where datname = current_database()')).rows[0].xact_commit)
  }
  try {
    const before = await statements()
    const { length } = await client.run(() => make(server.kind), 1000)
    return (await statements() - before) / length
  } finally {
    await database.end()
  }
}

/**
 * Measures two servers in turn, several rounds; what counts is the ratio of their rates in each round, for what slows the
 * machine down slows both. Both are started anew several times: of two processes that run the same code one may be a tenth
 * faster than the other for as long as they live. Each is the first every other time, for the one that is started and warm
 * first is the slower of two that are alike, by some 3 %.
 *
 * @param start two functions, each of which starts one of the servers
 * @param makers what makes the requests of each server, in their order
 * @param options `connections`, `starts`, an even number, `rounds` after each, `seconds` of a round, and `warmUp`, in seconds as well
 * @returns the median of the ratios, the least and the largest, and the medians of what was measured of each server
 */
export async function compare (start, makers, { connections, starts, rounds, seconds, warmUp }) {
  const samples = [[], []]
  const statements = []
  for (let n = 0; n < starts; n++) {
    const servers = []
    const clients = []
    try {
      for (const i of inTurn(n)) {
        servers[i] = await start[i]()
        await warm(servers[i], makers[i], warmUp, connections)
      }
      // Not before they are used: a server closes connections that bring no request.
      for (const i of [0, 1]) {
        clients[i] = await createClient(servers[i].origin, connections)
        if (n === 0) statements[i] = await countStatements(servers[i], clients[i], makers[i])
      }
      for (let round = 0; round < rounds; round++) {
        for (const i of inTurn(n + round)) samples[i].push(await measure(servers[i], clients[i], makers[i], seconds))
      }
    } finally {
      // Not all are there where one did not start.
      for (const client of clients) client?.close()
      for (const server of servers) server?.stop()
    }
  }
  const ratios = samples[0].map(({ rate }, i) => rate / samples[1][i].rate)
  const [first, second] = samples.map((all, i) => ({
    ...Object.fromEntries(Object.keys(all[0]).map(key => [key, median(all.map(sample => sample[key]))])),
    statements: statements[i]
  }))
  return { ratio: median(ratios), lowest: Math.min(...ratios), highest: Math.max(...ratios), first, second }
}

/** The numbers of two servers, each first in every other turn. */
function inTurn (n) {
  return n % 2 === 0 ? [0, 1] : [1, 0]
}

export function median (values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
}

/** On Linux with util-linux; elsewhere the system chooses. */
function pin (pid, processors) {
  spawnSync('taskset', ['-a', '-c', '-p', processors, String(pid)])
}

function random (limit) {
  return Math.floor(Math.random() * limit)
}
