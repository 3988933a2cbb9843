import t from 'tap'
import { createBackgroundWork } from '../src/background.js'

t.test('work is done once for all that ask before it begins, and again for who asks while it is under way', async t => {
  const finish: (() => void)[] = []
  const work = createBackgroundWork(() => new Promise<void>(resolve => finish.push(resolve)), error => { throw error })
  await work.settled()
  const begun = async (count: number) => { while (finish.length < count) await new Promise(resolve => setImmediate(resolve)) }
  work.ask()
  work.ask()
  await begun(1)
  work.ask()
  let settled = false
  const settling = work.settled().then(() => { settled = true })
  finish[0]!()
  await begun(2)
  t.equal(settled, false)
  finish[1]!()
  await settling
  t.equal(finish.length, 2)
})

t.test('a failure is told, and the next time tries again', async t => {
  const errors: unknown[] = []
  let fails = true
  const work = createBackgroundWork(async () => { if (fails) throw new Error('no') }, error => errors.push(error))
  work.ask()
  await work.settled()
  fails = false
  work.ask()
  await work.settled()
  t.match(errors, [{ message: 'no' }])
  t.equal(errors.length, 1)
})
