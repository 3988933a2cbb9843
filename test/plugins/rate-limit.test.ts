import { mkdtempSync, rmSync } from 'node:fs'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import rateLimit from '@fastify/rate-limit'
import type pg from 'pg'
import t from 'tap'
import sipherSessions from '../../src/index.js'
import { generateApiKey, hashApiKey } from '../../src/api-key.js'
import type { Tier } from '../../src/schemas/tier.js'
import { adminKey, answer, createDatabase, createKey, createPool, createSession, encryptionKeys, failure, startService } from '../helpers.js'

t.test('a key\'s requests are counted by its tier, whatever they ask, and the 101st of a free key is a 429', async t => {
  const { service } = await startService(t)
  const { headers } = await createKey(service, 'free')
  const send = () => service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })

  const first = await send()
  t.equal(first.statusCode, 403)
  t.strictSame([first.headers['ratelimit-limit'], first.headers['ratelimit-remaining'], first.headers['ratelimit-reset']], ['100', '99', '3600'])
  const others = await Promise.all(Array.from({ length: 99 }, send))
  t.ok(others.every(({ statusCode }) => statusCode === 403))

  const refused = await send()
  const seconds = Number(refused.headers['retry-after'])
  t.ok(seconds > 3590 && seconds <= 3600)
  t.strictSame(answer(refused), {
    status: 429,
    body: { success: false, error: { code: 'RATE_LIMIT_EXCEEDED', message: `This key may make 100 requests an hour, and they are used up. Try again in ${seconds} s.` } }
  })
  t.equal(refused.headers['ratelimit-remaining'], '0')
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', headers: (await createKey(service)).headers, payload: { defaults: {} } })).statusCode, 201, 'another key has a limit of its own')
})

t.test('of 200 requests at once through two instances, a limit of 100 lets exactly 100 pass', async t => {
  const one = await startService(t)
  const two = await startService(t, { connectionString: one.connectionString })
  const { headers } = await createKey(one.service, 'free')
  const responses = await Promise.all(Array.from({ length: 200 }, (_, i) => [one, two][i % 2]!.service.inject({ url: '/v1/limits', headers })))
  t.equal(responses.filter(({ statusCode }) => statusCode === 200).length, 100)
  t.equal(responses.filter(({ statusCode }) => statusCode === 429).length, 100)
  const remaining = responses.filter(({ statusCode }) => statusCode === 200).map(({ headers }) => Number(headers['ratelimit-remaining']))
  t.strictSame(remaining.sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i), 'and each is told what was left after it')
})

t.test('what is left is read by few statements, however many ask at once, and each principal is told its own', async t => {
  const pool = createPool(t, await createDatabase(t))
  const statements: string[] = []
  pool.on('connect', client => {
    const query = client.query.bind(client) as (...args: unknown[]) => unknown
    Object.assign(client, {
      query: (...args: [pg.QueryConfig]) => {
        statements.push(args[0].text)
        return query(...args)
      }
    })
  })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, pool, sweepIntervalMs: 0 })
  const keys = await Promise.all((['pro', 'free', 'enterprise'] satisfies Tier[]).map(tier => createKey(host, tier)))
  await createSession(host, keys[0]!.key)
  statements.length = 0
  const responses = await Promise.all(Array.from({ length: 60 }, (_, i) => host.inject({ url: '/v1/limits', headers: keys[i % 3]!.headers })))
  t.strictSame(new Set(responses.map(({ statusCode }) => statusCode)), new Set([200]))
  const answers = responses.slice(-3).map(response => response.json().data)
  t.strictSame(answers.map(({ tier, requests, sessions }) => [tier, requests.remaining, sessions.live]), [['pro', 9_979, 1], ['free', 80, 0], ['enterprise', 99_980, 0]])
  t.ok(statements.length <= 3 * 3, `${statements.length} statements`)
})

