import { readFileSync } from 'node:fs'
import t from 'tap'
import { parse } from 'yaml'
import { ConfigError, Environment, loadConfig } from '../src/config.js'

const keys = [1, 2].map(byte => Buffer.alloc(32, byte).toString('base64'))

t.test('an empty environment gives the defaults', async t => {
  const defaults = {
    host: '127.0.0.1',
    port: 5006,
    databaseUrl: undefined,
    pooler: undefined,
    dataDir: '.data',
    adminKey: undefined,
    encryptionKeys: undefined,
    publicUrl: undefined,
    logLevel: 'info',
    trustProxy: undefined,
    corsOrigins: undefined,
    tierLimits: { free: { requestsPerHour: 100 }, pro: { requestsPerHour: 10_000, maxSessions: 1_000 }, enterprise: { requestsPerHour: 100_000, maxSessions: 100_000 } },
    rateLimitFailOpen: false,
    auditRetentionDays: 90,
    upstream: undefined
  }
  t.strictSame(loadConfig({}), defaults)
  t.strictSame(loadConfig(Object.fromEntries(Object.keys(Environment.properties).map(name => [name, '']))), defaults, 'what is empty counts as not set')
  const numbers = Object.entries(Environment.properties).filter(([, { type }]) => type === 'integer').map(([name]) => name)
  t.strictSame(loadConfig(Object.fromEntries(numbers.map(name => [name, ' ']))), defaults, 'so does a blank number')
  t.strictSame(loadConfig({ SESSION_ENCRYPTION_KEYS: ',', TRUST_PROXY: ' , ', CORS_ORIGINS: ',' }), defaults)
})

t.test('every variable is read', async t => {
  t.strictSame(loadConfig({
    HOST: '::',
    PORT: '80',
    DATABASE_URL: 'postgresql://u@h/d \n',
    DATABASE_POOLER: 'transaction',
    DATA_DIR: '/data',
    ADMIN_API_KEY: 'key',
    SESSION_ENCRYPTION_KEYS: `${keys[0]}, ${keys[1]}`,
    PUBLIC_URL: 'https://sessions.example.com',
    LOG_LEVEL: 'trace',
    TRUST_PROXY: '10.0.0.0/8, ::1,fd00::/8',
    CORS_ORIGINS: 'https://app.example.com, http://localhost:3000',
    RATE_LIMIT_FREE: '1',
    RATE_LIMIT_PRO: '2',
    RATE_LIMIT_ENTERPRISE: '3',
    SESSION_LIMIT_PRO: '4',
    SESSION_LIMIT_ENTERPRISE: '5',
    RATE_LIMIT_FAIL_OPEN: 'true',
    AUDIT_RETENTION_DAYS: '7',
    PATH: '/bin'
  }), {
    host: '::',
    port: 80,
    databaseUrl: 'postgresql://u@h/d',
    pooler: 'transaction',
    dataDir: '/data',
    adminKey: 'key',
    encryptionKeys: keys,
    publicUrl: 'https://sessions.example.com',
    logLevel: 'trace',
    trustProxy: ['10.0.0.0/8', '::1', 'fd00::/8'],
    corsOrigins: ['https://app.example.com', 'http://localhost:3000'],
    tierLimits: { free: { requestsPerHour: 1 }, pro: { requestsPerHour: 2, maxSessions: 4 }, enterprise: { requestsPerHour: 3, maxSessions: 5 } },
    rateLimitFailOpen: true,
    auditRetentionDays: 7,
    upstream: undefined
  })
  t.strictSame(loadConfig({ CORS_ORIGINS: '*' }).corsOrigins, ['*'])
})

