import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import t from 'tap'

const readme = readFileSync('examples/gateway-express/README.md', 'utf8')
const command = /```sh\n(.+)\n```/.exec(readme)![1]!

t.test('the command of the README starts it, the request that it prints reaches the API with its defaults, and all of it ends', async t => {
  const { PATH = '', HOME = '' } = process.env
  // In an environment with nothing else. The shell is replaced by the command, so that signals reach it.
  const example = spawn('env', ['-i', `PATH=${PATH}`, `HOME=${HOME}`, 'PORT=0', 'API_PORT=0', 'sh', '-c', `exec ${command}`], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => { example.kill('SIGKILL') })
  const exit = once(example, 'exit')
  let output = ''
  for await (const chunk of example.stdout.setEncoding('utf8')) {
    output += chunk as string
    if (/^curl .*\n/m.test(output)) break
  }
  const curl = /^curl .*$/m.exec(output)![0]
  const children = spawnSync('pgrep', ['-P', String(example.pid)], { encoding: 'utf8' }).stdout.trim().split('\n')
  t.equal(children.length, 1, 'the gateway is a process of its own')

  const { stdout } = spawnSync('sh', ['-c', `${curl} -i`], { encoding: 'utf8' })
  const [head, body] = stdout.split('\r\n\r\n')
  t.match(head, /^HTTP\/1\.1 201 /)
  t.match(head, /^x-session-applied: chain, privacyLevel\r$/m)
  t.match(head, /^x-powered-by: Express\r$/im)
  t.strictSame(JSON.parse(body!), {
    received: 'POST /transfers',
    query: {},
    body: { chain: 'near', privacyLevel: 'shielded', amount: 5 },
    tier: 'pro'
  })

  const [, url, headers] = /^curl -sS (\S+)\/transfers ((?:-H '[^']+' )+)/.exec(curl)!
  const sent = Object.fromEntries([...headers!.matchAll(/-H '([^:]+): ([^']+)'/g)].map(([, name, value]) => [name!, value!]))
  t.match(await (await fetch(`${url}/quote?amount=5`, { headers: sent })).json(), { received: 'GET /quote', query: { amount: '5', chain: 'near' } })

  example.kill('SIGTERM')
  t.strictSame(await exit, [0, null])
  t.throws(() => process.kill(Number(children[0]), 0), { code: 'ESRCH' }, 'the gateway has ended')
  const dataDir = /gateway-express-\w+/.exec(spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).stdout)
  t.equal(dataDir, null, 'and so has its PostgreSQL')
})
