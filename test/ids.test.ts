import t from 'tap'
import { timePrefixedId } from '../src/ids.js'

t.test('an id is the time and random bytes, of which no two ids share any', async t => {
  const from = Date.now()
  // More than are asked of the system at once, and of both lengths.
  const ids = Array.from({ length: 2_000 }, (_, i) => timePrefixedId(i % 3 === 0 ? 16 : 32))
  t.ok(ids.every((id, i) => id.length === (i % 3 === 0 ? 16 : 32)))
  t.ok(ids.every(id => id.readUIntBE(0, 6) >= from && id.readUIntBE(0, 6) <= Date.now()), 'the time')
  // Pieces of six bytes: of some 31,000 that are random two are equal once in 600,000 runs.
  const pieces = ids.flatMap(id => Array.from({ length: id.length - 11 }, (_, i) => id.toString('hex', i + 6, i + 12)))
  t.equal(new Set(pieces).size, pieces.length, 'bytes of each its own')
  const bits = Buffer.concat(ids.map(id => id.subarray(6))).reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0)
  const count = ids.reduce((sum, id) => sum + (id.length - 6) * 8, 0)
  t.ok(Math.abs(bits / count - 0.5) < 0.01, `half of the bits are set: ${bits} of ${count}`)
})
