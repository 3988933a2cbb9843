import { setTimeout as sleep } from 'node:timers/promises'
import { randomBytes } from 'node:crypto'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createConnections } from '../src/connections.js'
import { createDatabase, createPool } from './helpers.js'

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
  const { acquire, release } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const others = [acquire(performance.now()), acquire(performance.now())]
  release(first, false)
  t.equal(await others[0], first, 'the longest first')
  release(first, false)
  t.equal(await others[1], first)
  t.equal(pool.totalCount, 3)

  makeOthers()
  while (pool.idleCount < 2) await sleep(1)
  const another = await acquire(performance.now())
  t.not(another, first, 'those that came too late are there for the next')
  for (const client of [first, another]) release(client, false)
})

t.test('where Postgres has no room for another connection those that there are do', async t => {
  const { pool } = await createLimitedPool(t)
  const { acquire, release } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const others = [acquire(performance.now()), acquire(performance.now())]
  while (pool.totalCount > 1) await sleep(1)
  release(first, false)
  t.equal(await others[0], first)
  release(first, true)
  const { rows } = await (await others[1]!).query('select 1 as one')
  t.strictSame(rows, [{ one: 1 }], 'for one that is broken another is made')
  release(await others[1]!, false)
})

t.test('who waits in vain learns why no more could be made', async t => {
  const { pool, role } = await createLimitedPool(t)
  const { acquire, release } = createConnections(pool, 200)
  const first = await acquire(performance.now())
  await t.rejects(acquire(performance.now()), { message: `no database connection became free within 200 ms, and none more could be made: too many connections for role "${role}"` })
  await t.rejects(acquire(performance.now() - 200), { message: 'no database connection became free within 200 ms' })
  release(first, false)
})

t.test('where no connection is left nobody waits', async t => {
  const { pool, owner, role } = await createLimitedPool(t)
  const { acquire, release } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const second = acquire(performance.now())
  second.catch(() => {})
  while (pool.totalCount > 1) await sleep(1)
  await owner.query(`alter role ${role} nologin`)
  release(first, true)
  const refused = { code: '28000' }
  await t.rejects(acquire(performance.now()), refused)
  await t.rejects(second, refused)
})

t.test('a pool that is ending gives nothing', async t => {
  const pool = new pg.Pool({ connectionString: await createDatabase(t) })
  const { acquire, release } = createConnections(pool, 10_000)
  const first = await acquire(performance.now())
  const ended = pool.end()
  await t.rejects(acquire(performance.now()), { message: 'Cannot use a pool after calling end on the pool' })
  release(first, false)
  await ended
})
