import t from 'tap'
import { createKeyRing, generateEncryptionKey } from '../src/encryption.js'

const [old, current, other] = Array.from({ length: 3 }, generateEncryptionKey) as [string, string, string]
const place = Buffer.from('here')

t.test('the first key encrypts, all decrypt, and no two ciphertexts are the same', async t => {
  const before = createKeyRing([old])
  const after = createKeyRing([current, old])
  const [one, two] = [before.encrypt('text', place), before.encrypt('text', place)]
  t.match(one, /^v1\.[0-9a-f]{12}\.[\w-]{43}$/)
  t.not(one, two)
  t.equal(after.decrypt(one, place), 'text')
  const three = after.encrypt('', place)
  t.equal(after.decrypt(three, place), '')
  t.ok(three.startsWith(after.currentPrefix))
  t.notOk(one.startsWith(after.currentPrefix))
  t.ok(after.currentPrefix.includes(after.currentKeyId!))
})

t.test('without its key, in another place, or changed in any character it decrypts to nothing', async t => {
  const ring = createKeyRing([current])
  const id = ring.currentKeyId
  const text = ring.encrypt('text', place)
  t.throws(() => createKeyRing([other]).decrypt(text, place), {
    name: 'DecryptionError',
    message: `is encrypted with the key ${id}, which this process does not have: add that key to SESSION_ENCRYPTION_KEYS (option encryptionKeys)`
  })
  t.throws(() => createKeyRing([]).decrypt(text, place), { message: /^is encrypted with the key/ })
  t.throws(() => ring.decrypt(text, Buffer.from('there')), {
    name: 'DecryptionError',
    message: `does not decrypt with the key ${id}: it was changed in the database, or comes from another session or property`
  })
  for (let at = 0; at < text.length; at++) {
    const changed = text.slice(0, at) + (text[at] === 'b' ? 'c' : 'b') + text.slice(at + 1)
    t.throws(() => ring.decrypt(changed, place), { name: 'DecryptionError' })
    t.throws(() => ring.decrypt(text.slice(0, at), place), { name: 'DecryptionError' })
  }
  // 32 bytes are 43 digits, of which the last has two bits that mean nothing.
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  for (const digit of digits.replace(text.at(-1)!, '')) {
    t.throws(() => ring.decrypt(text.slice(0, -1) + digit, place), { name: 'DecryptionError' })
  }
})

t.test('a wrong key is named by its place and not shown', async t => {
  const message = (...keys: string[]) => {
    try {
      return createKeyRing(keys)
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(message(current, ''), 'key 2 is missing.')
  t.equal(message(Buffer.alloc(33).toString('base64')), 'key 1 has 33 bytes instead of 32.')
  t.equal(message(current, old, current), 'key 3 is the same as one before it.')
  for (const key of ['secret passphrase', current.slice(0, -1), ` ${current}`, current.replace(/.{4}/, '----')]) t.equal(message(key), 'key 1 is not base64.')
})