t.test('the variables of the gateway are read together', async t => {
  const UPSTREAM_URL = 'http://127.0.0.1:3000/api'
  t.strictSame(loadConfig({ UPSTREAM_URL }).upstream, {
    url: UPSTREAM_URL,
    openapi: undefined,
    timeoutMs: 30_000,
    bodyLimit: 1_048_576,
    requireKey: true,
    forwardCredentials: false,
    principalIdHeader: 'X-Principal-Id',
    principalTierHeader: 'X-Principal-Tier'
  })
  t.strictSame(loadConfig({
    UPSTREAM_URL,
    UPSTREAM_OPENAPI: 'openapi.yaml',
    UPSTREAM_TIMEOUT_MS: '500',
    UPSTREAM_BODY_LIMIT: '1000',
    UPSTREAM_REQUIRE_KEY: 'false',
    UPSTREAM_FORWARD_CREDENTIALS: 'true',
    UPSTREAM_PRINCIPAL_ID_HEADER: 'X-User',
    UPSTREAM_PRINCIPAL_TIER_HEADER: 'off'
  }).upstream, {
    url: UPSTREAM_URL,
    openapi: 'openapi.yaml',
    timeoutMs: 500,
    bodyLimit: 1000,
    requireKey: false,
    forwardCredentials: true,
    principalIdHeader: 'X-User',
    principalTierHeader: false
  })
  t.throws(() => loadConfig({ UPSTREAM_OPENAPI: 'openapi.yaml' }), { name: 'ConfigError', message: 'UPSTREAM_OPENAPI is set without UPSTREAM_URL. Set the URL of the API that the document describes.' })
  for (const url of ['http://user:pass@h', 'http://:pass@h', 'http://h/?x=1', 'http://h/#x', 'http://h:port']) {
    t.throws(() => loadConfig({ UPSTREAM_URL: url }), { name: 'ConfigError', message: 'UPSTREAM_URL must be a URL with nothing but a host, a port and a path, such as http://127.0.0.1:3000. The API to put the service in front of. Without it the service serves its own operations only.' }, url)
  }
  for (const [HOST, url] of [['127.0.0.1', 'http://localhost:5006'], ['::1', 'http://[::1]:5006/api'], ['0.0.0.0', 'http://127.0.0.1:5006'], ['localhost', 'http://127.0.0.1:5006'], ['::', 'https://localhost:5006'], ['Sessions.local', 'http://sessions.local:5006']] as const) {
    t.throws(() => loadConfig({ HOST, UPSTREAM_URL: url }), { name: 'ConfigError', message: `UPSTREAM_URL leads to the service itself, which listens on port 5006 of ${HOST} (HOST, PORT). ${Environment.properties.UPSTREAM_URL.description}` }, url)
  }
  t.throws(() => loadConfig({ PORT: '80', UPSTREAM_URL: 'http://localhost' }), { message: 'UPSTREAM_URL leads to the service itself, which listens on port 80 of 127.0.0.1' })
  t.throws(() => loadConfig({ PORT: '443', UPSTREAM_URL: 'https://localhost' }), { message: 'UPSTREAM_URL leads to the service itself, which listens on port 443 of 127.0.0.1' })
  for (const [HOST, PORT, url] of [['127.0.0.1', '80', 'https://localhost'], ['10.0.0.5', '5006', 'http://127.0.0.1:5006'], ['127.0.0.1', '5006', 'http://10.0.0.5:5006'], ['127.0.0.1', '5006', 'http://[::1]:5006'], ['127.0.0.1', '0', 'http://127.0.0.1:0']]) {
    t.equal(loadConfig({ HOST, PORT, UPSTREAM_URL: url }).upstream!.url, url)
  }
  t.throws(() => loadConfig({ UPSTREAM_URL, UPSTREAM_PRINCIPAL_ID_HEADER: 'X-A', UPSTREAM_PRINCIPAL_TIER_HEADER: 'x-a' }), { name: 'ConfigError', message: 'UPSTREAM_PRINCIPAL_ID_HEADER and UPSTREAM_PRINCIPAL_TIER_HEADER are the same header. Give them different names, or off.' })
  for (const name of ['Host', 'Content-Length']) t.throws(() => loadConfig({ UPSTREAM_URL, UPSTREAM_PRINCIPAL_TIER_HEADER: name }), { name: 'ConfigError', message: `UPSTREAM_PRINCIPAL_TIER_HEADER is ${name}, which HTTP needs itself. Give it another name, such as X-Principal, or off.` })
  t.equal(loadConfig({ UPSTREAM_URL, UPSTREAM_PRINCIPAL_ID_HEADER: 'X-Forwarded-User' }).upstream!.principalIdHeader, 'X-Forwarded-User')
  for (const name of ['X-Forwarded-For', 'x-request-id']) t.throws(() => loadConfig({ UPSTREAM_URL, UPSTREAM_PRINCIPAL_ID_HEADER: name }), { name: 'ConfigError', message: `UPSTREAM_PRINCIPAL_ID_HEADER is ${name}, in which the gateway says something else. Give it another name, such as X-Principal, or off.` })
  t.match(loadConfig({ UPSTREAM_URL, UPSTREAM_PRINCIPAL_ID_HEADER: 'off', UPSTREAM_PRINCIPAL_TIER_HEADER: 'OFF' }).upstream, { principalIdHeader: false, principalTierHeader: false })
  t.throws(() => loadConfig({ UPSTREAM_URL, UPSTREAM_REQUIRE_KEY: 'maybe', UPSTREAM_PRINCIPAL_ID_HEADER: 'X Id' }), {
    message: [
      'UPSTREAM_REQUIRE_KEY must be true or false. Whether requests to that API must carry an API key; false for a public one.',
      'UPSTREAM_PRINCIPAL_ID_HEADER must be the name of a header, or off. The header that tells that API the id of the caller\'s key; off for none.'
    ].join('\n')
  })
})

