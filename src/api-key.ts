import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { Tier } from './schemas/tier.js'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const tierTags: Record<Tier, string> = { free: 'free', pro: 'pro', enterprise: 'ent' }
/** What keys begin with, as the source of a regular expression. */
export const keyBeginning = `sk_(?:${Object.values(tierTags).join('|')})_`
const randomLength = 43
const checksumLength = 6
const keyPattern = new RegExp(`^${keyBeginning}[0-9A-Za-z]{${randomLength + checksumLength}}$`)

/**
 * A new API key: `sk_<tier>_`, 43 random characters in base62 (256 bits), and six of a checksum.
 *
 * The checksum (CRC-32 of all that goes before it, in base62) lets garbage be refused without asking the database
 * and scanners tell a key from anything else; it protects nothing.
 */
export function generateApiKey (tier: Tier): string {
  const body = `sk_${tierTags[tier]}_${randomBase62(randomLength)}`
  return body + checksum(body)
}

/** Whether a string could be an API key: it has the form, and its checksum is right. */
export function isWellFormedApiKey (key: string): boolean {
  return keyPattern.test(key) && key.endsWith(checksum(key.slice(0, -checksumLength)))
}

/**
 * What is stored of a key, as PostgreSQL writes bytes: `\x` and 64 hex digits. A fast hash is right here: the key has 256
 * random bits, so there is nothing to guess and nothing for a slow hash to slow down.
 */
export function hashApiKey (key: string): string {
  return `\\x${hash('sha256', key, 'hex')}`
}

/** The beginning of a key, for people to recognise it by: the tier and four of its random characters. */
export function displayPrefix (key: string): string {
  return key.slice(0, key.indexOf('_', 3) + 5)
}

function checksum (body: string): string {
  let rest = crc32(body)
  let digits = ''
  for (let i = 0; i < checksumLength; i++) {
    digits = alphabet[rest % 62] + digits
    rest = Math.floor(rest / 62)
  }
  return digits
}

function randomBase62 (length: number): string {
  let text = ''
  while (text.length < length) {
    for (const byte of randomBytes(length)) {
      // 248 is the largest multiple of 62 in a byte; what lies above would favour the first characters.
      if (byte < 248 && text.length < length) text += alphabet[byte % 62]
    }
  }
  return text
}
