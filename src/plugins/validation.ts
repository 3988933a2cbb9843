import { isUtf8 } from 'node:buffer'
import AjvCompiler from '@fastify/ajv-compiler'
import { SerializerSelector } from '@fastify/fast-json-stringify-compiler'
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchemaCompiler, FastifySchemaValidationError, FastifySerializerCompiler, HookHandlerDoneFunction } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError, validationError, type ErrorDetail } from '../errors.js'
import { isObject } from '../is-object.js'
import { patternReasons } from '../schemas/api-key.js'
import { suggest } from '../suggest.js'

const maxDetails = 20
const maxDepth = 100

/** What Fastify calls the parts of a request, and what people call them. */
const places: Record<string, string> = { querystring: 'query string', params: 'path' }

/**
 * Strict validation for the scope it is registered in: bodies are taken as they are, with no value converted or added
 * and no unknown field dropped, because a client's typo must not become a silent no-op, nor a schema's default
 * something that a session was told to hold. Parameters and query strings, which
 * have no types, are converted.
 */
export default fp(async (fastify) => {
  // Compiled at start, when all schemas have been added.
  const validatorCompiler = once(() => buildValidatorCompiler(fastify.getSchemas()))
  // What a session holds is answered as it is: by its schema a serializer would add defaults, convert, leave out, and fail for
  // what was stored before the host changed the schema.
  const serializerCompiler = once(() => leavingErrors(SerializerSelector()({ ...fastify.getSchemas(), SessionDefaults: { $id: 'SessionDefaults' } }, {}) as FastifySerializerCompiler<unknown>))
  // The scope starts without the host's schemas, of which one may have the name of one of ours; the scopes inside it
  // take over what it has.
  let isOutermost = true
  fastify.setSchemaController({
    // Of a scope that gets another schema Fastify makes the compilers anew, by this: the host may add some after the registration.
    compilersFactory: { buildValidator: () => validatorCompiler as never, buildSerializer: () => serializerCompiler as never },
    bucket (parent) {
      const inherited = isOutermost ? {} : parent as Record<string, unknown>
      isOutermost = false
      return createBucket(fastify, inherited)
    }
  })
  // Set for the scopes inside as well, which would otherwise inherit compilers of the host's own: they need not know
  // JSON Schema.
  fastify.setValidatorCompiler(validatorCompiler)
  fastify.setSerializerCompiler(serializerCompiler)

  fastify.setSchemaErrorFormatter((errors, where) => validationError(places[where] ?? where, inOne(errors).slice(0, maxDetails).map(describe)))

  // Clients generated from the contract send a JSON content type with requests that have no body.
  const parseJson = fastify.getDefaultJsonParser('error', 'error')
  fastify.removeAllContentTypeParsers()
  fastify.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, bytes: Buffer, done) => {
    if (bytes.length === 0) return done(null, undefined)
    const encoding = request.headers['content-encoding'] ?? 'identity'
    if (encoding.trim().toLowerCase() !== 'identity') return done(new ApiError('UNSUPPORTED_MEDIA_TYPE', { message: `A body with Content-Encoding ${encoding.slice(0, 50)} is not read. Send it without.` }))
    // What is none would be stored with other characters in its place.
    if (!isUtf8(bytes)) return done(notUtf8())
    const body = bytes.toString()
    if (nestsTooDeep(body)) return done(new ApiError('INVALID_JSON', { message: `The body is not taken: it is nested more than ${maxDepth} levels deep.` }))
    void parseJson(request, body, (error, value) => {
      if (error) return done(invalidJson(body))
      const infinite = mayBeInfinite.test(body) ? pathToInfinity(value) : undefined
      if (infinite === undefined) done(null, value)
      else done(validationError('body', [{ field: shorten(infinite.join('.')) || '(root)', reason: 'must be a finite number' }]))
    })
  })
  // Some clients name the type of forms where they send nothing.
  fastify.addContentTypeParser('*', ({ headers }, _payload, done) => {
    const isEmpty = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0
    done(isEmpty ? null : new ApiError('UNSUPPORTED_MEDIA_TYPE'))
  })
}, { name: 'validation', fastify: '5.x' })

/**
 * A `preValidation` hook that refuses a query string. By what was sent, rather than by a schema: what a host's own parser makes of
 * nothing may be anything.
 */
