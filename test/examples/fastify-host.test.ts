import t from 'tap'
import { runExample } from './run.js'

t.test('a Fastify host with its own routes, schema and identity starts by one command, and its printed request takes the defaults', async t => {
  const example = await runExample(t, 'fastify-host')
  const url = example.printed(/listening on (http:[^;]+);/)
  const session = { 'x-session-id': example.printed(/X-Session-Id: (\S+?)'/), 'content-type': 'application/json' }
  const ann = { ...session, authorization: 'Bearer token-of-ann' }
  const send = async (path: string, headers: Record<string, string>, body?: object) => {
    const response = await fetch(`${url}${path}`, { headers, ...(body && { method: 'POST', body: JSON.stringify(body) }) })
    return { status: response.status, applied: response.headers.get('x-session-applied'), body: await response.json() as { error?: { code: string } } }
  }

  t.strictSame(JSON.parse(example.curl()), { payment: { amount: 5, currency: 'EUR', options: { speed: 'instant' } }, by: 'ann' })
  t.strictSame(await send('/payments', ann, { amount: 5, currency: 'USD' }),
    { status: 200, applied: 'speed', body: { payment: { amount: 5, currency: 'USD', options: { speed: 'instant' } }, by: 'ann' } }, 'what was sent wins')
  t.strictSame(await send('/rates', ann), { status: 200, applied: 'currency', body: { base: 'EUR' } })
  const bob = await send('/payments', { ...session, authorization: 'Bearer token-of-bob' }, { amount: 5 })
  t.strictSame([bob.status, bob.body.error!.code], [404, 'SESSION_NOT_FOUND'], 'another user\'s session is none')
  const nobody = await send('/payments', session, { amount: 5 })
  t.strictSame([nobody.status, nobody.body.error!.code], [401, 'UNAUTHORIZED'])
  t.strictSame(await example.end('SIGINT'), { code: 0, left: [] })
})
