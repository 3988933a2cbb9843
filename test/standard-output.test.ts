import { spawnSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import t from 'tap'

/** What a process prints that runs this with `output`, the standard output, and `fs`. */
function print (script: string, stdout: number | 'pipe' = 'pipe') {
  return spawnSync(process.execPath, [...process.execArgv, '--input-type=module', '--eval', `
    import fs from 'node:fs'
    import { setTimeout as sleep } from 'node:timers/promises'
    const { standardOutput } = await import(${JSON.stringify(new URL('../src/standard-output.js', import.meta.url).href)})
    const output = standardOutput()
    ${script}`], { encoding: 'utf8', stdio: ['ignore', stdout, 'pipe'], maxBuffer: 100_000_000, timeout: 30_000 })
}

t.test('lines of 10 ms are one write, and none is lost when the process exits', async t => {
  const { stdout, stderr } = print(`
    const { write } = fs
    let writes = 0
    fs.write = (...args) => { writes++; return write(...args) }
    const began = performance.now()
    let lines = 0
    // Long enough for several writes, so that lines come while each is under way.
    while (lines < 500 || performance.now() < began + 200) {
      output.write('line\\n')
      lines++
      await new Promise(setImmediate)
    }
    // Timers count whole milliseconds.
    const most = Math.floor((performance.now() - began) / 9) + 1
    await sleep(100)
    output.write(writes > 0 && writes <= most ? 'few writes\\n' : writes + ' writes, where ' + most + ' do\\n')
    output.write(lines + ' lines\\n')
    await sleep(100)
    output.write('under way\\n')
    await sleep(10)
    standardOutput().write('last\\n')
    process.exit()`)
  t.equal(stderr, '')
  const printed = stdout.split('\n')
  const lines = printed.filter(line => line === 'line').length
  // What is under way when the process exits may come after what is written then.
  t.strictSame(printed.filter(line => line !== 'line').sort(), ['', `${lines} lines`, 'few writes', 'last', 'under way'])
})

t.test('what its reader does not take yet is written later, at the exit as well', async t => {
  const { stdout, stderr } = print(`
    const { write, writeSync } = fs
    const busy = Object.assign(new Error('busy'), { code: 'EAGAIN' })
    let refusals = 1
    let refused = 0
    fs.write = (fd, bytes, callback) => {
      if (refusals-- <= 0) return write(fd, bytes, 0, Math.min(bytes.length, 3), null, callback)
      refused++
      // Before the process can exit: what is still being written then is its thread's, and not tried again.
      process.nextTick(callback, busy, 0)
    }
    output.write('first\\n')
    await sleep(300)
    output.write('second\\n')
    await sleep(300)
    refusals = Infinity
    output.write('third\\n')
    await sleep(50)
    output.write('fourth\\n')
    // Each line that comes has a time of its own to be written at, and tries nothing before that of the refused: after 5, 10, 20, 40 ms, and every 80 ms.
    const began = performance.now()
    for (let i = 0; i < 10; i++) {
      await sleep(20)
      output.write('more\\n')
    }
    const most = 6 + Math.ceil((performance.now() - began + 50) / 80)
    output.write(refused <= most ? 'few attempts\\n' : refused + ' attempts, where ' + most + ' do\\n')
    let refusedSync = false
    fs.writeSync = (...args) => {
      if (refusedSync) return writeSync(...args)
      refusedSync = true
      throw busy
    }
    process.exit()`)
  t.strictSame([stdout, stderr], ['first\nsecond\nthird\nfourth\n' + 'more\n'.repeat(10) + 'few attempts\n', ''])
})

t.test('what is being written when the process is to exit is waited for, so that nothing is lost that is not taken', async t => {
  const { stdout, stderr } = print(`
    const { write } = fs
    let refuse
    fs.write = (_fd, _bytes, callback) => { refuse = () => callback(Object.assign(new Error('busy'), { code: 'EAGAIN' }), 0) }
    output.write('refused\\n')
    await sleep(50)
    setTimeout(() => {
      output.write('meanwhile\\n')
      refuse()
    }, 100)
    await output.finish()
    fs.write = () => {}
    output.write('late\\n')
    await sleep(200)
    await output.finish()
    output.write('last\\n')
    process.exit()`)
  t.strictSame([stdout, stderr], ['refused\nmeanwhile\nlate\nlast\n', ''])
})

t.test('what cannot be written is lost, and what comes later is not', async t => {
  const { stdout, stderr } = print(`
    const { write } = fs
    fs.write = (_fd, bytes, callback) => setImmediate(callback, Object.assign(new Error('full'), { code: 'ENOSPC' }), 0)
    output.write('lost\\n')
    await sleep(100)
    fs.write = write
    output.write('kept\\n')
    await sleep(100)
    fs.write = () => {}
    output.write('left to its thread\\n')
    await sleep(100)
    output.write('x'.repeat(16 * 1024 * 1024) + '\\n')
    output.write('too much\\n')
    await sleep(50)`)
  t.equal(stderr, '')
  t.strictSame(stdout.split('\n').map(line => line.length > 100 ? line.length : line), ['kept', 16 * 1024 * 1024, ''])
})

t.test('a full disk neither ends the process nor keeps it', async t => {
  const full = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(full))
  const { stderr, status } = print(`
    output.write('lost\\n')
    await sleep(100)
    output.write('lost as well\\n')
    console.error('goes on')
    process.exit(3)`, full)
  t.strictSame([stderr, status], ['goes on\n', 3])
})
