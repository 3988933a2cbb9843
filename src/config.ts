import { isIP } from 'node:net'
import { Type, type Static } from '@sinclair/typebox'
import { envSchema } from 'env-schema'
import { createKeyRing, type KeyRingError } from './encryption.js'
import { requestHeaderNames } from './gateway/headers.js'
import type { UpstreamOptions } from './gateway/index.js'
import { maxRetentionDays } from './plugins/audit-repository.js'
import { adminKeyPattern } from './plugins/authentication.js'
import { maxLimit, tierLimits, type TiersOptions } from './plugins/tiers.js'

function limit (standard: number, description: string) {
  return Type.Integer({ default: standard, minimum: 0, maximum: maxLimit, description })
}

/** The environment, as the process reads it. What is empty counts as not set. */
export const Environment = Type.Object({
  HOST: Type.String({ default: '127.0.0.1', description: 'The address to listen on; of a name with several, one, IPv4 first.' }),
  PORT: Type.Integer({ default: 5006, minimum: 0, maximum: 65_535, description: 'The port to listen on; 0 for any free one.' }),
  DATABASE_URL: Type.Optional(Type.String({ pattern: '^postgres(ql)?://', description: 'The PostgreSQL to use. Without it an embedded one is started.' })),
  DATABASE_POOLER: Type.Optional(Type.Unsafe<'transaction'>({ type: 'string', enum: ['transaction'], description: 'transaction where DATABASE_URL leads to PgBouncer, or a pooler like it, in transaction mode.' })),
  DATA_DIR: Type.String({ default: '.data', description: 'Where the embedded PostgreSQL keeps its files.' }),
  ADMIN_API_KEY: Type.Optional(Type.String({ pattern: adminKeyPattern, description: 'The admin key: printable ASCII, without blanks around it. Without it the admin operations answer 503.' })),
  SESSION_ENCRYPTION_KEYS: Type.Optional(Type.String({ description: 'Keys for the secret values in sessions, each 32 bytes in base64 (openssl rand -base64 32), separated by commas: the first encrypts, all decrypt. Needed with DATABASE_URL.' })),
  PUBLIC_URL: Type.Optional(Type.String({ pattern: '^https?://[^ ]+$', description: 'Where clients reach the service, for the OpenAPI document. Without it, the origin the document came from.' })),
  LOG_LEVEL: Type.Union(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].map(level => Type.Literal(level)), { default: 'info', description: 'What is logged: fatal, error, warn, info, debug, trace or silent.' }),
  TRUST_PROXY: Type.Optional(Type.String({ description: 'Addresses and CIDR ranges of proxies whose X-Forwarded-For is believed, separated by commas.' })),
  RATE_LIMIT_FREE: limit(tierLimits.free.requestsPerHour, 'Requests that a free key may make in an hour.'),
  RATE_LIMIT_PRO: limit(tierLimits.pro.requestsPerHour, 'Requests that a pro key may make in an hour.'),
  RATE_LIMIT_ENTERPRISE: limit(tierLimits.enterprise.requestsPerHour, 'Requests that an enterprise key may make in an hour.'),
  SESSION_LIMIT_PRO: limit(tierLimits.pro.maxSessions, 'Sessions that a pro key may have at the same time.'),
  SESSION_LIMIT_ENTERPRISE: limit(tierLimits.enterprise.maxSessions, 'Sessions that an enterprise key may have at the same time.'),
  AUDIT_RETENTION_DAYS: Type.Integer({ default: 90, minimum: 1, maximum: maxRetentionDays, description: 'How long entries of the audit log are kept, in days.' }),
  RATE_LIMIT_FAIL_OPEN: Type.Boolean({ default: false, description: 'Whether requests that cannot be counted are let through, with a warning, rather than refused with 503.' }),
  CORS_ORIGINS: Type.Optional(Type.String({ description: 'Origins of web pages that may call the service, separated by commas; * for all.' })),
  UPSTREAM_URL: Type.Optional(Type.String({ pattern: '^https?://[^ ]+$', description: 'The API to put the service in front of. Without it the service serves its own operations only.' })),
  UPSTREAM_OPENAPI: Type.Optional(Type.String({ description: 'The OpenAPI document of that API, a file or a URL: it says which operation takes which defaults. Without it JSON object bodies get all but the secret ones.' })),
  UPSTREAM_TIMEOUT_MS: Type.Integer({ default: 30_000, minimum: 1, maximum: 2_147_483_647, description: 'How long that API may take to begin an answer, in milliseconds.' }),
  UPSTREAM_BODY_LIMIT: Type.Integer({ default: 1_048_576, minimum: 1, maximum: 268_435_456, description: 'How many bytes of a JSON body are read to fill defaults in. Other bodies stream through, however large.' }),
  UPSTREAM_REQUIRE_KEY: Type.Boolean({ default: true, description: 'Whether requests to that API must carry an API key; false for a public one.' }),
  UPSTREAM_FORWARD_CREDENTIALS: Type.Boolean({ default: false, description: 'Whether the API key and X-Session-Id go to that API as well.' }),
  UPSTREAM_PRINCIPAL_ID_HEADER: Type.String({ default: 'X-Principal-Id', pattern: '^[0-9A-Za-z-]+$', description: 'The header that tells that API the id of the caller\'s key; off for none.' }),
  UPSTREAM_PRINCIPAL_TIER_HEADER: Type.String({ default: 'X-Principal-Tier', pattern: '^[0-9A-Za-z-]+$', description: 'The header that tells that API the tier of the caller\'s key; off for none.' })
})

