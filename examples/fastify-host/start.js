import { runExample } from '../shared/run.js'

await runExample(async ({ connectionString, onEnd }) => {
  const { createApp } = await import('./app.js')
  const app = await createApp(connectionString)
  onEnd(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 0) })

  const created = await app.inject({
    method: 'POST',
    url: '/v1/sessions',
    headers: { authorization: 'Bearer token-of-ann' },
    payload: { defaults: { currency: 'EUR', speed: 'instant' } }
  })
  const { sessionId } = created.json().data
  console.log(`
The host is listening on ${url}; ann has a session with currency EUR and speed instant

Her request leaves both out:

curl -sS ${url}/payments -H 'Authorization: Bearer token-of-ann' -H 'X-Session-Id: ${sessionId}' -H 'Content-Type: application/json' -d '{"amount":5}'
`)
})
