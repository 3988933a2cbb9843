import t from 'tap'
import { createNoting } from '../src/noting.js'

t.test('what comes while 5,000 wait is left to its next use', async t => {
  const written: number[] = []
  let go = () => {}
  const noting = createNoting(async ids => {
    written.push(ids.length)
    if (written.length === 1) await new Promise<void>(resolve => { go = resolve })
  }, () => {})
  noting.note('first')
  while (written.length === 0) await new Promise(resolve => { setImmediate(resolve) })
  for (let i = 0; i < 6_000; i++) noting.note(`${i}`)
  go()
  await noting.settled()
  t.strictSame(written, [1, ...Array(9).fill(500), 499])
})