type Variables = Static<typeof Environment>

export interface Config {
  host: string
  port: number
  databaseUrl: string | undefined
  pooler: 'transaction' | undefined
  dataDir: string
  adminKey: string | undefined
  encryptionKeys: string[] | undefined
  publicUrl: string | undefined
  logLevel: string
  trustProxy: string[] | undefined
  corsOrigins: string[] | undefined
  tierLimits: NonNullable<TiersOptions['tierLimits']>
  rateLimitFailOpen: boolean
  auditRetentionDays: number
  upstream: UpstreamOptions | undefined
}

/** What must be the form of a variable, where its schema says that to nobody. */
const forms: Partial<Record<keyof Variables, string>> = {
  DATABASE_URL: 'must be a URL such as postgres://user:password@host:5432/database',
  DATABASE_POOLER: 'must be transaction, or not be set',
  LOG_LEVEL: 'must be one of these words, in lower case',
  ADMIN_API_KEY: 'must not have other characters, or blanks at its ends',
  PUBLIC_URL: 'must be a URL with nothing but a host, a port and a path, such as https://sessions.example.com',
  UPSTREAM_URL: 'must be a URL with nothing but a host, a port and a path, such as http://127.0.0.1:3000',
  UPSTREAM_PRINCIPAL_ID_HEADER: 'must be the name of a header, or off',
  UPSTREAM_PRINCIPAL_TIER_HEADER: 'must be the name of a header, or off'
}

/** The environment is wrong; the message says which variables, and how. */
export class ConfigError extends Error {
  override name = 'ConfigError'
}

/**
 * Reads the configuration from environment variables.
 *
 * @throws ConfigError that names every variable that is wrong
 */