t.test('a process whose clock is moved back refuses an address no longer than for its minute', async t => {
  const { service } = await startService(t, { adminKey })
  const send = async (url: string, key: string) => (await service.inject({ url, headers: { 'x-api-key': key } })).statusCode
  const { key } = await createKey(service)
  for (let i = 0; i < 100; i++) await send('/v1/limits', 'wrong')
  t.strictSame([await send('/v1/limits', key), await send('/v1/admin/tiers', adminKey)], [429, 429])
  const { now } = Date
  t.teardown(() => { Date.now = now })
  Date.now = () => now() - 3_600_000
  t.strictSame([await send('/v1/limits', key), await send('/v1/admin/tiers', adminKey)], [200, 200])
  for (let i = 0; i < 100; i++) await send('/v1/limits', 'wrong')
  t.equal(await send('/v1/admin/tiers', adminKey), 429, 'and counts on')
})

t.test('requests with both secrets of a key that was rotated are counted together, each once', async t => {
  const { service } = await startService(t)
  const { id, headers } = await createKey(service, 'free')
  const { secret } = await service.apiKeyRepository.rotate(id, 60)
  const send = async (key: string) => Number((await service.inject({ url: '/v1/resolve', headers: { 'x-api-key': key } })).headers['ratelimit-remaining'])
  const remaining = await Promise.all(Array.from({ length: 20 }, (_, i) => send([headers['x-api-key'], secret][i % 2]!)))
  t.strictSame(remaining.sort((a, b) => b - a), Array.from({ length: 20 }, (_, i) => 99 - i))
})

t.test('the window is an hour from a key\'s first request, by the database\'s clock', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  const { headers } = await createKey(service, 'free')
  const send = async () => {
    const { statusCode, headers: answered } = await service.inject({ url: '/v1/resolve', headers })
    return [statusCode, answered['ratelimit-remaining'], Number(answered['ratelimit-reset'])]
  }
  t.strictSame(await send(), [200, '99', 3600])
  await pool.query('update sipher_sessions.request_counts set requests = 100, window_start = now() - interval \'59 minutes 50 seconds\'')
  const refused = await service.inject({ url: '/v1/resolve', headers })
  t.equal(refused.statusCode, 429)
  t.ok([9, 10].includes(Number(refused.headers['retry-after'])), 'Retry-After is what is left of the window')
  t.equal(refused.headers['ratelimit-reset'], refused.headers['retry-after'])
  await pool.query('update sipher_sessions.request_counts set window_start = now() - interval \'1 hour\'')
  t.strictSame(await send(), [200, '99', 3600], 'then it begins anew')
})

t.test('GET /v1/limits answers the tier, its limits and what is left', async t => {
  const { service, connectionString } = await startService(t)
  const { key, headers } = await createKey(service)
  const limits = { requestsPerHour: 10_000, sessions: true, maxSessions: 1_000 }
  t.strictSame(answer(await service.inject({ url: '/v1/limits', headers })), { status: 200, body: { success: true, data: { tier: 'pro', limits, requests: { remaining: 9_999, resetSeconds: 3600 }, sessions: { live: 0, remaining: 1_000 } } } })
  t.equal((await service.inject({ url: '/v1/limits', headers: { authorization: `Bearer ${key}` } })).json().data.requests.remaining, 9_998)

  const { service: uncounted } = await startService(t, { connectionString, rateLimit: false, tierLimits: { pro: { requestsPerHour: 5, maxSessions: 2 } } })
  t.strictSame(answer(await uncounted.inject({ url: '/v1/limits', headers })), { status: 200, body: { success: true, data: { tier: 'pro', limits: { requestsPerHour: 5, sessions: true, maxSessions: 2 }, sessions: { live: 0, remaining: 2 } } } })
  t.equal((await service.inject('/v1/limits')).json().error.code, 'UNAUTHORIZED')
})

t.test('limits come from the options, and what can be none is refused at the start', async t => {
  const { service } = await startService(t, { tierLimits: { free: { requestsPerHour: 2, maxSessions: 7 } } })
  const { headers } = await createKey(service, 'free')
  const send = async () => (await service.inject({ url: '/v1/limits', headers }))
  t.strictSame((await send()).json().data.limits, { requestsPerHour: 2, sessions: false, maxSessions: 0 }, 'a tier without sessions gets none')
  t.strictSame([(await send()).statusCode, (await send()).statusCode], [200, 429])
  const start = (tierLimits: object) => startService(t, { connectionString: 'postgres://unused', migrate: false, tierLimits })
  await t.rejects(start({ gold: {} }), { message: 'The option tierLimits names the tier "gold"; the tiers are free, pro, enterprise' })
  for (const requestsPerHour of [-1, 1.5, Number.NaN, 2 ** 31]) {
    await t.rejects(start({ pro: { requestsPerHour } }), { message: `The option tierLimits.pro.requestsPerHour is ${requestsPerHour}; it must be a whole number from 0 to 2147483647` })
  }
})

