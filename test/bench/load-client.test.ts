import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'

interface Client {
  run: (make: () => string, milliseconds: number) => Promise<number[]>
  close: () => void
}

const { createClient } = await import(new URL('../../bench/load-client.js', import.meta.url).href) as { createClient: (origin: string, connections: number) => Promise<Client> }

const request = () => 'GET / HTTP/1.1\r\nhost: localhost\r\n\r\n'

/** Clients of a server that answers in the given way. */
async function start (t: Test, listener: RequestListener, connections = 1) {
  const server = createServer(listener)
  t.teardown(() => server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = await createClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, connections)
  t.teardown(client.close)
  return { server, client }
}

const answer = (text: string): RequestListener => (_request, response) => { response.setHeader('content-length', text.length).end(text) }

t.test('a load sends one request after the other on each connection, for a time, and says what each took', async t => {
  let requests = 0
  const { client } = await start(t, (request, response) => {
    requests++
    answer('{}')(request, response as ServerResponse & { req: IncomingMessage })
  }, 3)
  const times = await client.run(request, 50)
  t.ok(times.length > 3)
  t.equal(times.length, requests)
  t.ok(times.every(time => time > 0))
})

t.test('an answer may come in parts, and something behind it', async t => {
  const { client } = await start(t, ({ socket }) => {
    const parts = ['HTTP/1.1 200 OK\r\ncontent-', 'length: 4\r\n\r\nte', 'xt', 'more']
    const next = () => {
      socket.write(parts.shift()!)
      if (parts.length > 0) setTimeout(next, 20)
    }
    next()
  })
  t.equal((await client.run(request, 0)).length, 1)
  await sleep(50)
})

t.test('a load on connections that their server has closed meanwhile ends with an error, and does not wait for answers', async t => {
  const { server, client } = await start(t, answer('{}'), 2)
  t.equal((await client.run(request, 0)).length, 2)
  server.closeAllConnections()
  await sleep(50)
  await t.rejects(client.run(request, 0), { message: 'The server closed a connection' })
})

t.test('so does one that is answered by an error, or without a length', async t => {
  const failing = await start(t, (_request, response) => { response.writeHead(503, { 'content-length': 0 }).end() })
  await t.rejects(failing.client.run(request, 0), { message: /^A request was answered HTTP\/1.1 503/ })
  const chunked = await start(t, (_request, response) => { response.write('x') })
  await t.rejects(chunked.client.run(request, 0), { message: /^An answer has no Content-Length: HTTP/ })
})
