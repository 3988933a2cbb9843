import type { TObject } from '@sinclair/typebox'
import { DecryptionError, type KeyRing } from '../encryption.js'
import { ApiError } from '../errors.js'
import { hexOf, sessionIdOf } from '../ids.js'
import { secretNames } from '../schemas/secret.js'
import type { SessionDefaultValues } from '../schemas/session.js'
import { unstorable } from './sql.js'

/** The ciphertexts of a session's secret values, by their names. */
export type SealedSecrets = Record<string, string>

/** What a session holds, as it is stored: values that are not secret, and ciphertexts of those that are. */
export interface SealedValues {
  /** JSON text. */
  plain: string
  secrets: SealedSecrets
}

/** Where a ciphertext belongs: it decrypts in no other session, and for no other owner. */
export interface SecretsOwner {
  /** The session's 32 bytes. */
  id: Buffer
  ownerId: string
}

/**
 * A session by its name. The id's bytes are made where they are needed: most sessions have none. A class, because a getter
 * that is defined for each request costs more than the bytes do.
 */
export class NamedSession implements SecretsOwner {
  readonly #sessionId: string
  readonly ownerId: string

  constructor (sessionId: string, ownerId: string) {
    this.#sessionId = sessionId
    this.ownerId = ownerId
  }

  get id (): Buffer {
    return Buffer.from(hexOf(this.#sessionId), 'hex')
  }
}

/** Begins what ciphertexts are bound to, so that they are good for nothing else that a key may come to be used for. */
const purpose = 'sipher-sessions secret v1\0'

/** What JSON.stringify makes of NUL and of half a surrogate pair, which PostgreSQL's JSON does not hold. */
const unstorableEscape = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/

export type SessionSecrets = ReturnType<typeof createSessionSecrets>

/**
 * Takes the secret values out of what a session holds, encrypted, and puts them back.
 *
 * @param defaults what sessions hold
 */
export function createSessionSecrets (defaults: TObject, keyRing: KeyRing) {
  const names = secretNames(defaults)
  const secret = new Set(names)

  return {
    /** Those of the secret properties. */
    names,

    /**
     * The values of properties that are not secret, and the others encrypted under the first key.
     *
     * @throws VALIDATION_ERROR for what PostgreSQL would not store: one such value would fail the statement that it shares with others
     */
    seal (owner: SecretsOwner, values: SessionDefaultValues): SealedValues {
      const plain: SessionDefaultValues = {}
      const secrets: SealedSecrets = {}
      for (const [name, value] of Object.entries(values)) {
        if (secret.has(name)) secrets[name] = keyRing.encrypt(toStorable(value), boundTo(owner, name))
        else plain[name] = value
      }
      return { plain: toStorable(plain), secrets }
    },

    /**
     * All values of a session, from those stored as they are and the ciphertexts.
     *
     * A plain value of a secret property is refused as well: it would be a way to put in a value of one's own without a key.
     *
     * @throws SERVICE_UNAVAILABLE, for the session's owner, with a DecryptionError as its cause, for the operator
     */
    open (owner: SecretsOwner, plain: SessionDefaultValues, secrets: SealedSecrets): SessionDefaultValues {
      for (const name of secret) {
        if (Object.hasOwn(plain, name)) throw unreadable(owner, name, new DecryptionError('is stored in plain text, where only ciphertext counts'))
      }
      for (const [name, ciphertext] of Object.entries(secrets)) {
        plain[name] = JSON.parse(decrypt(owner, name, ciphertext))
      }
      return plain
    },

    /**
     * The same secrets under the first key.
     *
     * @throws as `open` does
     */
    reseal (owner: SecretsOwner, secrets: SealedSecrets): SealedSecrets {
      return Object.fromEntries(Object.entries(secrets).map(([name, ciphertext]) =>
        [name, keyRing.encrypt(decrypt(owner, name, ciphertext), boundTo(owner, name))]))
    }
  }

  function decrypt (owner: SecretsOwner, name: string, ciphertext: string): string {
    try {
      return keyRing.decrypt(ciphertext, boundTo(owner, name))
    } catch (error) {
      throw unreadable(owner, name, error as DecryptionError)
    }
  }
}

function toStorable (value: unknown): string {
  const text = JSON.stringify(value)
  if (unstorableEscape.test(text)) throw unstorable('defaults')
  return text
}

/** The session's id has a fixed length, and JSON says where the owner ends and the name begins. */
function boundTo ({ id, ownerId }: SecretsOwner, name: string): Buffer {
  return Buffer.concat([Buffer.from(purpose), id, Buffer.from(JSON.stringify([ownerId, name]))])
}

function unreadable ({ id }: SecretsOwner, name: string, error: DecryptionError): ApiError {
  const session = `${sessionIdOf(id.subarray(0, 6))}…`
  return new ApiError('SERVICE_UNAVAILABLE', {
    message: 'The secret values of this session cannot be read, so it is not used without them. The operator finds the cause in the log; meanwhile create a new session.',
    headers: { 'retry-after': '60' },
    cause: new DecryptionError(`The secret ${JSON.stringify(name)} of the session ${session} ${error.message}. Until then the session is refused; its owner can set the value anew by PATCH, or delete the session.`)
  })
}