t.test('a request that cannot be counted is refused, or let through with a warning where the operator chose so', async t => {
  const { service, connectionString } = await startService(t)
  const lines: string[] = []
  const { service: open } = await startService(t, { connectionString, rateLimitFailOpen: true, logLevel: 'warn', logStream: { write: line => { lines.push(line) } } })
  const { headers } = await createKey(service)
  await createPool(t, connectionString).query('alter table sipher_sessions.request_counts rename to hidden')
  t.strictSame(answer(await service.inject({ url: '/v1/resolve', headers })), failure(503, 'SERVICE_UNAVAILABLE', 'The service cannot reach its database at the moment. Try again in 1 s.'))
  for (let i = 0; i < 3; i++) t.equal((await open.inject({ url: '/v1/resolve', headers })).statusCode, 200)
  t.strictSame(lines.map(line => (JSON.parse(line) as { msg: string }).msg), ['requests cannot be counted, and are let through uncounted (RATE_LIMIT_FAIL_OPEN)'], 'told once, not for each request')
  const limits = await open.inject({ url: '/v1/limits', headers })
  t.strictSame([limits.statusCode, Object.keys(limits.json().data)], [200, ['tier', 'limits', 'sessions']], 'and of what is left nothing is said')
})

t.test('no spelling of a request gets round the limit', async t => {
  const { service, connectionString } = await startService(t, { corsOrigins: ['https://app.example.com'] })
  const pool = createPool(t, connectionString)
  const { key, headers } = await createKey(service, 'free')
  const other = await createKey(service)
  await service.inject({ url: '/v1/limits', headers })
  const counted = async () => (await pool.query<{ requests: number }>('select requests from sipher_sessions.request_counts where requests < 100000 and principal_id = (select id from sipher_sessions.api_keys where tier = \'free\')')).rows[0]!.requests

  const attempts: [name: string, request: object][] = [
    ['letter case', { url: '/V1/LIMITS', headers }],
    ['letter case of the header', { url: '/v1/limits', headers: { 'X-API-KEY': key } }],
    ['percent-encoding', { url: '/v1/%6cimits', headers }],
    ['doubled slashes', { url: '//v1//limits', headers }],
    ['a slash at the end', { url: '/v1/limits/', headers }],
    ['a query string', { url: '/v1/limits?x=1', headers }],
    ['a dot segment', { url: '/v1/./limits', headers }],
    ['X-Forwarded-For', { url: '/v1/limits', headers: { ...headers, 'x-forwarded-for': '198.51.100.7' } }],
    ['both headers', { url: '/v1/limits', headers: { ...headers, authorization: `Bearer ${other.key}` } }],
    ['the other header', { url: '/v1/limits', headers: { authorization: `bearer ${key}` } }],
    ['HEAD', { method: 'HEAD', url: '/v1/limits', headers }],
    ['OPTIONS', { method: 'OPTIONS', url: '/v1/limits', headers }],
    ['a route that there is not', { url: '/v1/nowhere', headers }],
    ['a route that there is not, outside of the API', { url: '/nowhere', headers }],
    ['a session that there is not', { url: '/v1/health', headers: { ...headers, 'x-session-id': 'nope' } }]
  ]
  for (const [name, request] of attempts) {
    const before = await counted()
    const { statusCode } = await service.inject(request)
    t.equal(await counted() - before, 1, `${name}: ${statusCode}`)
  }
  await pool.query('update sipher_sessions.request_counts set requests = 100')
  for (const [name, request] of attempts) {
    const { statusCode } = await service.inject(request)
    t.equal(statusCode, 429, name)
  }
})

t.test('requests for routes that there are not, without a key, are limited by address', async t => {
  const { service } = await startService(t)
  const ask = (url: string) => service.inject({ url, remoteAddress: '192.0.2.9' })
  const responses = await Promise.all(Array.from({ length: 100 }, (_, i) => ask(i % 2 ? '/v1/nowhere' : '/nowhere')))
  t.ok(responses.every(({ statusCode }) => statusCode === 404))
  t.equal((await ask('/nowhere')).statusCode, 429)
})

