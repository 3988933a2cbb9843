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