t.test('what is wrong is named, all of it at once', async t => {
  const message = (environment: NodeJS.ProcessEnv) => {
    try {
      return loadConfig(environment)
    } catch (error) {
      t.type(error, ConfigError)
      return (error as Error).message
    }
  }
  t.equal(message({ PORT: '70000', LOG_LEVEL: 'loud', DATABASE_URL: 'mysql://h' }), [
    'PORT must be <= 65535. The port to listen on; 0 for any free one.',
    'DATABASE_URL must be a URL such as postgres://user:password@host:5432/database. The PostgreSQL to use. Without it an embedded one is started.',
    'LOG_LEVEL must be one of these words, in lower case. What is logged: fatal, error, warn, info, debug, trace or silent.'
  ].join('\n'))
  for (const key of [' ', '\t', 'key ', ' key', 'key\n', 'schlüssel']) {
    t.equal(message({ ADMIN_API_KEY: key }), 'ADMIN_API_KEY must not have other characters, or blanks at its ends. The admin key: printable ASCII, without blanks around it. Without it the admin operations answer 503.', JSON.stringify(key))
  }
  t.equal(loadConfig({ ADMIN_API_KEY: 'a phrase of words' }).adminKey, 'a phrase of words')
  for (const proxy of ['true', '1', 'loopback', '10.0.0.0/33', '0.0.0.0/0', '::/0', '::1/129', '10.0.0.1/8/8', '10.0.0.0/']) {
    t.match(message({ TRUST_PROXY: `127.0.0.1,${proxy}` }), `TRUST_PROXY holds "${proxy}". Addresses and CIDR ranges of proxies`)
  }
  for (const name of ['PORT', 'RATE_LIMIT_PRO', 'UPSTREAM_BODY_LIMIT']) t.match(message({ [name]: 'Infinity' }), `${name} must be a finite number. `)
  for (const url of ['http://%zz', 'http://h:99999', 'http://h?x', 'http://h/#x', 'http://user@h']) {
    t.equal(message({ PUBLIC_URL: url }), `PUBLIC_URL must be a URL with nothing but a host, a port and a path, such as https://sessions.example.com. ${Environment.properties.PUBLIC_URL.description}`, url)
  }
  t.equal(loadConfig({ PUBLIC_URL: 'https://h:1/path' }).publicUrl, 'https://h:1/path')
  for (const url of ['postgres://user:a/b@host/db', 'postgres://user:a#b@host/db', 'postgres://user:a?b@host/db', 'postgres://host:port/db']) {
    t.equal(message({ DATABASE_URL: url }), 'DATABASE_URL is no URL such as postgres://user:password@host:5432/database. In its user name and password, characters such as / # ? @ % are percent-encoded: %2F for /.', url)
  }
  for (const url of ['postgres://user:a@h1:1,h2:2/db', 'postgres://h1,h2/db', 'postgres:///db?host=h1,h2', 'postgres://u@/db?port=1&host=h1%2Ch2']) {
    t.equal(message({ DATABASE_URL: url }), 'DATABASE_URL names several hosts, of which this takes one. Name one that always leads to the primary: a virtual address, a DNS name or a pooler.', url)
  }
  t.ok(loadConfig({ DATABASE_URL: 'postgres://user:a,b@host/d,b' }))
  for (const url of ['postgres://user@/db?host=/run/postgresql', 'postgresql:///db', 'postgres://user:a%2Fb@[::1]:1/db']) t.equal(loadConfig({ DATABASE_URL: url }).databaseUrl, url)
  for (const origin of ['app.example.com', 'null', 'https://app.example.com/', 'https://app.example.com/path']) {
    t.match(message({ CORS_ORIGINS: origin }), `CORS_ORIGINS holds "${origin}", which is no origin such as https://app.example.com.`)
  }
  t.match(message({ CORS_ORIGINS: 'HTTPS://My.example.com/' }), 'CORS_ORIGINS holds "HTTPS://My.example.com/", which is no origin such as https://my.example.com.')
  const wrong = Buffer.alloc(16, 7).toString('base64')
  for (const [key, problem] of [[wrong, 'has 16 bytes instead of 32'], ['not*base64', 'is not base64'], [keys[0], 'is the same as one before it']]) {
    t.equal(message({ SESSION_ENCRYPTION_KEYS: `${keys[0]},${key}` }), `SESSION_ENCRYPTION_KEYS: key 2 ${problem}. ${Environment.properties.SESSION_ENCRYPTION_KEYS.description}`)
  }
})