t.test('what is sent to a route that there is not is counted before it is read, and never read', async t => {
  const { service } = await startService(t)
  const { id, key, headers } = await createKey(service)
  const sessionId = await createSession(service, key)
  const json = { 'content-type': 'application/json' }
  const bodies = [{ headers: json, payload: '{' }, { headers: json, payload: 'x'.repeat(2_000_000) }, { headers: { 'content-type': 'text/plain' }, payload: 'x' }, { headers: { ...json, 'x-session-id': sessionId }, payload: '{}' }]
  for (const url of ['/nowhere', '/v1/nowhere']) {
    for (const { headers: own, payload } of bodies) {
      const before = (await service.requestCountRepository.read(id)).requests
      const response = await service.inject({ method: 'POST', url, headers: { ...headers, ...own }, payload })
      t.strictSame(answer(response), failure(404, 'NOT_FOUND', `There is no POST ${url}. GET /v1/openapi.json lists the operations.`))
      t.equal((await service.requestCountRepository.read(id)).requests, before + 1)
    }
  }
  const fail = (i: number) => service.inject({ method: 'POST', url: i % 2 ? '/v1/nowhere' : '/nowhere', remoteAddress: '192.0.2.9', headers: json, payload: '{' })
  for (let i = 0; i < 100; i++) t.equal((await fail(i)).statusCode, 404)
  t.strictSame([(await fail(0)).statusCode, (await fail(1)).statusCode], [429, 429])
})

t.test('a count that is begun anew by a request which came later has no more than its hour', async t => {
  const { service, connectionString } = await startService(t)
  const { headers } = await createKey(service)
  const ask = async () => (await service.inject({ url: '/v1/limits', headers })).headers['ratelimit-reset']
  await ask()
  // As where a request waits for the row, and another one has it meanwhile.
  await createPool(t, connectionString).query('update sipher_sessions.request_counts set window_start = now() + interval \'9 s\'')
  t.equal(await ask(), '3600')
  t.strictSame((await service.inject({ url: '/v1/limits', headers })).json().data.requests.remaining, 9_997)
  // As where the database's clock is moved back.
  await createPool(t, connectionString).query('update sipher_sessions.request_counts set requests = 10000, window_start = now() + interval \'3 h\'')
  t.strictSame((await service.inject({ url: '/v1/limits', headers })).json().data.requests.remaining, 9_999)
})

t.test('counts whose hour is over are removed', async t => {
  const { service, connectionString } = await startService(t)
  const pool = createPool(t, connectionString)
  for (const id of ['over', 'under way']) await service.requestCountRepository.increment(id)
  await pool.query('update sipher_sessions.request_counts set window_start = now() - interval \'61 minutes\' where principal_id = \'over\'')
  t.match(await service.requestCountRepository.deleteExpired(10), { count: 1 })
  t.strictSame((await pool.query('select principal_id from sipher_sessions.request_counts')).rows, [{ principal_id: 'under way' }])
})

t.test('authentications that fail are limited by address', async t => {
  const { service } = await startService(t)
  const fail = (remoteAddress: string) => service.inject({ url: '/v1/admin/keys', remoteAddress, headers: { 'x-api-key': 'garbage' } })
  const failures = await Promise.all(Array.from({ length: 100 }, () => fail('192.0.2.1')))
  t.ok(failures.every(({ statusCode }) => statusCode === 401))
  const refused = await fail('192.0.2.1')
  t.equal(refused.statusCode, 429)
  t.match(refused.json().error, { code: 'RATE_LIMIT_EXCEEDED', message: /^Too many requests from this address carried no valid API key\. Try again in \d+ s\.$/ })
  t.equal((await fail('192.0.2.2')).statusCode, 401, 'another address is not affected')
  const guess = (key: string) => service.inject({ url: '/v1/admin/tiers', remoteAddress: '192.0.2.3', headers: { 'x-api-key': key } })
  const burst = await Promise.all([...Array.from({ length: 150 }, () => guess('garbage')), guess(adminKey)])
  t.strictSame(burst.map(({ statusCode }) => statusCode), [...Array<number>(100).fill(401), ...Array<number>(51).fill(429)], 'at the same time as well')
  t.equal((await service.inject({ url: '/v1/admin/tiers', remoteAddress: '192.0.2.1', headers: { 'x-api-key': adminKey } })).statusCode, 429, 'the right admin key would tell whoever guesses')
})

