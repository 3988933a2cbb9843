import { Ajv2020 } from 'ajv/dist/2020.js'
import { createService } from '../../dist/service.js'
import { adminKey, createRandom, encryptionKeys, startPostgres, withCleanup } from './harness.js'

export const name = 'hostile input, made from the service\'s own OpenAPI document'

/**
 * Takes each operation's parameters and body from the document, breaks them in one or a few places, and holds the
 * answer against the document: no 5xx, a declared status, a valid body, and nothing accepted that the schema forbids.
 */
export function run ({ short, seed, pooler }) {
  return withCleanup(async defer => {
    const cases = short ? 200 : 2000
    const random = createRandom(seed)
    const postgres = await startPostgres(defer, { pooler })
    const service = createService({ connectionString: postgres.connectionString, ...postgres.options, logLevel: 'silent', rateLimit: false, adminKey, encryptionKeys, tierLimits: { pro: { maxSessions: 1_000_000 } } })
    defer(() => service.close())
    await service.ready()
    const { secret: key } = await service.apiKeyRepository.create({ tier: 'pro', name: 'hostile' })
    const document = (await service.inject('/v1/openapi.json')).json()
    const ajv = new Ajv2020({ strict: false, allErrors: false, validateFormats: false })
    ajv.addSchema(document, 'document')
    const validator = (...path) => ajv.compile({ $ref: `document#/${path.map(step => encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}` })

    const problems = []
    let sent = 0
    let accepted = 0
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const at = ['paths', path, method]
        const isAdmin = operation.security?.some(scheme => 'AdminKeyAuth' in scheme)
        const isOpen = !operation.security?.length
        const bodySchema = operation.requestBody?.content['application/json'].schema
        const validBody = bodySchema && validator(...at, 'requestBody', 'content', 'application/json', 'schema')
        const validAnswers = Object.fromEntries(Object.keys(operation.responses).map(status => [status, validator(...at, 'responses', status, 'content', 'application/json', 'schema')]))
        const parameters = operation.parameters ?? []
        const validParameters = parameters.map((_parameter, i) => validator(...at, 'parameters', String(i), 'schema'))
        const acceptedBefore = accepted
        const complain = (what, request, response) => {
          if (problems.length < 10) problems.push(`${method} ${path}: ${what}\n    ${JSON.stringify(request).slice(0, 500)}\n    ${response.statusCode} ${response.body.slice(0, 300)}`)
          else problems.push('')
        }
        const check = (request, response) => {
          sent++
          const { statusCode } = response
          if (statusCode >= 500) complain('a 5xx', request, response)
          const valid = validAnswers[statusCode]
          if (!valid) return complain('a status that the document does not declare', request, response)
          let body
          try {
            body = response.json()
          } catch {
            return complain('an answer that is not JSON', request, response)
          }
          if (!valid(body)) complain(`an answer that the document does not allow: ${ajv.errorsText(valid.errors)}`, request, response)
        }

        for (let i = 0; i < cases; i++) {
          const generate = schema => generateValue(schema, document, random)
          let forbidden = false
          let url = path
          const query = []
          const headers = { 'x-api-key': isAdmin ? adminKey : key }
          for (const [i, parameter] of parameters.entries()) {
            const valid = String(generate(parameter.schema))
            const value = random() < 0.5 ? valid : hostileText(random)
            const sent = value.toWellFormed() || ' '
            const isForbidden = !validParameters[i](parameter.schema.type === 'integer' ? Number(sent) : sent)
            if (parameter.in === 'path') {
              url = url.replace(`{${parameter.name}}`, encodeURIComponent(sent))
              forbidden ||= isForbidden
            } else if (parameter.in === 'query' && random() < 0.5) {
              query.push(`${parameter.name}=${encodeURIComponent(sent)}`)
              forbidden ||= isForbidden
            } else if (parameter.in === 'header' && random() < 0.3) headers[parameter.name] = /^[\x20-\x7e]*$/.test(value) ? value : 'x'
          }
          if (random() < 0.1) query.push(`${encodeURIComponent(hostileText(random).toWellFormed())}=1`)
          const request = { method: method.toUpperCase(), url: query.length > 0 ? `${url}?${query.join('&')}` : url, headers }
          if (bodySchema) {
            const body = mutate(generate(bodySchema), random)
            const text = random() < 0.1 ? hostileText(random) : JSON.stringify(body)
            // A request without a body gets an empty object.
            forbidden ||= !isAllowed(validBody, text === '' ? '{}' : text)
            request.payload = random() < 0.02 ? Buffer.from([0xff, 0xfe, 0x00, 0x7b]) : text
            if (Buffer.isBuffer(request.payload)) forbidden = true
            headers['content-type'] = random() < 0.95 ? 'application/json' : 'text/plain'
          } else if (method === 'delete' && random() < 0.2) {
            request.payload = hostileText(random)
            headers['content-type'] = random() < 0.5 ? 'application/json' : 'text/plain'
          }
          const response = await service.inject(request)
          check(request, response)
          if (response.statusCode < 300) {
            accepted++
            if (forbidden) complain('accepted what the schema forbids', request, response)
          }
          if (!isOpen && i % 20 === 0) {
            const { 'x-api-key': _, ...others } = headers
            for (const [what, sentHeaders] of [['no key', others], ['a wrong key', { ...others, 'x-api-key': `${key}0` }], ['another kind of key', { ...others, 'x-api-key': isAdmin ? key : adminKey }]]) {
              const refused = await service.inject({ ...request, headers: sentHeaders })
              check(request, refused)
              if (refused.statusCode < 400) complain(`usable with ${what}`, request, refused)
            }
          }
        }
        // Of those with an id none exists that was made up.
        if (accepted === acceptedBefore && !path.includes('{')) problems.push(`${method} ${path}: nothing was accepted`)
      }
    }
    return { did: [`${sent} requests, ${cases} cases for each operation, seed ${seed}; ${accepted} accepted; ${problems.length} problems`, ...problems.filter(problem => problem !== '')].join('\n  '), passed: problems.length === 0 }
  })
}

