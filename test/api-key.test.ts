import t from 'tap'
import { displayPrefix, generateApiKey, hashApiKey, isWellFormedApiKey } from '../src/api-key.js'
import { tierNames } from '../src/schemas/tier.js'

t.test('10,000 generated keys are well formed, different, and of the form that is documented', async t => {
  const keys = Array.from({ length: 10_000 }, (_, i) => generateApiKey(tierNames[i % 3]!))
  t.ok(keys.every(key => /^sk_(free|pro|ent)_[0-9A-Za-z]{49}$/.test(key)))
  t.ok(keys.every(isWellFormedApiKey))
  t.equal(new Set(keys).size, 10_000)
})

t.test('a key of an earlier release stays one, and what is stored of it', async t => {
  const stored = {
    sk_free_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg3QOakg: '857723479bd0fd2ed00bda7ebf285e9cb964de15443d9b0f1ed593927d4841c0',
    sk_pro_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg1PK662: '48e82fed76e66eb203c26e9add45a8f48c8961b07f592f7520a84045ad267e4e',
    sk_ent_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg2shrCW: 'a9f6e6b709615d2a253682c705c9e336dbb6c8bdf743e5b968539e27220cfb0c'
  }
  for (const [key, hash] of Object.entries(stored)) {
    t.ok(isWellFormedApiKey(key), key)
    t.equal(hashApiKey(key), `\\x${hash}`)
  }
})

t.test('a key with any character changed is not well formed', async t => {
  const key = generateApiKey('pro')
  for (let i = 0; i < key.length; i++) {
    const changed = key.slice(0, i) + (key[i] === 'a' ? 'b' : 'a') + key.slice(i + 1)
    t.notOk(isWellFormedApiKey(changed), changed)
  }
  for (const garbage of ['', 'sk_pro_', key.slice(1), `${key}0`, `${key}\n`, key.replace('sk_pro_', 'sk_free_')]) t.notOk(isWellFormedApiKey(garbage), garbage)
})

t.test('the characters of keys are spread evenly', async t => {
  const counts = new Map<string, number>()
  for (let i = 0; i < 2000; i++) {
    for (const character of generateApiKey('pro').slice(7, 50)) counts.set(character, (counts.get(character) ?? 0) + 1)
  }
  const expected = 2000 * 43 / 62
  t.equal(counts.size, 62)
  // Eight standard deviations: a modulo bias would be at 25 % for the first eight characters.
  t.ok([...counts.values()].every(count => Math.abs(count - expected) < 8 * Math.sqrt(expected)))
})

t.test('the display prefix shows the tier and four characters', async t => {
  t.equal(displayPrefix('sk_free_abcdefgh'), 'sk_free_abcd')
  t.equal(displayPrefix('sk_ent_abcdefgh'), 'sk_ent_abcd')
  t.match(hashApiKey('sk_pro_a'), /^\\x[0-9a-f]{64}$/)
})