t.test('over a unix socket keys are accepted and refused likewise, and failures limited', async t => {
  const { service } = await startService(t)
  const directory = mkdtempSync(join(tmpdir(), 'sipher-socket-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const socketPath = join(directory, 'socket')
  await service.listen({ path: socketPath })
  const ask = (headers: Record<string, string>) => new Promise<number>((resolve, reject) => {
    get({ socketPath, path: '/v1/limits', headers, agent: false }, response => { resolve(response.resume().statusCode!) }).on('error', reject)
  })
  const { headers } = await createKey(service)
  t.equal(await ask(headers), 200)
  t.equal(await ask({}), 401)
  t.equal(await ask({ 'x-api-key': 'garbage' }), 401)
  for (let i = 2; i < 100; i++) await ask({})
  t.equal(await ask({}), 429)
  t.equal(await ask(headers), 200)
})

t.test('an address whose keys have failed too often costs no query, and its neighbours are served', async t => {
  const { service, connectionString } = await startService(t)
  const neighbour = await createKey(service)
  const revoked = await createKey(service)
  const ask = (headers: object) => service.inject({ url: '/v1/limits', remoteAddress: '192.0.2.1', headers: { ...headers } })
  t.equal((await ask(neighbour.headers)).statusCode, 200)
  t.equal((await ask(revoked.headers)).statusCode, 200)
  const unknown = () => ({ 'x-api-key': generateApiKey('pro') })
  const failures = await Promise.all(Array.from({ length: 100 }, () => ask(unknown())))
  t.ok(failures.every(({ statusCode }) => statusCode === 401))

  const { rows } = await createPool(t, connectionString).query('select count(*)::int as keys from sipher_sessions.api_keys')
  t.strictSame(rows, [{ keys: 2 }])
  await createPool(t, connectionString).query('alter table sipher_sessions.api_keys rename to hidden')
  for (let i = 0; i < 200; i++) {
    const { statusCode } = await ask(unknown())
    if (statusCode !== 429) t.fail(`answered ${statusCode}: it was looked up`)
  }
  await createPool(t, connectionString).query('alter table sipher_sessions.hidden rename to api_keys')
  t.equal((await ask(neighbour.headers)).statusCode, 200, 'a key that was valid here before is looked up')
  await service.apiKeyRepository.revoke(revoked.id)
  t.equal((await ask(revoked.headers)).statusCode, 429, 'and is no longer once it is found not to be')
  t.equal((await ask(revoked.headers)).statusCode, 429)
})

t.test('of the keys that were valid only so many are remembered', async t => {
  const { service, connectionString } = await startService(t)
  const keys = Array.from({ length: 10_001 }, () => generateApiKey('pro'))
  await createPool(t, connectionString).query(`
    insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name)
    select 'key_' || n, hash, '', 'pro', '' from unnest($1::bytea[]) with ordinality as given (hash, n)`, [keys.map(hashApiKey)])
  const ask = async (key: string) => (await service.inject({ url: '/v1/limits', remoteAddress: '192.0.2.1', headers: { 'x-api-key': key } })).statusCode
  for (let i = 0; i < keys.length; i += 500) await Promise.all(keys.slice(i, i + 500).map(ask))
  await Promise.all(Array.from({ length: 100 }, () => ask('garbage')))
  t.equal(await ask(keys[0]!), 429)
  t.equal(await ask(keys[1]!), 200)
  t.equal(await ask(keys.at(-1)!), 200)
})

t.test('the address behind a proxy is believed only from the proxies that were named', async t => {
  const { service } = await startService(t, { trustProxy: ['192.0.2.0/24'] })
  const fail = (remoteAddress: string, client: string) => service.inject({ url: '/v1/admin/keys', remoteAddress, headers: { 'x-api-key': 'garbage', 'x-forwarded-for': client } })
  await Promise.all(Array.from({ length: 100 }, () => fail('192.0.2.1', '198.51.100.1')))
  t.equal((await fail('192.0.2.1', '198.51.100.1')).statusCode, 429)
  t.equal((await fail('192.0.2.1', '198.51.100.2')).statusCode, 401)
  await Promise.all(Array.from({ length: 100 }, (_, i) => fail('203.0.113.1', `198.51.100.${i}`)))
  t.equal((await fail('203.0.113.1', '198.51.100.250')).statusCode, 429, 'another client cannot choose its address')
  for (const [client, other] of [['198.51.100.3:', '198.51.100.4:1'], ['[2001:db8::1]:', '[2001:db8:0:1::1]:1']] as const) {
    await Promise.all(Array.from({ length: 100 }, (_, i) => fail('192.0.2.1', `${client}${1000 + i}`)))
    t.equal((await fail('192.0.2.1', `${client}2000`)).statusCode, 429, 'nor has it one for each port that its proxy tells')
    t.equal((await fail('192.0.2.1', other)).statusCode, 401)
  }
  t.equal((await fail('192.0.2.1', '[2001:db8::1]')).statusCode, 429)
})

t.test('limits can be left to a host that has its own', async t => {
  const { service } = await startService(t, { rateLimit: false })
  const { headers } = await createKey(service, 'free')
  for (let i = 0; i < 120; i++) {
    const { statusCode, headers: answered } = await service.inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {} } })
    if (statusCode !== 403 || 'ratelimit-limit' in answered) t.fail(`answered ${statusCode}`)
  }
})

