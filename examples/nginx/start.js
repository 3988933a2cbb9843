// The service, an API that knows nothing of it, and nginx before both, on ports of this machine.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freeAddress, runExample, startServer } from '../shared/run.js'
import { createApi } from './api.js'

const here = import.meta.dirname

await runExample(async ({ connectionString, directory, onEnd }) => {
  const service = await freeAddress()
  const adminKey = randomBytes(32).toString('hex')
  const pid = await startServer({
    command: process.execPath,
    args: [join(here, '..', '..', 'dist', 'server.js')],
    env: { ...process.env, DATABASE_URL: connectionString, PORT: service.split(':')[1], HOST: '127.0.0.1', ADMIN_API_KEY: adminKey, SESSION_ENCRYPTION_KEYS: process.env.SESSION_ENCRYPTION_KEYS ?? randomBytes(32).toString('base64'), TRUST_PROXY: '127.0.0.1', LOG_LEVEL: 'error' },
    url: `http://${service}/v1/health`,
    hint: 'It says why above.',
    onEnd
  })

  const server = createApi().listen(0, '127.0.0.1')
  await once(server, 'listening')
  onEnd(() => { server.close().closeAllConnections() })
  const api = `127.0.0.1:${server.address().port}`

  const listen = await freeAddress('PORT')
  const prefix = join(directory, 'nginx')
  mkdirSync(join(prefix, 'temp'), { recursive: true })
  const values = { listen, service, api }
  writeFileSync(join(prefix, 'nginx.conf'), readFileSync(join(here, 'nginx.conf'), 'utf8').replaceAll(/\{\{(listen|service|api)\}\}/g, (_placeholder, name) => values[name]))
  copyFileSync(join(here, 'session-defaults.conf'), join(prefix, 'session-defaults.conf'))
  await startServer({
    command: process.env.NGINX ?? '/usr/sbin/nginx',
    args: ['-p', prefix, '-c', 'nginx.conf', '-e', 'stderr'],
    url: `http://${listen}`,
    hint: 'Install it (Debian: apt-get install nginx), or set NGINX to where it is.',
    onEnd
  })

  const post = async (path, key, body) => {
    const response = await fetch(`http://${service}${path}`, { method: 'POST', headers: { 'x-api-key': key, 'content-type': 'application/json' }, body: JSON.stringify(body) })
    return (await response.json()).data
  }
  const { key } = await post('/v1/admin/keys', adminKey, { tier: 'pro', name: 'example' })
  const { key: freeKey } = await post('/v1/admin/keys', adminKey, { tier: 'free', name: 'example' })
  const { sessionId } = await post('/v1/sessions', key, { defaults: { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' } })
  console.log(`
nginx is listening on http://${listen}, before an API that answers what it was sent

  service    http://${service} (process ${pid})
  pro key    ${key}
  free key   ${freeKey}

The session's defaults reach the API as headers, and forged ones do not:

curl -sS http://${listen}/transfer -H 'X-API-Key: ${key}' -H 'X-Session-Id: ${sessionId}' -H 'X-Session-Default-Chain: forged' -d '{"amount":5}'
`)
})
