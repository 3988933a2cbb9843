import t from 'tap'
import { createNoting } from '../src/noting.js'

t.test('what comes while 5,000 wait is left to its next use', async t => {
  const written: number[] = []
  let go = () => {}
  const noting = createNoting(async used => {
    written.push(used.length)
    if (written.length === 1) await new Promise<void>(resolve => { go = resolve })
  }, () => {})
  noting.note('first', 'first')
  while (written.length === 0) await new Promise(resolve => { setImmediate(resolve) })
  for (let i = 0; i < 6_000; i++) noting.note(`${i}`, `${i}`)
  go()
  await noting.settled()
  t.strictSame(written, [1, ...Array(9).fill(500), 499])
})

t.test('what came last of each is noted, in one statement at a time, and nothing again of what comes while it is written', async t => {
  const written: (readonly string[])[] = []
  let underWay = 0
  let finish = () => {}
  const noting = createNoting<string>(async used => {
    written.push(used)
    t.equal(++underWay, 1)
    await new Promise<void>(resolve => { finish = resolve })
    underWay--
  }, () => {})
  const writes = async (number: number) => { while (written.length < number) await new Promise(resolve => { setImmediate(resolve) }) }
  noting.note('a', 'first of a')
  noting.note('b', 'of b')
  noting.note('a', 'last of a')
  await writes(1)
  noting.note('a', 'used all the time')
  noting.note('c', 'of c')
  finish()
  await writes(2)
  finish()
  await noting.settled()
  noting.note('a', 'later')
  await writes(3)
  finish()
  await noting.settled()
  t.strictSame(written, [['last of a', 'of b'], ['of c'], ['later']])
})

t.test('what could not be noted is told, and keeps nothing from being noted', async t => {
  const written: (readonly string[])[] = []
  const failures: unknown[] = []
  const noting = createNoting<string>(async used => {
    written.push(used)
    if (written.length === 1) throw new Error('no database')
  }, error => failures.push(error))
  noting.note('a', 'lost')
  await noting.settled()
  noting.note('a', 'noted')
  await noting.settled()
  t.strictSame(failures, [new Error('no database')])
  t.strictSame(written, [['lost'], ['noted']])
})

t.test('who waits until all is noted does not wait for more to come', async t => {
  const written: (readonly string[])[] = []
  const noting = createNoting<string>(async used => {
    written.push(used)
    if (written.length === 1) noting.note('b', 'while that is written')
  }, () => {})
  const later = new Promise(resolve => { setTimeout(resolve, 90, 'later') })
  noting.note('a', 'first')
  t.not(await Promise.race([noting.settled(), later]), 'later')
  t.strictSame(written, [['first'], ['while that is written']])
  noting.note('c', 'after that')
  await new Promise(resolve => { setTimeout(resolve, 20) })
  t.equal(written.length, 2, 'is gathered again')
  await noting.settled()
  t.equal(written.length, 3)
})
