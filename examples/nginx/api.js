// An API that knows nothing of sessions, in no framework: it answers what it was sent, and /status/418 with a 418.
import { createServer } from 'node:http'

export function createApi () {
  return createServer((request, response) => {
    const headers = []
    for (let i = 0; i < request.rawHeaders.length; i += 2) headers.push([request.rawHeaders[i], request.rawHeaders[i + 1]])
    let body = ''
    request.setEncoding('utf8').on('data', chunk => { body += chunk }).on('end', () => {
      console.log(`The API was asked ${request.method} ${request.url}`)
      response.statusCode = Number(/^\/status\/([2-5]\d\d)$/.exec(request.url)?.[1] ?? 200)
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ method: request.method, url: request.url, headers, body }))
    })
  })
}
