import t from 'tap'
import { createBatch, type BatchOptions } from '../src/batch.js'

/** A batch whose every run waits until it is let go, and a list of what was run. */
function startGated (options: BatchOptions = {}) {
  const runs: { items: string[], finish: (error?: Error) => void }[] = []
  const load = createBatch<string, string>(items => new Promise((resolve, reject) => {
    runs.push({ items, finish: error => error ? reject(error) : resolve(items.map(item => item.toUpperCase())) })
  }), options)
  const run = async (number: number) => {
    while (runs.length < number) await turn()
    return runs[number - 1]!
  }
  return { runs, run, load }
}

const turn = () => new Promise(resolve => setImmediate(resolve))

t.test('what is asked for in one turn of the event loop is one batch, each with its own result', async t => {
  const { runs, load } = startGated()
  const results = ['a', 'b', 'c'].map(load)
  t.equal(runs.length, 0)
  await turn()
  t.strictSame(runs.map(({ items }) => items), [['a', 'b', 'c']])
  runs[0]!.finish()
  t.strictSame(await Promise.all(results), ['A', 'B', 'C'])
})

t.test('nothing is kept: what is asked for again is done again', async t => {
  let count = 0
  const load = createBatch<string, number>(async items => items.map(() => ++count))
  t.strictSame([await load('a'), await load('a'), ...await Promise.all([load('a'), load('a')])], [1, 2, 3, 4])
})

t.test('so many items that it is worth it are sent without waiting for the turn to end', async t => {
  const { runs, load } = startGated({ eagerSize: 3, patienceMs: 60_000 })
  const results = ['a', 'b', 'c', 'd'].map(load)
  t.strictSame(runs.map(({ items }) => items), [['a', 'b', 'c']])
  results.push(load('e'), load('f'), load('g'))
  await turn()
  t.equal(runs.length, 1, 'but not beside a batch that has just begun')
  runs[0]!.finish()
  t.equal(await results[0], 'A')
  t.strictSame(runs.slice(1).map(({ items }) => items), [['d', 'e', 'f', 'g']], 'the next has begun before the results are given out')
  runs[1]!.finish()
  t.strictSame(await Promise.all(results), ['A', 'B', 'C', 'D', 'E', 'F', 'G'])
})

t.test('a batch has a maximum size', async t => {
  const { runs, run, load } = startGated({ maxSize: 2 })
  const results = ['a', 'b', 'c', 'd', 'e'].map(load)
  for (let i = 1; i <= 3; i++) (await run(i)).finish()
  t.strictSame(runs.map(({ items }) => items), [['a', 'b'], ['c', 'd'], ['e']])
  t.strictSame(await Promise.all(results), ['A', 'B', 'C', 'D', 'E'])
})

t.test('what comes waits for the batch before it, if that is not slow; slow ones do not stop the others', async t => {
  const patienceMs = 30
  const { runs, run, load } = startGated({ maxInFlight: 2, patienceMs })
  const began = performance.now()
  const slow = load('slow')
  await run(1)
  const second = [load('x'), load('y')]
  const { items } = await run(2)
  t.ok(performance.now() - began >= patienceMs - 2, 'as long as it may')
  t.strictSame(items, ['x', 'y'])
  const third = load('z')
  runs[1]!.finish()
  t.strictSame(await Promise.all(second), ['X', 'Y'], 'while the first is still under way')

  t.strictSame((await run(3)).items, ['z'], 'behind a slow one nobody waits again')
  const fourth = [load('p')]
  const since = performance.now()
  while (performance.now() - since < 2 * patienceMs) await turn()
  fourth.push(load('q'))
  await turn()
  t.equal(runs.length, 3, 'when as many as allowed are under way, patience or not, what comes is collected')
  runs[0]!.finish()
  t.equal(await slow, 'SLOW')
  t.strictSame((await run(4)).items, ['p', 'q'])
  for (const { finish } of runs.slice(2)) finish()
  t.strictSame(await Promise.all([third, ...fourth]), ['Z', 'P', 'Q'])
})

t.test('what comes when the batch before it is slow already does not wait at all', async t => {
  const patienceMs = 30
  const { runs, run, load } = startGated({ patienceMs })
  const slow = load('slow')
  await run(1)
  const began = performance.now()
  while (performance.now() - began < patienceMs + 2) await turn()
  const next = load('next')
  await turn()
  t.strictSame(runs.map(({ items }) => items), [['slow'], ['next']])
  for (const { finish } of runs) finish()
  t.strictSame(await Promise.all([slow, next]), ['SLOW', 'NEXT'])
})

t.test('what a batch has no room for goes with the next, which waits no longer than it may', async t => {
  const { run, load } = startGated({ maxSize: 2, patienceMs: 10 })
  const results = ['a', 'b', 'c'].map(load)
  await run(1)
  t.strictSame((await run(2)).items, ['c'], 'while the first is under way')
  for (const number of [1, 2]) (await run(number)).finish()
  t.strictSame(await Promise.all(results), ['A', 'B', 'C'])
})

t.test('beyond the queue\'s maximum length a request is refused at once', async t => {
  const { runs, run, load } = startGated({ maxWaiting: 2, maxInFlight: 1 })
  const first = load('under way')
  await turn()
  const waiting = [load('a'), load('b')]
  await t.rejects(load('c'), { code: 'SERVICE_UNAVAILABLE', headers: { 'retry-after': '1' }, message: 'The service has more requests than it can serve at the moment. Try again in 1 s.' })
  runs[0]!.finish()
  await first
  const { finish } = await run(2)
  finish()
  t.strictSame(await Promise.all(waiting), ['A', 'B'])
})

