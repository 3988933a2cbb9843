import { type Server } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type FastifyInstance } from 'fastify'

/**
 * How long connections that are open when the service has stopped listening may still bring a request, in milliseconds.
 * Balancers keep some for later, and cannot know that one was closed while they send a request on it.
 */
const drainMs = 500

/** How long to look for a moment at which nobody is connecting; for how long nobody has then; how long a turn of the event loop then takes at most. All in milliseconds. */
const maxQuietMs = 1000
const quietMs = 10
const quietTurnMs = 0.3

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
  service.decorate('drain', async () => {
    const { server } = service
    if (!server.listening) return
    await quietMoment(server)
    draining = true
    await stopListening(server)
    // Such as browsers make in advance: as no request has ended on them, the HTTP server does not take them for idle.
    for (const socket of connections) if (socket.bytesRead === 0) socket.destroy()
  })
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
 * took next to no time, some time after the last connection. Where there is no such moment any other must do.
 */
async function quietMoment (server: Server): Promise<void> {
  const began = performance.now()
  let connected = began
  const onConnection = () => { connected = performance.now() }
  server.on('connection', onConnection)
  let now = began
  let turnMs: number
  do {
    await sleep(connected + quietMs - now)
    const turn = performance.now()
    await new Promise(resolve => { setImmediate(resolve) })
    now = performance.now()
    turnMs = now - turn
  } while ((turnMs > quietTurnMs || now - connected < quietMs) && now - began < maxQuietMs)
  server.removeListener('connection', onConnection)
}

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * The first step of an end without a lost request, before `close()`: nothing is accepted any more, so that a balancer
     * goes to another instance at once, and what comes on open connections is still served, with an answer that says that
     * it was the connection's last. Resolves when no connection is left, or after half a second; without connections at
     * once.
     */
    drain (): Promise<void>
  }
}
