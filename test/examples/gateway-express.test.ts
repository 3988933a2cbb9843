import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import t from 'tap'
import { runExample } from './run.js'

t.test('the gateway starts by one command, and the request that it prints reaches the API with its defaults', async t => {
  t.match(readFileSync('examples/gateway-express/README.md', 'utf8'), '```sh\nnode examples/gateway-express/start.js\n```')
  const example = await runExample(t, 'gateway-express', { PORT: '0', API_PORT: '0' })
  const [head, body] = example.curl('-i').split('\r\n\r\n')
  t.match(head, /^HTTP\/1\.1 201 /)
  t.match(head, /^x-session-applied: chain, privacyLevel\r$/m)
  t.match(head, /^x-powered-by: Express\r$/im)
  t.strictSame(JSON.parse(body!), {
    received: 'POST /transfers',
    query: {},
    body: { chain: 'near', privacyLevel: 'shielded', amount: 5 },
    tier: 'pro'
  })

  const url = example.printed(/^curl -sS (\S+)\/transfers /m)
  const headers = { 'x-api-key': example.printed(/X-API-Key: (\S+?)'/), 'x-session-id': example.printed(/X-Session-Id: (\S+?)'/) }
  t.match(await (await fetch(`${url}/quote?amount=5`, { headers })).json(), { received: 'GET /quote', query: { amount: '5', chain: 'near' } })
  t.strictSame(await example.end('SIGTERM'), { code: 0, left: [] })
  await t.rejects(fetch(url), 'the gateway, a process of its own, has ended as well')
})

t.test('where a port of it is taken it says so', async t => {
  const server = createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  for (const taken of [{ PORT: String(port), API_PORT: '0' }, { PORT: '0', API_PORT: String(port) }]) {
    const variable = taken.PORT === '0' ? 'API_PORT' : 'PORT'
    await t.rejects(runExample(t, 'gateway-express', taken), { message: `examples/gateway-express/start.js ended with 1 and printed:\nlisten EADDRINUSE: address already in use 127.0.0.1:${port}. Set ${variable} to a port that is free.\n` })
  }
})
