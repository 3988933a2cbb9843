import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import t from 'tap'
import { startService } from './helpers.js'

t.test('before it ends nobody can connect any more, and a connection that a balancer keeps is still good for one request', async t => {
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false })
  await service.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.server.address() as AddressInfo
  const kept = connect(port, '127.0.0.1')
  t.teardown(() => { kept.destroy() })
  let answers = ''
  kept.setEncoding('utf8').on('data', (chunk: string) => { answers += chunk })
  kept.write('GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(kept, 'data')
  t.match(answers, /^connection: keep-alive\r$/im)

  const drained = service.drain()
  while (service.server.listening) await new Promise(resolve => setImmediate(resolve))
  const refused = connect(port, '127.0.0.1')
  t.equal((await once(refused, 'error') as [NodeJS.ErrnoException])[0].code, 'ECONNREFUSED')
  answers = ''
  kept.write('GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(kept, 'close')
  t.match(answers, /^HTTP\/1\.1 200 OK\r\n/)
  t.match(answers, /^connection: close\r$/im)
  await drained
  await service.close()
})

t.test('a connection that nobody uses holds up the end for half a second, and where there is none nothing does', async t => {
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false })
  await service.drain()
  t.pass('nothing to drain where nothing listens')
  await service.listen({ port: 0, host: '127.0.0.1' })
  const idle = connect((service.server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => { idle.destroy() })
  await Promise.all([once(idle, 'connect'), once(service.server, 'connection')])
  let began = performance.now()
  await service.drain()
  t.ok(performance.now() - began >= 490)
  await service.close()

  const { service: alone } = await startService(t, { connectionString: 'postgres://unused', migrate: false })
  await alone.listen({ port: 0, host: '127.0.0.1' })
  began = performance.now()
  await alone.drain()
  t.ok(performance.now() - began < 400)
})