export function requireNoQuery ({ raw }: FastifyRequest, _reply: FastifyReply, done: HookHandlerDoneFunction): void {
  const at = raw.url!.indexOf('?')
  const names = at === -1 ? [] : [...new Set(new URLSearchParams(raw.url!.slice(at + 1)).keys())]
  if (names.length === 0) return done()
  const reason = 'is not a known field: this operation takes none in its query string'
  done(validationError(places.querystring!, names.slice(0, maxDetails).map(name => ({ field: shorten(name) || '(empty)', reason }))))
}

/** A compiler that is made when it is first used. */
function once<Route, Result> (build: () => (route: Route) => Result): (route: Route) => Result {
  let compile: ((route: Route) => Result) | undefined
  return route => (compile ??= build())(route)
}

/**
 * The compiler, but for errors, which get a serializer that takes anything: the API's are serialized before it comes to that, and
 * what a host's hooks answer in their place is the host's. They are nearly all that there would be to compile.
 */
function leavingErrors (compile: FastifySerializerCompiler<unknown>): FastifySerializerCompiler<unknown> {
  return route => Number(route.httpStatus) < 400 ? compile(route) : serializeError
}

/** Where a host's hook fails while an error is answered, Fastify asks it to be serialized, with its cause. */
function serializeError (payload: unknown): string {
  return JSON.stringify(payload instanceof Error ? new ApiError('INTERNAL_SERVER_ERROR') : payload)
}

function buildValidatorCompiler (schemas: Record<string, unknown>): FastifySchemaCompiler<unknown> {
  const build = AjvCompiler()
  const strict = { removeAdditional: false, allErrors: true, verbose: true } as const
  // The compilers take a route's schema with its place, whatever their type says.
  // Only what is sent: every object has a `constructor`, and sessions may hold a default of that name.
  const body = build(schemas as never, { customOptions: { ...strict, useDefaults: false, coerceTypes: false, ownProperties: true } }) as FastifySchemaCompiler<unknown>
  const other = build(schemas as never, { customOptions: { ...strict, useDefaults: true, coerceTypes: 'array' } }) as FastifySchemaCompiler<unknown>
  return route => route.httpPart === 'body' ? body(route) : refusingInfinity(other(route))
}

/** Ajv converts `1e999` to a number that is beyond every maximum, and compares only finite ones with it. */
function refusingInfinity (validate: Validate): Validate {
  const refusing: Validate = (data) => {
    const valid = validate(data)
    refusing.errors = validate.errors
    if (!valid) return false
    const infinite = Object.entries(data as object).find(([, value]) => typeof value === 'number' && !Number.isFinite(value))
    if (infinite === undefined) return true
    refusing.errors = [{ keyword: 'type', instancePath: `/${infinite[0]}`, schemaPath: '', params: {}, message: 'must be a finite number' }]
    return false
  }
  return refusing
}

type Validate = ReturnType<FastifySchemaCompiler<unknown>>

/** Whether brackets nest deeper than any value of ours, which reading and writing by recursion may not survive. */
function nestsTooDeep (body: string): boolean {
  let depth = 0
  let inString = false
  for (let i = 0; i < body.length; i++) {
    const code = body.charCodeAt(i)
    if (inString) {
      if (code === 0x5c) i++ // a backslash and what it escapes
      else if (code === 0x22) inString = false
    } else if (code === 0x22) inString = true
    else if (code === 0x5b || code === 0x7b) {
      if (++depth > maxDepth) return true
    } else if (code === 0x5d || code === 0x7d) depth--
  }
  return false
}

/** What a number looks like, within all else, that may be beyond what JavaScript's can be. */
const mayBeInfinite = /[eE]\+?\d{3}|(?<!\d)\d{200}/

/** Where a number is that was too large to be read: it would be stored, and answered, as null. */
function pathToInfinity (value: unknown): string[] | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : []
  if (!isObject(value)) return undefined
  for (const [name, inner] of Object.entries(value)) {
    const path = pathToInfinity(inner)
    if (path) return [name, ...path]
  }
  return undefined
}

export function notUtf8 (): ApiError {
  return new ApiError('INVALID_JSON', { message: 'The body is not valid JSON: it is not UTF-8. Send one JSON object.' })
}