t.test('who has waited too long is refused, and who has not is served', async t => {
  const { runs, run, load } = startGated({ maxWaitMs: 50, maxInFlight: 1 })
  const slow = load('slow')
  await run(1)
  const late = load('late')
  const since = performance.now()
  while (performance.now() - since < 60) await turn()
  const inTime = load('in time')
  runs[0]!.finish()
  await t.rejects(late, { code: 'SERVICE_UNAVAILABLE' })
  const { items, finish } = await run(2)
  t.strictSame(items, ['in time'])
  finish()
  t.strictSame(await Promise.all([slow, inTime]), ['SLOW', 'IN TIME'])

  const last = load('slow')
  const { finish: finishSlow } = await run(3)
  const alone = load('late')
  const began = performance.now()
  while (performance.now() - began < 60) await turn()
  finishSlow()
  await last
  await t.rejects(alone, { code: 'SERVICE_UNAVAILABLE' }, 'also where nobody else waits')
})

t.test('what fails a batch fails all of it; what may be one item\'s fault fails that one only', async t => {
  const bad = new Error('bad item')
  const ran: string[][] = []
  const run = async (items: string[]) => {
    ran.push(items)
    if (items.includes('bad')) throw bad
    return items
  }
  const items = ['a', 'b', 'bad', 'c', 'd']
  const settle = async (load: (item: string) => Promise<string>) =>
    (await Promise.allSettled(items.map(load))).map(result => result.status === 'fulfilled' ? result.value : (result.reason as Error).message)
  t.strictSame(await settle(createBatch(run, { isOneItemsFault: error => error === bad })), ['a', 'b', 'bad item', 'c', 'd'])
  t.strictSame(ran, [items, ['a', 'b'], ['bad', 'c', 'd'], ['bad'], ['c', 'd']])
  t.strictSame(await settle(createBatch(run, { isOneItemsFault: () => false })), Array(5).fill('bad item'))
  t.strictSame(await settle(createBatch(run)), Array(5).fill('bad item'))
})

/** Turns of the event loop for so many milliseconds. */
const pass = async (ms: number) => { for (const began = performance.now(); performance.now() - began < ms;) await turn() }

t.test('however many wait, no more batches are under way than allowed', async t => {
  const finish: (() => void)[] = []
  const load = createBatch<string, string>(items => new Promise(resolve => finish.push(() => resolve(items))), { maxInFlight: 1, eagerSize: 2, patienceMs: 5 })
  const all = [load('slow')]
  while (finish.length === 0) await turn()
  await pass(10)
  all.push(load('a'), load('b'), load('c'))
  await pass(10)
  t.equal(finish.length, 1)
  finish[0]!()
  while (finish.length === 1) await turn()
  finish[1]!()
  t.strictSame(await Promise.all(all), ['slow', 'a', 'b', 'c'])
})

t.test('a batch is told since when the first of its items waits', async t => {
  const seen: number[] = []
  const finish: (() => void)[] = []
  const load = createBatch<string, string>((items, since) => new Promise(resolve => { seen.push(performance.now() - since); finish.push(() => resolve(items)) }), { maxInFlight: 1 })
  const first = load('a')
  while (finish.length === 0) await turn()
  const second = [load('b')]
  await pass(30)
  second.push(load('c'))
  finish[0]!()
  await first
  while (finish.length === 1) await turn()
  finish[1]!()
  await Promise.all(second)
  t.ok(seen[1]! >= 29, `${seen[1]} ms`)
})

t.test('unless it is told otherwise a batch has 500 items at most, is sent at once with 32, and is waited for 5 ms; three are under way and 5,000 items wait', async t => {
  const { runs, run, load } = startGated()
  // Told by timers, which come in their order even where the process has stood still.
  const sent = [2, 25].map(async ms => new Promise<number>(resolve => { setTimeout(() => resolve(runs.length), ms) }))
  const results = Array.from({ length: 31 }, (_, n) => load(`${n}`))
  const sentWith31 = runs.length
  results.push(load('31'))
  const sentWith32 = runs.length
  for (let n = 0; n < 501; n++) results.push(load(`${32 + n}`))
  const [after2ms, after25ms] = await Promise.all(sent)
  t.strictSame([sentWith31, sentWith32, after2ms, after25ms! >= 2], [0, 1, 1, true])
  await run(3)
  t.strictSame(runs.map(({ items }) => items.length), [32, 500, 1])
  for (let n = 0; n < 5_000; n++) results.push(load(`${533 + n}`))
  await t.rejects(load('too many'), { code: 'SERVICE_UNAVAILABLE' })
  await pass(20)
  t.equal(runs.length, 3)
  for (let number = 1; number <= 13; number++) (await run(number)).finish()
  t.equal((await Promise.all(results)).length, 5_533)
  t.strictSame(runs.slice(3).map(({ items }) => items.length), Array(10).fill(500))
})

t.test('unless it is told otherwise an item waits 400 ms at most', async t => {
  const finish: (() => void)[] = []
  const load = createBatch<string, string>(items => new Promise(resolve => finish.push(() => resolve(items))), { maxInFlight: 1 })
  const slow = load('slow')
  while (finish.length === 0) await turn()
  const late = load('late')
  await pass(410)
  finish[0]!()
  await slow
  await t.rejects(Promise.race([late, pass(1000)]), { code: 'SERVICE_UNAVAILABLE' })
})
