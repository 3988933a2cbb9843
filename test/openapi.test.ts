import { readFileSync } from 'node:fs'
import t from 'tap'
import { errorCodes } from '../src/errors.js'
import { adminKey, createKey, createSession, startService, unknownSessionId } from './helpers.js'

interface Operation {
  operationId: string
  tags: string[]
  security: object[]
  parameters?: { in: string, name: string, required?: boolean, schema: object }[]
  requestBody?: { required: boolean, content: { 'application/json': { schema: { $ref: string } } } }
  responses: Record<string, { headers?: Record<string, object>, content: { 'application/json': { schema: { $ref?: string }, examples?: Record<string, { value: { error: { code: string } } }> } } }>
}

async function getDocument (t: Parameters<typeof startService>[0], publicUrl?: string) {
  const { service } = await startService(t, { publicUrl, connectionString: 'postgres://unused', migrate: false })
  const document = (await service.inject('/v1/openapi.json')).json()
  const operations: Record<string, Operation> = {}
  for (const [path, methods] of Object.entries(document.paths as Record<string, Record<string, Operation>>)) {
    for (const [method, operation] of Object.entries(methods)) operations[`${method.toUpperCase()} ${path}`] = operation
  }
  return { document, operations }
}

t.test('the four operations and their schemas have the names that generated clients know', async t => {
  const { document, operations } = await getDocument(t, 'https://sessions.example.com')
  t.equal(document.openapi, '3.1.0')
  t.strictSame(document.servers, [{ url: 'https://sessions.example.com' }])
  const contract: [operation: string, id: string, status: string, body?: string, response?: string][] = [
    ['POST /v1/sessions', 'createSession', '201', 'CreateSessionRequest', 'CreateSession201Response'],
    ['GET /v1/sessions/{id}', 'getSession', '200', undefined, 'GetSession200Response'],
    ['PATCH /v1/sessions/{id}', 'updateSession', '200', 'UpdateSessionRequest', 'UpdateSession200Response'],
    ['DELETE /v1/sessions/{id}', 'deleteSession', '200', undefined, 'DeleteSession200Response']
  ]
  for (const [name, id, status, body, response] of contract) {
    const operation = operations[name]!
    t.equal(operation.operationId, id)
    t.strictSame(operation.tags, ['Sessions'])
    t.strictSame(operation.security, [{ ApiKeyAuth: [] }, { BearerAuth: [] }])
    t.equal(operation.requestBody?.content['application/json'].schema.$ref, body && `#/components/schemas/${body}`)
    t.equal(operation.responses[status]!.content['application/json'].schema.$ref, `#/components/schemas/${response}`)
    const statuses = Object.keys(operation.responses).sort()
    t.strictSame(statuses, [status, '400', '401', '403', '429', '500', '503', ...(name.includes('{id}') ? ['404'] : []), ...(body ? ['413', '415'] : []), ...(id === 'createSession' ? ['409'] : [])].sort())
  }
  t.match(document.components.securitySchemes.ApiKeyAuth, { type: 'apiKey', in: 'header', name: 'X-API-Key' })
})

t.test('every request and every answer has an example', async t => {
  const { document, operations } = await getDocument(t)
  const hasExample = (schema: unknown): boolean => {
    const { $ref, examples, example, properties, type, items, const: constant } = schema as Record<string, never>
    if ($ref) return hasExample(document.components.schemas[($ref as string).split('/').at(-1)!])
    if (examples !== undefined || example !== undefined || constant !== undefined) return true
    if (type === 'array') return hasExample(items)
    return properties !== undefined && Object.values(properties).length > 0 && Object.values(properties).every(hasExample)
  }
  for (const [name, { requestBody, responses, parameters = [] }] of Object.entries(operations)) {
    if (requestBody) {
      const media = requestBody.content['application/json']
      t.ok('example' in media || hasExample(media.schema), `${name} body`)
    }
    for (const [status, { content }] of Object.entries(responses)) {
      const media = content['application/json']
      t.ok(media.examples || 'example' in media || hasExample(media.schema), `${name} ${status}`)
    }
    for (const parameter of parameters.filter(parameter => parameter.in === 'path')) t.ok('example' in parameter || hasExample(parameter.schema), `${name} ${parameter.name}`)
  }
})

