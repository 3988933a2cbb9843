import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, request as send, type IncomingHttpHeaders, type IncomingMessage, type RequestListener, type RequestOptions } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import type { Test } from 'tap'
import type { UpstreamOptions } from '../../src/gateway/index.js'
import type { ServiceOptions } from '../../src/service.js'
import { createKey, createSession, startService } from '../helpers.js'

/** What the API behind the gateway was given. */
export interface Received {
  method: string
  url: string
  headers: IncomingHttpHeaders
  body: string
}

/** An API on a port of its own that answers in the given way, or with what it was given. */
export async function startUpstream (t: Test, listener?: RequestListener) {
  const received: Received[] = []
  const server = createServer((request, response) => {
    if (listener) return listener(request, response)
    void buffer(request).then(bytes => {
      const { method = '', url = '', headers } = request
      received.push({ method, url, headers, body: bytes.toString() })
      response.setHeader('content-type', 'application/json').end(bytes)
    }, () => {})
  })
  server.maxHeadersCount = 0
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { server, received, port, url: `http://127.0.0.1:${port}` }
}

/** A document in a file, with an operation or two a test. */
export function writeDocument (t: Test, document: object, text = JSON.stringify({ openapi: '3.1.0', info: { title: 'x', version: '1' }, ...document })): string {
  const directory = mkdtempSync(join(tmpdir(), 'sipher-openapi-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'openapi')
  writeFileSync(file, text)
  return file
}

/** The service in front of an upstream, listening, with a key and a session. */
export async function startGateway (t: Test, upstream: UpstreamOptions, options: Partial<ServiceOptions> = {}) {
  const { service } = await startService(t, { upstream, ...options })
  await service.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.server.address() as AddressInfo
  const { key, id, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { chain: 'near', privacyLevel: 'shielded', defaultViewingKey: '0xabc' })
  const withSession = { ...headers, 'x-session-id': sessionId }
  return { service, port, key, id, headers, sessionId, withSession }
}

/** Sends a request as it stands, with no more headers than Node must add, and reads the whole answer. */
export async function exchange (port: number, { body, headers, ...options }: RequestOptions & { headers?: Record<string, string | number>, body?: string | Buffer } = {}) {
  const framing = body === undefined || headers?.['transfer-encoding'] ? {} : { 'content-length': Buffer.byteLength(body) }
  const request = send({ port, host: '127.0.0.1', agent: false, ...options, headers: { ...framing, ...headers } })
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request.on('response', resolve).on('error', reject).end(body)
  })
  const text = (await buffer(response)).toString()
  return { status: response.statusCode!, headers: response.headers, text, json: () => JSON.parse(text) as Record<string, never> }
}
