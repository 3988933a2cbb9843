import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import t from 'tap'
import { startService } from './helpers.js'

t.test('what is no HTTP request is answered in the envelope', async t => {
  const { service } = await startService(t, { connectionString: 'postgres://unused', migrate: false })
  await service.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.server.address() as AddressInfo
  const send = async (bytes: string) => {
    const socket = connect(port, '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    let answer = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => { answer += chunk }).on('error', () => {})
    socket.write(bytes)
    await once(socket, 'close')
    const [head, body] = answer.split('\r\n\r\n')
    return { status: head!.split('\r\n')[0], body: JSON.parse(body!) as unknown }
  }
  const answered = (reason: string) => ({
    success: false,
    error: { code: 'VALIDATION_ERROR', message: `The request is not valid: request ${reason}`, details: [{ field: 'request', reason }] }
  })
  t.strictSame(await send('nonsense\r\n\r\n'), { status: 'HTTP/1.1 400 Bad Request', body: answered('is not valid HTTP/1.1') })
  t.strictSame(await send(`GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`),
    { status: 'HTTP/1.1 431 Request Header Fields Too Large', body: answered('has more than 16384 bytes of headers') })

  const gone = connect(port, '127.0.0.1')
  await once(gone, 'connect')
  gone.write('POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{')
  gone.resetAndDestroy()
  await once(gone, 'close')
  const { status } = await fetch(`http://127.0.0.1:${port}/v1/health`)
  t.equal(status, 200, 'and a client that is gone already is not answered')
})
