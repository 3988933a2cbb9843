// A server of the benchmark "load", in a process of its own: the kind is the first argument.
//
//   bare       Fastify with nothing registered, routes that answer the same JSON
//   service    the service as npm start runs it, with a host route
//   unbatched  the same, with each item of a batch sent by itself at once
//   naive      the obvious way of the same: for each request one query for the key, which counts it against the key's limit,
//              and one for the session
//   uncounted  the same, where the query for the key only looks it up
//
// All log as the service does: one line for each request, to the standard output.
import { registerHooks } from './unbatched-hooks.js'

const kind = process.argv[2]
if (kind === 'unbatched') registerHooks()

const { default: Fastify } = await import('fastify')
const { default: pg } = await import('pg')
const { createService } = await import('../dist/service.js')
const { hashApiKey } = await import('../dist/api-key.js')
const { loggerOptions, RequestLog } = await import('../dist/logging.js')
const { standardOutput } = await import('../dist/standard-output.js')
const { countRequests } = await import('../dist/plugins/request-count-repository.js')
const { encryptionKey } = await import('./load-data.js')

const connectionString = process.env.DATABASE_URL
const text = { type: 'string' }
const limit = 2_000_000_000
const findKeyText = 'select id, tier, 0 as requests from sipher_sessions.api_keys where secret_hash = $1 and revoked_at is null and (expires_at is null or expires_at > now())'
const countKeyText = `with found as (${findKeyText}), counted as (${countRequests('3600000', 'select id, 1 from found')})
  select id, tier, counted.requests from found join counted on principal_id = id`
const transfer = {
  schema: {
    body: { type: 'object', required: ['amount'], properties: { amount: { type: 'number' }, chain: text, privacyLevel: text } },
    response: { 200: { type: 'object', properties: { amount: { type: 'number' }, chain: text, privacyLevel: text } } }
  },
  handler: async ({ body }) => body
}

const server = await servers()
const origin = await server.listen({ host: '127.0.0.1', port: 0 })
process.on('message', message => {
  if (message === 'usage') process.send({ cpu: process.cpuUsage(), rss: process.memoryUsage().rss })
})
process.on('disconnect', () => process.exit())
process.send({ origin })

async function servers () {
  if (kind === 'bare') return bare()
  if (kind === 'naive') return naive(countKeyText)
  if (kind === 'uncounted') return naive(findKeyText)
  const service = createService({ connectionString, encryptionKeys: [encryptionKey], tierLimits: { pro: { requestsPerHour: limit, maxSessions: 2_000_000_000 } } })
  await service.after()
  service.post('/transfer', transfer)
  return service
}

function fastify () {
  return Fastify({ logger: { ...loggerOptions, stream: standardOutput() }, logController: new RequestLog() })
}

function bare () {
  const app = fastify()
  const time = { type: 'integer' }
  const defaults = { type: 'object', properties: { chain: text, privacyLevel: text } }
  const answers = {
    create: { sessionId: text, defaults, createdAt: time, expiresAt: time },
    get: { sessionId: text, defaults, createdAt: time, expiresAt: time, lastAccessedAt: time },
    patch: { sessionId: text, defaults, expiresAt: time, lastAccessedAt: time },
    delete: { sessionId: text, deleted: { type: 'boolean' } }
  }
  const envelope = (status, properties) => ({ response: { [status]: { type: 'object', properties: { success: { type: 'boolean' }, data: { type: 'object', properties } } } } })
  const session = { sessionId: `sess_${'0'.repeat(64)}`, defaults: { chain: 'near', privacyLevel: 'shielded' }, createdAt: 1789551600000, expiresAt: 1789555200000, lastAccessedAt: 1789552800000, deleted: true }
  const answer = { success: true, data: session }
  const body = { type: 'object', required: ['defaults'], properties: { defaults, ttlSeconds: time } }
  app.post('/transfer', { ...transfer, handler: async ({ body }) => ({ ...body, chain: 'near', privacyLevel: 'shielded' }) })
  app.post('/v1/sessions', { schema: { body, ...envelope(201, answers.create) } }, async (_request, reply) => reply.code(201).send(answer))
  app.get('/v1/sessions/:id', { schema: envelope(200, answers.get) }, async () => answer)
  app.patch('/v1/sessions/:id', { schema: { body, ...envelope(200, answers.patch) } }, async () => answer)
  app.delete('/v1/sessions/:id', { schema: envelope(200, answers.delete) }, async () => answer)
  return app
}

function naive (keyText) {
  const app = fastify()
  const pool = new pg.Pool({ connectionString, max: 10 })
  app.addHook('preValidation', async (request, reply) => {
    const key = await pool.query(keyText, [hashApiKey(request.headers['x-api-key'])])
    if (key.rows.length === 0) return reply.code(401).send({})
    if (key.rows[0].requests > limit) return reply.code(429).send({})
    const session = await pool.query('select defaults from sipher_sessions.sessions where id = $1 and owner_id = $2 and expires_at > now()', [Buffer.from(request.headers['x-session-id'].slice(5), 'hex'), key.rows[0].id])
    if (session.rows.length === 0) return reply.code(404).send({})
    request.body = { ...session.rows[0].defaults, ...request.body }
  })
  app.post('/transfer', transfer)
  return app
}
