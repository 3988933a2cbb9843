import type { AppOptions } from './app.js'
import { isObject, isRecord } from './is-object.js'
import { suggest } from './suggest.js'

interface Form {
  test: (value: unknown) => boolean
  /** What the option has to be. */
  text: string
}

const aBoolean: Form = { test: value => typeof value === 'boolean', text: 'true or false' }
const aString: Form = { test: value => typeof value === 'string', text: 'a string' }
const anObject: Form = { test: isRecord, text: 'an object' }

function oneOf (...values: readonly unknown[]): Form {
  return { test: value => values.includes(value), text: values.map(value => JSON.stringify(value)).join(' or ') }
}

/** What each option has to be, as far as its plugin does not say so itself, which is null. */
const forms: Record<keyof AppOptions, Form | null> = {
  adminKey: aString,
  auditRetentionDays: null,
  connectionString: aString,
  defaults: null,
  docs: { test: value => value === false || (typeof value === 'string' && value.startsWith('/')), text: 'where Swagger UI is, such as "/docs", or false' },
  encryptionKeys: null,
  identify: { test: value => typeof value === 'function', text: 'a function' },
  mapping: anObject,
  maxConnections: { test: value => Number.isSafeInteger(value) && value as number > 0, text: 'a whole number from 1' },
  migrate: aBoolean,
  onInvalid: oneOf('refuse', 'ignore'),
  pool: null,
  pooler: oneOf('transaction'),
  prefix: { test: value => typeof value === 'string' && /^(?:\/|$)/.test(value), text: 'where the API is, such as "/v1"' },
  publicUrl: { test: value => typeof value === 'string' && /^https?:\/\//.test(value) && URL.canParse(value), text: 'an http or https URL' },
  rateLimit: aBoolean,
  rateLimitFailOpen: aBoolean,
  sweepIntervalMs: null,
  tierLimits: anObject,
  timeoutMs: null
}

/** What Fastify takes of the options of `register` for itself. */
const fastifysOwn = ['logLevel', 'logSerializers']

/**
 * The names among the options that nobody reads, each with what may be meant.
 *
 * @throws Error for an option that is not what it has to be
 */
export function checkOptions (options: object): string[] {
  const unknown: string[] = []
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(forms, name)) {
      if (!fastifysOwn.includes(name)) unknown.push(`${JSON.stringify(name)}${suggest(name, Object.keys(forms))}`)
      continue
    }
    const form = forms[name as keyof AppOptions]
    if (form && value !== undefined && !form.test(value)) throw new Error(`The option ${name} is ${describe(value)}; it must be ${form.text}`)
  }
  return unknown
}

function describe (value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'function') return 'a function'
  return isObject(value) ? Array.isArray(value) ? 'a list' : 'an object' : String(value)
}
