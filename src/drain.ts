import type { RequestListener, Server } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'

/**
 * How long connections that are open when the service has stopped listening may still bring a request, in milliseconds.
 * Balancers keep some for later, and cannot know that one was closed while they send a request on it.
 */
const drainMs = 500

/**
 * How long to look for a moment at which nobody is connecting, in milliseconds: first beside the requests, then, where there
 * is none, while they wait.
 */
const besideRequestsMs = 200
const maxQuietMs = 1000

/** For how long nobody has connected at such a moment, in milliseconds; while requests wait those who connect are not held up. */
const quietMs = 10
const heldQuietMs = 1

/** How long a turn of the event loop takes at most at such a moment, in milliseconds. */
const quietTurnMs = 0.1

/** From when the service drains or begins to close, tells clients to take their next request elsewhere. */
export function drainConnections (service: FastifyInstance): void {
  let draining = false
  const connections = new Set<Socket>()
  service.server.on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  service.addHook('preClose', async () => { draining = true })
  service.addHook('onSend', (_request, reply, _payload, done) => {
    if (draining) reply.header('connection', 'close')
    done()
  })
  let drained: Promise<void> | undefined
  service.decorate('drain', async () => {
    if (service.server.listening) drained ??= drain()
    await drained
  })

  async function drain () {
    const { server } = service
    const goOn = await quietMoment(server)
    draining = true
    const stopped = stopListening(server)
    goOn()
    await stopped
    // What has arrived on a connection is read first.
    await turn()
    // Such as browsers make in advance: as no request has ended on them, the HTTP server does not take them for idle.
    for (const socket of connections) if (socket.bytesRead === 0) socket.destroy()
  }
}

async function stopListening (server: Server): Promise<void> {
  await new Promise<void>(resolve => {
    const timer = setTimeout(resolve, drainMs)
    // Not the HTTP server's own close, which closes connections that are idle at the moment.
    NetServer.prototype.close.call(server, () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

/**
 * Resolves when nobody is connecting. Connections that the system has made and the process has not accepted are reset
 * when it stops listening, with the requests that they brought; so it stops right after a turn of the event loop that
 * took next to no time, some time after the last connection.
 *
 * One connection is accepted in a turn, which has the requests to serve as well: a process that is busy, or gets little of
 * a busy machine, does not catch up with those who connect. It has requests wait then, so that a turn takes no time. Where
 * there is no such moment even so, any other must do.
 *
 * @returns serves the requests that wait, to be called as soon as the server has stopped listening
 */
async function quietMoment (server: Server): Promise<() => void> {
  const began = performance.now()
  let connected = began
  const onConnection = () => { connected = performance.now() }
  server.on('connection', onConnection)
  let goOn: (() => void) | undefined
  let now = began
  let gapMs = quietMs
  let turnMs: number
  do {
    if (!goOn && now - began >= besideRequestsMs) {
      goOn = holdRequests(server)
      gapMs = heldQuietMs
    }
    await sleep(Math.max(1, connected + gapMs - now))
    turnMs = await turn()
    now = performance.now()
  } while ((turnMs > quietTurnMs || now - connected < gapMs) && now - began < maxQuietMs)
  server.removeListener('connection', onConnection)
  return goOn ?? (() => {})
}

/** Has the requests that come from now on wait, until what is returned is called. */
function holdRequests (server: Server): () => void {
  const listeners = server.listeners('request') as RequestListener[]
  const held: Parameters<RequestListener>[] = []
  const hold: RequestListener = (...request) => { held.push(request) }
  server.removeAllListeners('request')
  server.on('request', hold)
  return () => {
    server.removeListener('request', hold)
    for (const listener of listeners) server.on('request', listener)
    // Of who has left meanwhile nothing more comes, not even an end.
    for (const request of held) if (!request[1].destroyed) server.emit('request', ...request)
  }
}

/** One turn of the event loop, in which it looks at all connections; resolves with how long that took, in milliseconds. */
async function turn (): Promise<number> {
  const began = performance.now()
  await new Promise(resolve => { setImmediate(resolve) })
  return performance.now() - began
}

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * The first step of an end without a lost request, before `close()`: nothing is accepted any more, so that a balancer
     * goes to another instance at once, and what comes on open connections is still served, with an answer that says that
     * it was the connection's last. Waits for a moment at which nobody is connecting, for a second at most; resolves when no
     * connection is left, or half a second later.
     */
    drain (): Promise<void>
  }
}
