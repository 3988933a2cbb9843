import Fastify from 'fastify'
import rateLimit from '@fastify/rate-limit'
import t from 'tap'
import sipherSessions from '../../src/index.js'
import { answer, createDatabase, createKey, startService } from '../helpers.js'

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

t.test('authentications that fail are limited by address', async t => {
  const { service } = await startService(t)
  const fail = (remoteAddress: string) => service.inject({ url: '/v1/admin/keys', remoteAddress, headers: { 'x-api-key': 'garbage' } })
  const failures = await Promise.all(Array.from({ length: 100 }, () => fail('192.0.2.1')))
  t.ok(failures.every(({ statusCode }) => statusCode === 401))
  const refused = await fail('192.0.2.1')
  t.equal(refused.statusCode, 429)
  t.match(refused.json().error, { code: 'RATE_LIMIT_EXCEEDED', message: /^Too many requests from this address carried no valid API key\. Try again in \d+ s\.$/ })
  t.equal((await fail('192.0.2.2')).statusCode, 401, 'another address is not affected')
  t.equal((await service.inject({ method: 'POST', url: '/v1/sessions', remoteAddress: '192.0.2.1', headers: (await createKey(service)).headers, payload: { defaults: {} } })).statusCode, 201, 'nor is a valid key')
})

t.test('the address behind a proxy is believed only from the proxies that were named', async t => {
  const { service } = await startService(t, { trustProxy: ['192.0.2.0/24'] })
  const fail = (remoteAddress: string, client: string) => service.inject({ url: '/v1/admin/keys', remoteAddress, headers: { 'x-api-key': 'garbage', 'x-forwarded-for': client } })
  await Promise.all(Array.from({ length: 100 }, () => fail('192.0.2.1', '198.51.100.1')))
  t.equal((await fail('192.0.2.1', '198.51.100.1')).statusCode, 429)
  t.equal((await fail('192.0.2.1', '198.51.100.2')).statusCode, 401)
  await Promise.all(Array.from({ length: 100 }, (_, i) => fail('203.0.113.1', `198.51.100.${i}`)))
  t.equal((await fail('203.0.113.1', '198.51.100.250')).statusCode, 429, 'another client cannot choose its address')
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
  await host.register(sipherSessions, { connectionString: await createDatabase(t), sweepIntervalMs: 0 })
  host.get('/own', async () => 'own')
  await host.ready()
  const own = () => host.inject({ url: '/own', headers: { 'x-client': 'a' } })
  t.strictSame([(await own()).statusCode, (await own()).statusCode, (await own()).statusCode], [200, 200, 429])
  const { headers } = await createKey(host, 'free')
  const response = await host.inject({ method: 'POST', url: '/v1/sessions', headers: { ...headers, 'x-client': 'b' }, payload: { defaults: {} } })
  t.equal(response.headers['ratelimit-limit'], '100', 'and so do the limits of the tiers')
})