function isAllowed (validate, text) {
  try {
    return validate(JSON.parse(text))
  } catch {
    return false
  }
}

function resolve (schema, document) {
  while (schema?.$ref) schema = schema.$ref.slice(2).split('/').reduce((at, step) => at[step.replaceAll('~1', '/').replaceAll('~0', '~')], document)
  return schema ?? {}
}

/** A value that the schema allows, as far as this project's schemas go; where there are examples, mostly one of them. */
function generateValue (given, document, random) {
  const schema = resolve(given, document)
  const pick = list => list[Math.floor(random() * list.length)]
  if (schema.const !== undefined) return schema.const
  if (schema.enum) return pick(schema.enum)
  if (schema.anyOf) return generateValue(pick(schema.anyOf), document, random)
  if (schema.properties) {
    const value = {}
    for (const [name, property] of Object.entries(schema.properties)) {
      if (schema.required?.includes(name) || random() < 0.6) value[name] = generateValue(property, document, random)
    }
    return value
  }
  const examples = schema.examples ?? (schema.example !== undefined ? [schema.example] : [])
  if (examples.length > 0 && random() < 0.9) return structuredClone(pick(examples))
  switch (schema.type) {
    case 'integer':
    case 'number': return (schema.minimum ?? 0) + Math.floor(random() * 1000)
    case 'boolean': return random() < 0.5
    case 'array': return [generateValue(schema.items ?? {}, document, random)]
    case 'object': return { [hostileText(random)]: 1 }
    default: return 'x'.repeat(Math.max(1, schema.minLength ?? 1))
  }
}

const texts = [
  '', ' ', '0', '-1', 'null', 'true', '1e999', '0x', `0x${'f'.repeat(2000)}`, '\u0000', 'a\u0000b', '\ud800', '\u202e', 'ä'.repeat(200), 'x'.repeat(5000), '__proto__', 'constructor',
  'prototype', 'toString', '../../etc/passwd', '%00', '%2e%2e%2f', '\'; drop table sipher_sessions.sessions; --', '{{7*7}}', '<script>alert(1)</script>', 'a\r\nX-Injected: 1',
  `sess_${'0'.repeat(64)}`, `sess_${'f'.repeat(63)}`, `sess_${'F'.repeat(64)}`, `key_${'0'.repeat(32)}`, '{"defaults":{}}', '[', '{"a":', '{"__proto__":{"a":1}}', `${'['.repeat(5000)}${']'.repeat(5000)}`
]

function hostileText (random) {
  return texts[Math.floor(random() * texts.length)]
}

const hostileValues = [null, true, false, 0, -1, 1.5, 1e308, 2 ** 53, '', [], {}, [[]], [null], { toString: 1 }, { defaults: {} }, '600', Number.MAX_SAFE_INTEGER]

/** The value with none, one or a few of its places broken. */
function mutate (value, random) {
  let result = value
  for (let changes = Math.floor(random() * 3); changes > 0; changes--) result = mutateOnce(result, random)
  return result
}

function mutateOnce (value, random) {
  const hostile = () => random() < 0.5 ? hostileText(random) : hostileValues[Math.floor(random() * hostileValues.length)]
  if (typeof value !== 'object' || value === null || random() < 0.1) return hostile()
  if (Array.isArray(value)) return [...value, hostile()]
  const names = Object.keys(value)
  const name = names[Math.floor(random() * names.length)]
  const chance = random()
  if (name === undefined || chance < 0.25) return { ...value, [hostileText(random)]: hostile() }
  if (chance < 0.45) return Object.fromEntries(Object.entries(value).filter(([other]) => other !== name))
  return { ...value, [name]: mutateOnce(value[name], random) }
}
