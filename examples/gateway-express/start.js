// The API and the gateway in front of it, on ports of this machine.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { freeAddress, runExample, startServer } from '../shared/run.js'
import { api } from './api.js'

const here = import.meta.dirname

await runExample(async ({ connectionString, onEnd }) => {
  const upstream = api.listen(Number((await freeAddress('API_PORT', 3000)).split(':')[1]), '127.0.0.1')
  await once(upstream, 'listening')
  onEnd(() => {
    upstream.closeAllConnections()
    upstream.close()
  })

  const address = await freeAddress('PORT', 5006)
  const url = `http://${address}`
  const adminKey = randomBytes(32).toString('hex')
  await startServer({
    command: process.execPath,
    args: [join(here, '..', '..', 'dist', 'server.js')],
    env: {
      ...process.env,
      HOST: '127.0.0.1',
      PORT: address.split(':')[1],
      DATABASE_URL: connectionString,
      ADMIN_API_KEY: adminKey,
      SESSION_ENCRYPTION_KEYS: process.env.SESSION_ENCRYPTION_KEYS ?? randomBytes(32).toString('base64'),
      UPSTREAM_URL: `http://127.0.0.1:${upstream.address().port}`,
      UPSTREAM_OPENAPI: join(here, 'openapi.yaml'),
      LOG_LEVEL: process.env.LOG_LEVEL ?? 'warn'
    },
    url: `${url}/v1/health`,
    hint: 'It says why above.',
    onEnd
  })

  const post = async (path, key, body) => {
    const response = await fetch(url + path, { method: 'POST', headers: { 'X-API-Key': key, 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
    return (await response.json()).data
  }
  const { key } = await post('/v1/admin/keys', adminKey, { tier: 'pro', name: 'example' })
  const { sessionId } = await post('/v1/sessions', key, { defaults: { chain: 'near', privacyLevel: 'shielded' } })
  console.log(`
The gateway is in front of the API. This leaves chain and privacyLevel to its session:

curl -sS ${url}/transfers -H 'X-API-Key: ${key}' -H 'X-Session-Id: ${sessionId}' -H 'Content-Type: application/json' -d '{"amount": 5}'
`)
})