export function loadConfig (environment: NodeJS.ProcessEnv): Config {
  const set = Object.fromEntries(Object.entries(environment).filter(([name, value]) => value !== '' && !(isNumber(name) && value?.trim() === '')))
  let variables: Variables
  try {
    variables = envSchema<Variables>({ schema: structuredClone(Environment), data: set, env: false })
  } catch (error) {
    const problems = (error as { errors: { instancePath: string, keyword: string, message: string }[] }).errors
      .filter(({ keyword }) => keyword !== 'const')
      .map(({ instancePath, keyword, message }) => {
        const name = instancePath.slice(1) as keyof Variables
        const { description } = Environment.properties[name]
        const isForm = ['pattern', 'enum', 'anyOf'].includes(keyword)
        return `${name} ${isForm ? forms[name] : message.replace('be boolean', 'be true or false')}. ${description}`
      })
    throw new ConfigError(problems.join('\n'))
  }
  for (const [name, value] of Object.entries(variables)) {
    if (isNumber(name) && !Number.isFinite(value)) throw new ConfigError(`${name} must be a finite number. ${Environment.properties[name as keyof Variables].description}`)
  }
  return {
    host: variables.HOST,
    port: variables.PORT,
    databaseUrl: parseDatabaseUrl(variables.DATABASE_URL?.trimEnd()),
    pooler: variables.DATABASE_POOLER,
    dataDir: variables.DATA_DIR,
    adminKey: variables.ADMIN_API_KEY,
    encryptionKeys: parseEncryptionKeys(variables.SESSION_ENCRYPTION_KEYS),
    publicUrl: parsePublicUrl(variables.PUBLIC_URL),
    logLevel: variables.LOG_LEVEL,
    trustProxy: parseProxies(variables.TRUST_PROXY),
    corsOrigins: parseOrigins(variables.CORS_ORIGINS),
    tierLimits: {
      free: { requestsPerHour: variables.RATE_LIMIT_FREE },
      pro: { requestsPerHour: variables.RATE_LIMIT_PRO, maxSessions: variables.SESSION_LIMIT_PRO },
      enterprise: { requestsPerHour: variables.RATE_LIMIT_ENTERPRISE, maxSessions: variables.SESSION_LIMIT_ENTERPRISE }
    },
    rateLimitFailOpen: variables.RATE_LIMIT_FAIL_OPEN,
    auditRetentionDays: variables.AUDIT_RETENTION_DAYS,
    upstream: parseUpstream(variables)
  }
}