export function invalidJson (body: string): ApiError {
  let reason = 'it sets __proto__ or constructor.prototype'
  try {
    JSON.parse(body)
  } catch (error) {
    // The parser quotes the body around the error; what it quotes may be secret.
    reason = (error as Error).message.replace(/, (\.\.\.)?".*"(\.\.\.)? is not valid JSON/s, '')
  }
  return new ApiError('INVALID_JSON', { message: `The body is not valid JSON: ${reason}. Send one JSON object.` })
}

function createBucket (fastify: FastifyInstance, inherited: Record<string, unknown>) {
  const schemas = { ...inherited }
  return {
    add (schema: unknown) {
      // One that the host adds later, whatever its name, takes the place of none of ours.
      schemas[(schema as { $id: string }).$id] ??= schema
      // Nobody reads it, but Fastify's type wants it.
      return fastify
    },
    getSchema: (id: string) => schemas[id],
    getSchemas: () => ({ ...schemas })
  }
}

/** What Ajv says with `verbose`, beside what Fastify's type knows. */
type VerboseError = FastifySchemaValidationError & { parentSchema?: { properties?: object }, schema?: unknown, data?: unknown }

/** A part of a union that is a value, values or a type by itself. */
interface Simple {
  const?: unknown
  enum?: unknown[]
  type?: unknown
}

/** What a union of values or types, such as TypeBox's of literals, is told of in one error rather than one for each part. */
function inOne (errors: readonly VerboseError[]): VerboseError[] {
  const told = new Set(errors.filter(({ keyword }) => !ofUnions.includes(keyword)).map(({ instancePath }) => instancePath))
  const unions = new Map<string, VerboseError>()
  for (const error of errors) {
    if (error.keyword !== 'anyOf') continue
    const parts = error.schema as Simple[]
    if (!parts.every(part => part.const !== undefined || part.enum !== undefined || simpleTypes.includes(String(part.type)))) continue
    // One of the types has more to say, such as a pattern.
    if (told.has(error.instancePath)) continue
    const values = parts.flatMap(part => part.enum ?? (part.const === undefined ? [] : [part.const]))
    const types = parts.filter(part => part.enum === undefined && part.const === undefined).map(({ type }) => String(type))
    unions.set(error.instancePath, types.length === 0
      ? { ...error, keyword: 'enum', params: { allowedValues: values.map(String) } }
      : { ...error, message: `must be ${[...values.map(value => JSON.stringify(value)), ...types].join(' or ')}` })
  }
  const isTold = ({ keyword, instancePath }: VerboseError) => unions.has(instancePath) && keyword !== 'anyOf'
  return errors.filter(error => !isTold(error)).map(error => error.keyword === 'anyOf' ? unions.get(error.instancePath) ?? error : error)
}

/** The keywords of what such a union says of a value. */
const ofUnions = ['anyOf', 'const', 'enum', 'type']

const simpleTypes = ['string', 'number', 'integer', 'boolean', 'null']

function describe (error: VerboseError): ErrorDetail {
  const path = error.instancePath.slice(1).replaceAll('/', '.').replaceAll('~1', '/').replaceAll('~0', '~')
  const inside = (name: unknown) => shorten(path === '' ? String(name) : `${path}.${String(name)}`)
  switch (error.keyword) {
    case 'required':
      return { field: inside(error.params.missingProperty), reason: 'is missing' }
    case 'additionalProperties': {
      const name = String(error.params.additionalProperty)
      const known = Object.keys(error.parentSchema?.properties ?? {})
      return { field: inside(name), reason: `is not a known field${suggest(name, known) || (known.length > 0 ? `; known are ${known.join(', ')}` : '')}` }
    }
    case 'enum': {
      const allowed = error.params.allowedValues as string[]
      const meant = typeof error.data === 'string' ? suggest(error.data, allowed) : ''
      return { field: path, reason: `must be one of ${allowed.join(', ')}${meant}` }
    }
    case 'pattern':
      return { field: shorten(path), reason: patternReasons[String(error.params.pattern)] ?? String(error.message) }
    default:
      return path === '' ? { field: '(root)', reason: describeRoot(error) } : { field: shorten(path), reason: String(error.message) }
  }
}

function describeRoot ({ keyword, parentSchema, message }: VerboseError): string {
  if (keyword === 'minProperties') return `must have at least one of ${Object.keys(parentSchema!.properties!).join(', ')}`
  return String(message).replace(/^must be object$/, 'must be a JSON object')
}

function shorten (name: string): string {
  return name.length > 100 ? `${name.slice(0, 100)}…` : name
}
