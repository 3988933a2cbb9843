// A load generator that takes little of the processor which it shares with PostgreSQL: requests are written to sockets as
// text, and of an answer only the status and the length are read. HTTP/1.1 with keep-alive, one request at a time on each
// connection, answers with a Content-Length.
import { once } from 'node:events'
import { connect } from 'node:net'

/**
 * Opens connections.
 *
 * @param {string} origin `http://127.0.0.1:5006`
 * @param {number} connections
 * @returns {Promise<{ run: (make: () => string, milliseconds: number) => Promise<number[]>, close: () => void }>} `run` sends
 * what `make` makes, on each connection one after the other, and resolves with the time that each took, in milliseconds. An
 * answer that is not a 2xx ends it with an error.
 */
export async function createClient (origin, connections) {
  const { hostname, port } = new URL(origin)
  const all = await Promise.all(Array.from({ length: connections }, () => open(hostname, Number(port))))
  return {
    async run (make, milliseconds) {
      const times = []
      const until = performance.now() + milliseconds
      await Promise.all(all.map(connection => repeat(connection, make, until, times)))
      return times
    },
    close () {
      for (const { socket } of all) socket.destroy()
    }
  }
}

/** What all connections read into, one after the other: each has dealt with it before the next reads. */
const buffer = Buffer.allocUnsafeSlow(16_384)

/** For what comes while nothing is asked for. */
function ignore () {}

/** A connection, and what is told each piece of text that comes in, without the stream that a socket is otherwise read by. */
async function open (host, port) {
  const connection = { onText: ignore }
  connection.socket = connect({
    host,
    port,
    noDelay: true,
    onread: {
      buffer,
      callback (length) {
        connection.onText(buffer.toString('latin1', 0, length))
        return true
      }
    }
  })
  await once(connection.socket, 'connect')
  return connection
}

function repeat (connection, make, until, times) {
  const { socket } = connection
  return new Promise((resolve, reject) => {
    let began = 0
    let received = ''
    const end = (error) => {
      connection.onText = ignore
      socket.removeListener('close', onClose)
      socket.removeListener('error', end)
      if (error) reject(error)
      else resolve()
    }
    const onClose = () => end(new Error('The server closed a connection'))
    connection.onText = text => {
      received = received === '' ? text : received + text
      const headersEnd = received.indexOf('\r\n\r\n')
      if (headersEnd === -1) return
      const length = contentLength(received, headersEnd)
      if (length === undefined) return end(new Error(`An answer has no Content-Length: ${received}`))
      if (received.length < headersEnd + 4 + length) return
      const now = performance.now()
      times.push(now - began)
      if (received.charCodeAt(9) !== 50) end(new Error(`A request was answered ${received}`))
      else if (now >= until) end()
      else send(now)
    }
    const send = now => {
      received = ''
      began = now
      socket.write(make(), 'latin1')
    }
    socket.on('close', onClose)
    socket.on('error', end)
    if (socket.destroyed) onClose()
    else send(performance.now())
  })
}

function contentLength (text, headersEnd) {
  const at = text.indexOf('ontent-length: ')
  return at === -1 || at > headersEnd ? undefined : Number.parseInt(text.slice(at + 15, at + 25), 10)
}
