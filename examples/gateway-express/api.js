// An API that knows nothing of sessions: it answers with what it was given.
import express from 'express'

const api = express()
api.use(express.json())

const echo = status => ({ method, path, query, body = {}, headers }, response) => {
  const { 'x-principal-tier': tier, 'x-api-key': apiKey } = headers
  response.status(status).json({ received: `${method} ${path}`, query, body, tier, apiKey })
}
api.get('/quote', echo(200))
api.post('/transfers', echo(201))

export { api }
