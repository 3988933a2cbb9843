// Starts the API and the gateway in front of it, with an embedded PostgreSQL whose data is gone afterwards, and prints
// a request to try. Ctrl-C ends all of it.
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { api } from './api.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
if (!existsSync(join(root, 'dist', 'server.js'))) spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' })

const upstream = api.listen(Number(process.env.API_PORT ?? 3000), '127.0.0.1')
await once(upstream, 'listening')

const adminKey = randomBytes(32).toString('hex')
const dataDir = mkdtempSync(join(tmpdir(), 'gateway-express-'))
chmodSync(dataDir, 0o755) // PostgreSQL of root runs as another user.
const gateway = spawn(process.execPath, [join(root, 'dist', 'server.js')], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: {
    ...process.env,
    DATA_DIR: dataDir,
    ADMIN_API_KEY: adminKey,
    UPSTREAM_URL: `http://127.0.0.1:${upstream.address().port}`,
    UPSTREAM_OPENAPI: fileURLToPath(new URL('openapi.yaml', import.meta.url))
  }
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => gateway.kill('SIGTERM'))
gateway.on('exit', code => {
  upstream.closeAllConnections()
  upstream.close()
  rmSync(dataDir, { recursive: true, force: true })
  process.exitCode = code ?? 1
})

let printed = ''
for await (const chunk of gateway.stdout.setEncoding('utf8')) {
  const before = printed
  printed += chunk
  const listening = /Server listening at (http:\/\/[^"]+)/
  if (!listening.test(before) && listening.test(printed)) {
    await introduce(listening.exec(printed)[1]).catch(error => {
      console.error(error)
      gateway.kill('SIGTERM')
    })
  }
}

async function introduce (url) {
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
}