t.test('numbers have bounds, which count as valid', async t => {
  const bounds: Record<string, [min: number, max: number]> = {
    PORT: [0, 65_535],
    RATE_LIMIT_FREE: [0, 2_147_483_647],
    RATE_LIMIT_PRO: [0, 2_147_483_647],
    RATE_LIMIT_ENTERPRISE: [0, 2_147_483_647],
    SESSION_LIMIT_PRO: [0, 2_147_483_647],
    SESSION_LIMIT_ENTERPRISE: [0, 2_147_483_647],
    AUDIT_RETENTION_DAYS: [1, 36_500],
    UPSTREAM_TIMEOUT_MS: [1, 2_147_483_647],
    UPSTREAM_BODY_LIMIT: [1, 268_435_456]
  }
  const numbers = Object.entries(Environment.properties).filter(([, { type }]) => type === 'integer').map(([name]) => name)
  t.strictSame(Object.keys(bounds).sort(), numbers.sort())
  for (const [name, [min, max]] of Object.entries(bounds)) {
    for (const value of [min, max]) t.doesNotThrow(() => loadConfig({ [name]: String(value) }), `${name}=${value}`)
    t.throws(() => loadConfig({ [name]: String(min - 1) }), { message: `${name} must be >= ${min}. ${Environment.properties[name as 'PORT'].description}` })
    t.throws(() => loadConfig({ [name]: String(max + 1) }), { message: `${name} must be <= ${max}. ${Environment.properties[name as 'PORT'].description}` })
    t.throws(() => loadConfig({ [name]: '1.5' }), { message: `${name} must be integer. ${Environment.properties[name as 'PORT'].description}` })
  }
})

t.test('words have their spelling, and off any', async t => {
  t.throws(() => loadConfig({ DATABASE_POOLER: 'session' }), { message: `DATABASE_POOLER must be transaction, or not be set. ${Environment.properties.DATABASE_POOLER.description}` })
  for (const off of ['off', 'OFF']) {
    t.match(loadConfig({ UPSTREAM_URL: 'http://h', UPSTREAM_PRINCIPAL_ID_HEADER: off, UPSTREAM_PRINCIPAL_TIER_HEADER: off }).upstream, { principalIdHeader: false, principalTierHeader: false })
  }
})

t.test('docker-compose.yml passes every variable on that is not the container\'s own', async t => {
  const { services } = parse(readFileSync('docker-compose.yml', 'utf8')) as { services: { sessions: { environment: Record<string, string> } } }
  const { DATABASE_URL, SESSION_ENCRYPTION_KEYS, ...others } = services.sessions.environment
  const own = ['HOST', 'PORT', 'DATA_DIR', 'DATABASE_URL', 'DATABASE_POOLER', 'SESSION_ENCRYPTION_KEYS']
  t.strictSame(others, Object.fromEntries(Object.keys(Environment.properties).filter(name => !own.includes(name)).map(name => [name, `\${${name}:-}`])))
})

t.test('the README\'s table has every variable with its default and meaning', async t => {
  const rows = readFileSync('README.md', 'utf8').split('\n').filter(line => /^\| `[A-Z_]+` \|/.test(line))
  t.strictSame(rows, Object.entries(Environment.properties).map(([name, { default: value, description }]) =>
    `| \`${name}\` | ${value === undefined ? '' : `\`${value}\``} | ${description} |`))
})