t.test('the document tells of the headers of answers', async t => {
  const { operations } = await getDocument(t)
  const { service } = await startService(t, { tierLimits: { free: { requestsPerHour: 2 } } })
  const { key, headers } = await createKey(service)
  const free = await createKey(service, 'free')
  const sessionId = await createSession(service, key)
  const unknown = { 'x-session-id': unknownSessionId }
  const statuses: Record<string, number[]> = {}
  for (const [operation, request] of [
    ['POST /v1/sessions', { headers, payload: { defaults: {} } }],
    ['POST /v1/sessions', { headers, payload: {} }],
    ['POST /v1/sessions', { payload: {} }],
    ['GET /v1/sessions/{id}', { headers }],
    ['GET /v1/sessions/{id}', { headers: free.headers }],
    ['GET /v1/limits', { headers }],
    ['GET /v1/limits', { headers: { ...headers, ...unknown } }],
    ['GET /v1/resolve', { headers: { ...headers, 'x-session-id': sessionId } }],
    ['GET /v1/resolve', { headers: { ...headers, ...unknown } }],
    ['GET /v1/resolve', {}],
    ['POST /v1/resolve', { headers: { ...headers, 'x-session-id': sessionId }, payload: {} }],
    ['GET /v1/limits', { headers: free.headers }],
    ['POST /v1/resolve', { headers: free.headers, payload: {} }],
    ['GET /v1/errors', {}],
    ['GET /v1/errors', { headers: unknown }],
    ['GET /v1/admin/tiers', { headers: { 'x-api-key': adminKey } }],
    ['PATCH /v1/sessions/{id}', { headers, payload: { defaults: {} } }],
    ['DELETE /v1/sessions/{id}', { headers }]
  ] as const) {
    const [method, path] = operation.split(' ') as ['GET', string]
    const response = await service.inject({ method, url: path.replace('{id}', sessionId), ...request })
    const { statusCode } = response
    ;(statuses[operation] ??= []).push(statusCode)
    const documented = Object.keys(operations[operation]!.responses[statusCode]!.headers ?? {}).map(name => name.toLowerCase())
    // What a session does not hold has no header.
    const expected = documented.filter(name => name !== 'x-request-id' && !/^x-session-default-(?!chain)/.test(name))
    const sent = Object.keys(response.headers).filter(name => /^(?:retry-after|www-authenticate|ratelimit-|x-(?:principal|resolve|session)-)/.test(name))
    t.strictSame(sent.sort(), expected.sort(), `${operation} ${statusCode}`)
    t.ok(documented.includes('x-request-id') && 'x-request-id' in response.headers)
  }
  t.strictSame(statuses, {
    'POST /v1/sessions': [201, 400, 401],
    'GET /v1/sessions/{id}': [200, 403],
    'GET /v1/limits': [200, 404, 200],
    'GET /v1/resolve': [200, 404, 401],
    'POST /v1/resolve': [200, 429],
    'GET /v1/errors': [200, 401],
    'GET /v1/admin/tiers': [200],
    'PATCH /v1/sessions/{id}': [200],
    'DELETE /v1/sessions/{id}': [200]
  })
})

t.test('integers that 32 bits do not hold say so', async t => {
  const { document } = await getDocument(t)
  const large: [path: string, format: unknown][] = []
  const visit = (value: unknown, path: string) => {
    if (typeof value !== 'object' || value === null) return
    const { type, maximum, format } = value as Record<string, unknown>
    if (type === 'integer' && Number(maximum) >= 2 ** 31) large.push([path, format])
    for (const [name, part] of Object.entries(value)) visit(part, `${path}/${name}`)
  }
  visit(document, '')
  t.ok(large.length > 10)
  for (const [path, format] of large) t.equal(format, 'int64', path)
})

t.test('what may be left out is not required', async t => {
  const { operations } = await getDocument(t)
  const required = Object.values(operations).flatMap(({ parameters = [] }) => parameters).filter(parameter => parameter.required)
  t.strictSame([...new Set(required.map(parameter => `${parameter.in} ${parameter.name}`))], ['path id'])
  const optional = Object.values(operations).filter(({ requestBody }) => requestBody?.required === false)
  t.strictSame(optional.map(({ operationId }) => operationId).sort(), ['postResolve', 'rotateApiKey'])
})

t.test('Swagger UI finds its files where clients reach it', async t => {
  for (const [publicUrl, prefix] of [[undefined, ''], ['https://example.com', ''], ['https://example.com/sessions/', '/sessions']] as const) {
    const { service } = await startService(t, { publicUrl, docs: '/docs', connectionString: 'postgres://unused', migrate: false })
    t.match((await service.inject('/docs')).body, `src="${prefix}/docs/static/swagger-ui-bundle.js"`)
    t.match((await service.inject('/docs/')).body, 'src="./static/swagger-ui-bundle.js"')
  }
})

t.test('the codes of errors.ts, the document and docs/errors.md are the same', async t => {
  const { document, operations } = await getDocument(t)
  const codes = Object.keys(errorCodes).sort()
  const documented = new Set<string>()
  for (const [name, { responses }] of Object.entries(operations)) {
    for (const [status, { content }] of Object.entries(responses)) {
      for (const { value } of Object.values(content['application/json'].examples ?? {})) {
        documented.add(value.error.code)
        t.equal(String(errorCodes[value.error.code as keyof typeof errorCodes]?.status), status, `${name}: ${value.error.code}`)
      }
    }
  }
  // What no operation answers: that there is none, that a request never arrived whole, and what became of requests to the
  // API behind the gateway.
  t.strictSame([...documented, 'NOT_FOUND', 'REQUEST_HEADERS_TOO_LARGE', 'REQUEST_TIMEOUT', 'UPSTREAM_TIMEOUT', 'UPSTREAM_UNAVAILABLE'].sort(), codes)
  t.strictSame([...document.components.schemas.ErrorResponse.properties.error.properties.code.enum].sort(), codes)

  const table = readFileSync('docs/errors.md', 'utf8').split('\n').filter(line => line.startsWith('| `'))
  t.strictSame(table, Object.entries(errorCodes).map(([code, { status, description }]) => `| \`${code}\` | ${status} | ${description} |`))
})
