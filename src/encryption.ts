import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

const algorithm = 'aes-256-gcm'
const keyLength = 32
const nonceLength = 12
const tagLength = 16

/** A ciphertext does not give its plaintext: the key is missing, or it is not what was encrypted. The message says which. */
export class DecryptionError extends Error {
  override name = 'DecryptionError'
}

/** A key of a key ring is wrong; the message says which by its place, and never what it is. */
export class KeyRingError extends Error {
  override name = 'KeyRingError'
}

export interface KeyRing {
  /** The id of the key that encrypts; undefined in a ring without keys, which decrypts nothing. */
  readonly currentKeyId: string | undefined
  /** What every ciphertext under the current key begins with, and no other. */
  readonly currentPrefix: string
  /**
   * Encrypts under the first key.
   *
   * @param boundTo where the ciphertext belongs; it decrypts nowhere else
   * @returns `v1.<key id>.<nonce, ciphertext and tag in base64url>`
   */
  encrypt (plaintext: string, boundTo: Buffer): string
  /**
   * Decrypts under whichever of the keys it was encrypted with.
   *
   * @throws DecryptionError
   */
  decrypt (ciphertext: string, boundTo: Buffer): string
}

/**
 * A ring of AES-256-GCM keys: the first encrypts, all decrypt.
 *
 * The nonce is random: one key is good for four billion values, after which the chance that two share a nonce is no
 * longer negligible (NIST SP 800-38D, 8.3).
 *
 * @param encoded each 32 bytes in base64
 * @throws KeyRingError
 */
export function createKeyRing (encoded: readonly string[]): KeyRing {
  if (!Array.isArray(encoded)) throw new KeyRingError('it is no list of keys.')
  const keys = new Map<string, Buffer>()
  for (const [index, text] of encoded.entries()) {
    const key = decodeKey(text, index)
    const id = keyId(key)
    if (keys.has(id)) throw new KeyRingError(`key ${index + 1} is the same as one before it.`)
    keys.set(id, key)
  }
  const [currentKeyId] = keys.keys()
  const currentPrefix = `v1.${currentKeyId}.`

  return {
    currentKeyId,
    currentPrefix,

    encrypt (plaintext, boundTo) {
      const nonce = randomBytes(nonceLength)
      const cipher = createCipheriv(algorithm, keys.get(currentKeyId!)!, nonce, { authTagLength: tagLength }).setAAD(boundTo)
      const sealed = Buffer.concat([nonce, cipher.update(plaintext, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return currentPrefix + sealed.toString('base64url')
    },

    decrypt (ciphertext, boundTo) {
      const [, id, encoded] = /^v1\.([0-9a-f]{12})\.([\w-]+)$/.exec(ciphertext) ?? []
      const sealed = Buffer.from(encoded ?? '', 'base64url')
      if (id === undefined || sealed.length < nonceLength + tagLength) throw new DecryptionError('is no ciphertext: it was changed in the database')
      const key = keys.get(id)
      if (!key) throw new DecryptionError(`is encrypted with the key ${id}, which this process does not have: add that key to SESSION_ENCRYPTION_KEYS (option encryptionKeys)`)
      const decipher = createDecipheriv(algorithm, key, sealed.subarray(0, nonceLength), { authTagLength: tagLength })
        .setAAD(boundTo)
        .setAuthTag(sealed.subarray(-tagLength))
      try {
        // The bits of the last digit that mean nothing must be none: else a change of them would not be one.
        if (sealed.toString('base64url') !== encoded) throw new DecryptionError('is not written as it was')
        return decipher.update(sealed.subarray(nonceLength, -tagLength), undefined, 'utf8') + decipher.final('utf8')
      } catch {
        throw new DecryptionError(`does not decrypt with the key ${id}: it was changed in the database, or comes from another session or property`)
      }
    }
  }
}

/** A new key, as `openssl rand -base64 32` would make it. */
export function generateEncryptionKey (): string {
  return randomBytes(keyLength).toString('base64')
}

function decodeKey (text: unknown, index: number): Buffer {
  if (typeof text !== 'string' || text === '') throw new KeyRingError(`key ${index + 1} is missing.`)
  const key = Buffer.from(text, 'base64')
  // Node's decoder leaves out what is not base64, so that a typing error would give another key.
  if (key.toString('base64') !== text) throw new KeyRingError(`key ${index + 1} is not base64.`)
  if (key.length !== keyLength) throw new KeyRingError(`key ${index + 1} has ${key.length} bytes instead of ${keyLength}.`)
  return key
}

/** Tells keys apart in ciphertexts and logs; of a random key its hash gives nothing away. */
function keyId (key: Buffer): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 12)
}