function parseDatabaseUrl (url: string | undefined): string | undefined {
  // Others than this driver try one after the other.
  if (url !== undefined && (/^[^/?#]*\/\/(?:[^/?#]*@)?[^/?#@]*,[^/?#@]*(?:[/?#]|$)/.test(url) || /[?&]host=[^&]*(?:,|%2C)/i.test(url))) {
    throw new ConfigError('DATABASE_URL names several hosts, of which this takes one. Name one that always leads to the primary: a virtual address, a DNS name or a pooler.')
  }
  // The driver takes one without a host as well, which is then in the query string.
  if (url !== undefined && !URL.canParse(url) && !URL.canParse(url.replace('@/', '@host/'))) {
    throw new ConfigError('DATABASE_URL is no URL such as postgres://user:password@host:5432/database. In its user name and password, characters such as / # ? @ % are percent-encoded: %2F for /.')
  }
  return url
}

function isNumber (name: string): boolean {
  return Environment.properties[name as keyof Variables]?.type === 'integer'
}

/** Whether a URL has nothing but a host, a port and a path. */
function isPlain (url: string): boolean {
  const { username, password, search, hash } = URL.canParse(url) ? new URL(url) : { search: '?' }
  return !(username || password || search || hash)
}

function parsePublicUrl (url: string | undefined): string | undefined {
  if (url !== undefined && !isPlain(url)) throw new ConfigError(`PUBLIC_URL ${forms.PUBLIC_URL}. ${Environment.properties.PUBLIC_URL.description}`)
  return url
}

/** Headers that say something of the message itself: a key's id in their place would break it. */
const messageHeaders = ['host', 'content-length', 'content-type', 'content-encoding', 'transfer-encoding', 'connection', 'keep-alive', 'upgrade', 'te', 'trailer', 'expect']

function parseUpstream (variables: Variables): UpstreamOptions | undefined {
  const { UPSTREAM_URL: url, UPSTREAM_OPENAPI: openapi } = variables
  if (url === undefined) {
    if (openapi !== undefined) throw new ConfigError('UPSTREAM_OPENAPI is set without UPSTREAM_URL. Set the URL of the API that the document describes.')
    return undefined
  }
  if (!isPlain(url)) throw new ConfigError(`UPSTREAM_URL ${forms.UPSTREAM_URL}. ${Environment.properties.UPSTREAM_URL.description}`)
  if (leadsBack(new URL(url), variables)) throw new ConfigError(`UPSTREAM_URL leads to the service itself, which listens on port ${variables.PORT} of ${variables.HOST} (HOST, PORT). ${Environment.properties.UPSTREAM_URL.description}`)
  return {
    url,
    openapi,
    timeoutMs: variables.UPSTREAM_TIMEOUT_MS,
    bodyLimit: variables.UPSTREAM_BODY_LIMIT,
    requireKey: variables.UPSTREAM_REQUIRE_KEY,
    forwardCredentials: variables.UPSTREAM_FORWARD_CREDENTIALS,
    ...parsePrincipalHeaders(variables)
  }
}

/** Whether a URL is where the service itself listens: what it sent there would come back, and be sent there again. */
function leadsBack ({ protocol, hostname, port }: URL, { HOST, PORT }: Variables): boolean {
  if (PORT === 0 || Number(port || (protocol === 'https:' ? 443 : 80)) !== PORT) return false
  const [to, own] = [hostname, HOST].map(host => host.replace(/^\[(.*)\]$/, '$1').toLowerCase()) as [string, string]
  const isAny = (host: string) => host === 'localhost' || host === '0.0.0.0' || host === '::'
  const isLocal = (host: string) => host === '127.0.0.1' || host === '::1' || isAny(host)
  // Of the two families somebody else may listen on the other.
  return to === own || (isLocal(to) && isLocal(own) && (isAny(to) || isAny(own)))
}

function parsePrincipalHeaders ({ UPSTREAM_PRINCIPAL_ID_HEADER: id, UPSTREAM_PRINCIPAL_TIER_HEADER: tier }: Variables): Pick<UpstreamOptions, 'principalIdHeader' | 'principalTierHeader'> {
  const parse = (variable: string, name: string) => {
    const taken = messageHeaders.includes(name.toLowerCase()) ? 'which HTTP needs itself' : (requestHeaderNames as readonly string[]).includes(name.toLowerCase()) ? 'in which the gateway says something else' : undefined
    if (taken !== undefined) throw new ConfigError(`${variable} is ${name}, ${taken}. Give it another name, such as X-Principal, or off.`)
    return name.toLowerCase() === 'off' ? false : name
  }
  const principalIdHeader = parse('UPSTREAM_PRINCIPAL_ID_HEADER', id)
  const principalTierHeader = parse('UPSTREAM_PRINCIPAL_TIER_HEADER', tier)
  if (principalIdHeader !== false && id.toLowerCase() === tier.toLowerCase()) throw new ConfigError('UPSTREAM_PRINCIPAL_ID_HEADER and UPSTREAM_PRINCIPAL_TIER_HEADER are the same header. Give them different names, or off.')
  return { principalIdHeader, principalTierHeader }
}

function parseList (list: string | undefined): string[] | undefined {
  const items = list?.split(',').map(item => item.trim()).filter(item => item !== '')
  return items?.length ? items : undefined
}

function parseEncryptionKeys (list: string | undefined): string[] | undefined {
  const keys = parseList(list)
  try {
    createKeyRing(keys ?? [])
  } catch (error) {
    throw new ConfigError(`SESSION_ENCRYPTION_KEYS: ${(error as KeyRingError).message} ${Environment.properties.SESSION_ENCRYPTION_KEYS.description}`)
  }
  return keys
}

/** Only addresses: `true` and hop counts would let any client choose the address that it is limited by. */
function parseProxies (list: string | undefined): string[] | undefined {
  const proxies = parseList(list)
  for (const proxy of proxies ?? []) {
    const [address = '', bits, ...rest] = proxy.split('/')
    const version = isIP(address)
    const valid = version !== 0 && rest.length === 0 &&
      (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (version === 4 ? 32 : 128)))
    if (!valid) throw new ConfigError(`TRUST_PROXY holds ${JSON.stringify(proxy)}. ${Environment.properties.TRUST_PROXY.description}`)
  }
  return proxies
}

function parseOrigins (list: string | undefined): string[] | undefined {
  const origins = parseList(list)
  for (const origin of origins ?? []) {
    const meant = URL.canParse(origin) ? new URL(origin).origin : 'null'
    if (origin !== '*' && (meant === 'null' || meant !== origin)) {
      throw new ConfigError(`CORS_ORIGINS holds ${JSON.stringify(origin)}, which is no origin such as ${meant === 'null' ? 'https://app.example.com' : meant}. ${Environment.properties.CORS_ORIGINS.description}`)
    }
  }
  return origins
}
