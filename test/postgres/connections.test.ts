import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createConnections } from '../../src/postgres/connections.js'
import { isDatabaseError } from '../../src/postgres/database-error.js'
import { createDatabase, createPool, createProxy } from '../helpers.js'

/** A pool as a user of whom Postgres takes one connection alone. */
async function createLimitedPool (t: Test) {
  const connectionString = await createDatabase(t)
  const owner = createPool(t, connectionString)
  const role = `limited_${randomBytes(8).toString('hex')}`
  await owner.query(`create role ${role} login connection limit 1`)
  t.teardown(() => owner.query(`drop role ${role}`))
  return { owner, role, pool: createPool(t, connectionString.replace(/\/\/[^@]*@/, `//${role}@`)) }
}

t.test('who waits for a connection that is being made takes one that becomes free before', async t => {
  let makeOthers!: () => void
  const made = new Promise<void>(resolve => { makeOthers = resolve })
  let making = 0
  const pool = createPool(t, await createDatabase(t), { max: 3, onConnect: async () => { if (making++ > 0) await made } })
  const { acquire } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const others = [acquire(performance.now()), acquire(performance.now())]
  first.release()
  t.equal(await others[0], first, 'the longest first')
  first.release()
  t.equal(await others[1], first)
  t.equal(pool.totalCount, 3)

  makeOthers()
  while (pool.idleCount < 2) await sleep(1)
  const another = await acquire(performance.now())
  t.not(another, first, 'those that came too late are there for the next')
  for (const client of [first, another]) client.release()
})

t.test('where Postgres has no room for another connection those that there are do', async t => {
  const { pool } = await createLimitedPool(t)
  const { acquire } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const others = [acquire(performance.now()), acquire(performance.now())]
  while (pool.totalCount > 1) await sleep(1)
  first.release()
  t.equal(await others[0], first)
  first.release()
  t.equal(await others[1], first)
  first.release()
})

t.test('what others give back to the pool is there as well', async t => {
  const { pool } = await createLimitedPool(t)
  const { acquire, close } = createConnections(pool, 10_000)
  t.teardown(close)
  const others = await pool.connect()
  const waiting = acquire(performance.now())
  while (pool.totalCount > 1) await sleep(1)
  others.release()
  t.equal(await waiting, others)
  others.release()
})

t.test('for one that breaks another is made', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1 })
  const { acquire } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const waiting = acquire(performance.now())
  first.release(true)
  const other = await waiting
  t.not(other, first)
  other.release()
})

t.test('those who gave up leave nothing in the queue of the pool but what others take', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1 })
  const { acquire } = createConnections(pool, 100)
  const busy = await pool.connect()
  for (let round = 0; round < 3; round++) {
    for (const { status } of await Promise.allSettled(Array.from({ length: 20 }, () => acquire(performance.now())))) t.equal(status, 'rejected')
    t.equal(pool.waitingCount, 20)
  }
  const waiting = acquire(performance.now())
  t.equal(pool.waitingCount, 20)
  busy.release()
  t.equal(await waiting, busy)
  busy.release()
})

t.test('a limit of the pool\'s own ends no wait but that of who asked, and who waits by what another has left learns of it', async t => {
  const pool = createPool(t, await createDatabase(t), { max: 1, connectionTimeoutMillis: 300 })
  const { acquire } = createConnections(pool, 200)
  const busy = await pool.connect()
  await t.rejects(acquire(performance.now()), { message: 'no database connection became free within 200 ms' })
  await t.rejects(acquire(performance.now()), { message: /^no database connection became free within 200 ms, and none more could be made: timeout exceeded when trying to connect$/ })
  const { acquire: acquireLater } = createConnections(pool, 10_000)
  await t.rejects(acquireLater(performance.now()), { message: /^timeout exceeded when trying to connect$/ })
  busy.release()
})

t.test('while connections hang that are being made, who waits is served by those that there are', async t => {
  const proxy = await createProxy(t, await createDatabase(t))
  const pool = createPool(t, proxy.connectionString, { max: 2, connectionTimeoutMillis: 300 })
  const { acquire } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  proxy.hang()
  const others = [acquire(performance.now()), acquire(performance.now())]
  first.release()
  t.equal(await others[0], first)
  while (pool.totalCount > 1) await sleep(1)
  first.release()
  t.equal(await others[1], first)
  first.release()
})

t.test('who waits in vain learns why no more could be made', async t => {
  const { pool, role } = await createLimitedPool(t)
  const { acquire } = createConnections(pool, 200)
  const first = await acquire(performance.now())
  await t.rejects(acquire(performance.now()), { message: `no database connection became free within 200 ms, and none more could be made: too many connections for role "${role}"` })
  await t.rejects(acquire(performance.now() - 200), { message: 'no database connection became free within 200 ms' })
  first.release()
})

t.test('where no connection is left nobody waits', async t => {
  const { pool, owner, role } = await createLimitedPool(t)
  const { acquire } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const second = acquire(performance.now())
  second.catch(() => {})
  while (pool.totalCount > 1) await sleep(1)
  await owner.query(`alter role ${role} nologin`)
  first.release(true)
  const refused = { code: '28000' }
  await t.rejects(acquire(performance.now()), refused)
  await t.rejects(second, refused)
})

t.test('an error of another copy of the driver is told from a connection that cannot be had', async t => {
  t.ok(isDatabaseError(Object.assign(new Error('too many connections'), { severity: 'FATAL', code: '53300' })))
  t.notOk(isDatabaseError(Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })))
})

t.test('a pool that is ending gives nothing', async t => {
  const pool = new pg.Pool({ connectionString: await createDatabase(t) }).on('error', () => {})
  const { acquire } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const ended = pool.end()
  await t.rejects(acquire(performance.now()), { message: 'Cannot use a pool after calling end on the pool' })
  first.release()
  await ended
})