t.test('a host\'s own use of @fastify/rate-limit stays as it was', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(rateLimit, { max: 2, timeWindow: 60_000, allowList: ['127.0.0.1'], keyGenerator: request => request.headers['x-client'] as string })
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.get('/own', async () => 'own')
  await host.ready()
  const own = () => host.inject({ url: '/own', headers: { 'x-client': 'a' } })
  t.strictSame([(await own()).statusCode, (await own()).statusCode, (await own()).statusCode], [200, 200, 429])
  const { headers } = await createKey(host, 'free')
  const response = await host.inject({ method: 'POST', url: '/v1/sessions', headers: { ...headers, 'x-client': 'b' }, payload: { defaults: {} } })
  t.equal(response.headers['ratelimit-limit'], '100', 'and so do the limits of the tiers')
})

t.test('instances that count the same callers in another order do not wait for each other in a circle', async t => {
  const one = await startService(t)
  const two = await startService(t, { connectionString: one.connectionString })
  const ids = Array.from({ length: 300 }, (_, i) => `caller ${i}`)
  for (let round = 0; round < 20; round++) {
    await Promise.all([...ids.map(id => one.service.requestCountRepository.increment(id)), ...[...ids].reverse().map(id => two.service.requestCountRepository.increment(id))])
  }
  const { rows } = await createPool(t, one.connectionString).query('select distinct requests from sipher_sessions.request_counts')
  t.strictSame(rows, [{ requests: 40 }])
})

t.test('a host\'s use of the library lets nobody guess keys', async t => {
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(rateLimit, { max: 2, timeWindow: 60_000, allowList: ['127.0.0.1'], keyGenerator: request => request.headers['x-client'] as string })
  await host.register(sipherSessions, { encryptionKeys, connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  await host.ready()
  const fail = async (i: number) => (await host.inject({ url: '/v1/limits', headers: { 'x-api-key': 'garbage', 'x-client': String(i) } })).statusCode
  for (let i = 0; i < 100; i++) if (await fail(i) !== 401) t.fail(`${i}`)
  t.equal(await fail(100), 429)
})

t.test('one address in several spellings is one', async t => {
  const { service } = await startService(t)
  const fail = async (remoteAddress: string) => (await service.inject({ url: '/v1/limits', remoteAddress, headers: { 'x-api-key': 'garbage' } })).statusCode
  for (let i = 0; i < 100; i++) await fail(i % 2 ? '192.0.2.7' : '::ffff:192.0.2.7')
  t.strictSame([await fail('192.0.2.7'), await fail('::ffff:192.0.2.7')], [429, 429], 'mapped')
  for (let i = 0; i < 100; i++) await fail(`2001:db8:0:1::${i.toString(16)}`)
  t.equal(await fail('2001:db8:0:1::ffff'), 429, 'a /64 is one client\'s')
})
