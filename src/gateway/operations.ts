import type { Placement } from '../defaults/fill-defaults.js'
import { isInRange, isJson } from '../defaults/media-type.js'
import { bodyPlacements, planDefaults } from '../defaults/plan-defaults.js'
import { validationError } from '../errors.js'
import { isRecord } from '../is-object.js'
import { resolveReference } from '../json-schema/references.js'
import type { OpenApiDocument } from './document.js'
import { serverPrefixes, type Prefix } from './servers.js'
import { canonical, createTemplateRouter, isLiteral, type Operation, type OperationPlan, type TemplateRouter } from './template-router.js'

const methods = ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'DELETE', 'TRACE'] as const

const fillableTypes = ['application/json', 'application/x-www-form-urlencoded'] as const

/** In the place of an empty segment: what is no literal of a document's. */
const anything = '\u{f8ff}'

/** The operations of an upstream's document, with what each takes of a session. */
export interface Operations {
  /**
   * What the operation takes that a request is for; undefined where the document has none for it.
   *
   * @throws VALIDATION_ERROR for a path that servers take for different operations
   */
  find: (method: string, path: string) => OperationPlan | undefined
  /** The defaults that no operation takes. */
  unread: string[]
  /** References into other documents, which are not read. */
  foreign: string[]
  /** Paths of the document that no request's is. */
  unreachable: string[]
}

/**
 * Finds the operations of a document by method and path. The paths begin where its `servers` say, or where the
 * upstream does.
 *
 * @param bases what the URLs of `servers` may be relative to; the upstream's is the last of them
 * @param untold what an operation takes where the document refers to another one
 * @throws Error when the document is not what OpenAPI says
 */
export function createOperations (document: OpenApiDocument, bases: readonly URL[], placements: readonly Placement[], untold: readonly Placement[]): Operations {
  const all: Operation[] = []
  const unread = new Set(placements.map(({ name }) => name))
  const foreign = new Set<string>()
  const unreachable: string[] = []
  const servers: object[] = serversIn(document.servers, 'servers')
  const resolve = (value: unknown): unknown => followReferences(value, document, foreign)

  for (const [template, own] of Object.entries(document.paths ?? {})) {
    const referred = resolve(own)
    if (!isRecord(own) || !isRecord(referred) || template.startsWith('x-')) continue
    const reachable = templatesOf(template)
    if (reachable.length === 0) unreachable.push(template)
    // What stands beside a reference counts as well.
    const item = { ...referred, ...own }
    for (const method of methods) {
      const operation = resolve(item[method.toLowerCase()])
      if (!isRecord(operation) || operation.$ref !== undefined) continue
      if (!template.startsWith('/')) throw new Error(`its path ${JSON.stringify(template)} does not begin with a slash`)
      const query = querySchema([referred.parameters, own.parameters, operation.parameters], resolve)
      const body = resolve(operation.requestBody)
      const content = method === 'GET' || method === 'HEAD' ? {} : contentOf(body)
      // A schema for the body and one for the query string, also where the document has none: an operation that it describes takes
      // nothing that it leaves out.
      const plan = {
        ...planDefaults(placements, contentOfTypes(content, isFillableType), query.schema, () => undefined, { root: document, untold }),
        jsonParameters: query.jsonParameters,
        bracketed: query.bracketed,
        unfillable: planDefaults(placements, contentOfTypes(content, isOtherType), undefined, () => undefined, { root: document, untold: [] }).bodyByType,
        mediaTypes: isRecord(body) && body.$ref !== undefined ? null : Object.keys(content)
      }
      for (const id of plan.lost) foreign.add(id)
      if (reachable.length > 0) for (const { name } of [...plan.body, ...plan.query]) unread.delete(name)
      all.push(...reachable.map(template => ({ method, template, plan })))
      servers.push(...[referred.servers, own.servers, operation.servers].flatMap(list => serversIn(list, `the servers of ${method} ${template}`)))
    }
  }

  // Those of a path or an operation count for all: where it is there as well, it is the same.
  const prefixes = serverPrefixes(servers, bases)
  const lenientPrefixes = prefixes.map(group => group.map(({ source }) => new RegExp(source, 'i')))
  const literal = new Set(all.filter(isLiteral))
  const exact = createTemplateRouter(all)
  // Many frameworks take `/Quote/` for `/quote`; a request for it must not go without what `/quote` takes.
  const lenient = createTemplateRouter(all, { lenient: true })

  /** @param prefixes in groups, of which the first counts by whose prefixes there is something */
  function lookUp (find: TemplateRouter['find'], prefixes: readonly (readonly Prefix[])[], method: string, path: string): Operation[] {
    const segments = path.split('/')
    const meant = canonical(path)
    for (const group of prefixes) {
      const all = new Set<Operation>()
      for (const prefix of group) {
        const match = prefix.exec(meant)
        if (!match) continue
        const rest = ['', ...segments.slice(match[0].split('/').length)].join('/')
        const restMeant = meant.slice(match[0].length)
        const found = find(method, rest, restMeant)
        // Where servers have none for HEAD they answer it by the one for GET.
        if (method === 'HEAD' && !isCertain(found)) found.push(...find('GET', rest, restMeant).filter(({ template }) => found.every(own => own.template !== template)))
        for (const operation of found) all.add(operation)
      }
      if (all.size > 0) return [...all]
    }
    return []
  }

  /** Whether no server takes the path for anything else. */
  function isCertain (found: readonly Operation[]): boolean {
    return found.length === 1 && literal.has(found[0]!)
  }

  /** What servers take the path for, the likeliest first. */
  function candidates (kind: keyof TemplateRouter, method: string, path: string): OperationPlan[] {
    const found = lookUp(exact[kind], prefixes, method, path)
    if (isCertain(found)) return [found[0]!.plan]
    return [...found, ...lookUp(lenient[kind], lenientPrefixes, method, path.replaceAll(/\/+/g, '/'))].map(({ plan }) => plan)
  }

  /** What Fastify takes a path with empty segments for: its parameters may be empty, unless a template has the segment empty itself. */
  function withEmptyParameters (method: string, path: string): OperationPlan[] {
    const filled = path.replaceAll(/(?<=\/)(?=\/|$)/g, anything)
    if (filled === path) return []
    const literalCount = ({ template }: Operation) => template.split('/').filter(segment => segment !== '' && !/[{*]/.test(segment)).length
    const most = Math.max(-1, ...lookUp(exact.find, prefixes, method, path).map(literalCount))
    const found = [...lookUp(exact.find, prefixes, method, filled), ...lookUp(lenient.find, lenientPrefixes, method, filled)]
    return found.filter(operation => literalCount(operation) > most).map(({ plan }) => plan)
  }

  return {
    find (method, path) {
      const find = (kind: keyof TemplateRouter) => readings(path).flatMap(reading => candidates(kind, method, reading))
      const found = find('find')
      const [plan, ...others] = [...found.length > 0 ? found : find('findWildcards'), ...withEmptyParameters(method, path)]
      if (plan && others.some(other => !takesTheSame(plan, other))) {
        throw validationError('request', [{
          field: 'url',
          reason: 'could be for two operations that take different defaults, for servers differ over capital letters, %2F, semicolons, empty segments and templates that overlap; write it as the document does, with %3B for a semicolon, or send no X-Session-Id'
        }])
      }
      return plan
    },
    unread: [...unread],
    foreign: [...foreign],
    unreachable
  }
}

/** The servers of a list, where there is one. */
function serversIn (list: unknown, where: string): object[] {
  // Left empty in YAML it is null.
  const all = list ?? []
  if (!Array.isArray(all)) throw new Error(`${where} must be a list, such as [{ url: /v1 }]`)
  return all.filter(isRecord)
}

/**
 * What a path of the document stands for: with and without its last segment where that is optional, as Fastify's documents have it
 * (`/files/{id}?`). None where it has a query string or a fragment, which are no part of a path.
 */
function templatesOf (path: string): string[] {
  const [, before, optional] = /^(.*)(\/\{[^{}/]+\})\?$/s.exec(path) ?? []
  const templates = before === undefined ? [path] : [before + optional!, before === '' ? '/' : before]
  return templates.filter(template => !/[?#]/.test(template.replaceAll(/\{[^{}]*\}/g, '')))
}

/**
 * The path, and as what else servers read it: those of Python take `%2F` for a slash, those of Java `/quote;a=1` for `/quote` with
 * a parameter of the segment's own, and for Fastify 4 a query string begins there.
 */
function readings (path: string): string[] {
  const slashes = [path, path.replaceAll(/%2f/gi, '/')]
  return [...new Set([...slashes, ...slashes.flatMap(reading => [reading.replaceAll(/;[^/]*/g, ''), reading.split(';', 1)[0]!])])]
}

function takesTheSame (a: OperationPlan, b: OperationPlan): boolean {
  const isSame = (these: readonly Placement[], those: readonly Placement[]) => these.length === those.length && these.every((placement, i) => placement === those[i])
  const types = new Set([a, b].flatMap(({ bodyByType, unfillable }) => [...bodyByType.keys(), ...unfillable.keys()]))
  return isSame(a.body, b.body) && isSame(a.query, b.query) && [...types].every(type => {
    return isSame(bodyPlacements(a, type), bodyPlacements(b, type)) && isSame(a.unfillable.get(type) ?? [], b.unfillable.get(type) ?? [])
  })
}

/** The value itself, or the one that its local `$ref` leads to; with its `$ref` where that leads to another document. */
function followReferences (value: unknown, document: OpenApiDocument, foreign: Set<string>): unknown {
  const seen = new Set<unknown>()
  while (isRecord(value) && typeof value.$ref === 'string' && !seen.has(value)) {
    seen.add(value)
    let isForeign = false
    const { schema } = resolveReference(value.$ref, { root: document, document }, id => {
      foreign.add(id)
      isForeign = true
    })
    if (isForeign) break
    value = schema
  }
  return value
}

/**
 * The query parameters as the properties of an object; of one that is an object in its usual form, its own properties.
 *
 * @returns also the names of those that are JSON, and of those whose properties are in brackets
 */
function querySchema (lists: unknown[], resolve: (value: unknown) => unknown): { schema: object, jsonParameters: ReadonlySet<string>, bracketed: ReadonlySet<string> } {
  const parameters = lists.flatMap(list => Array.isArray(list) ? list.map(resolve).filter(isRecord) : [])
  const named = parameters.filter(parameter => parameter.in === 'query')
  return {
    schema: {
      properties: Object.fromEntries(named.map(parameter => [String(parameter.name), parameter.schema ?? (parameter.content && { content: parameter.content })])),
      allOf: parameters.flatMap(parameter => {
        // What another document says, of which it is not known whether it is about the query string.
        if (parameter.$ref !== undefined) return [parameter]
        // `style: form` and `explode: true`, which are the defaults: `?chain=near`, whatever the parameter's name.
        return parameter.in === 'query' && (parameter.style ?? 'form') === 'form' && parameter.explode !== false ? [parameter.schema] : []
      })
    },
    jsonParameters: new Set(named.filter(({ content }) => isRecord(content) && Object.keys(content).some(isJson)).map(({ name }) => String(name))),
    bracketed: new Set(named.filter(({ style }) => style === 'deepObject').map(({ name }) => String(name)))
  }
}

/** What the operation takes in its body, by media type. */
function contentOf (requestBody: unknown): object {
  if (!isRecord(requestBody)) return {}
  if (requestBody.$ref !== undefined) return { '*/*': { schema: requestBody } }
  return isRecord(requestBody.content) ? requestBody.content : {}
}

/** Whether bodies of a type, or of some of a range, are filled in: JSON and forms. */
function isFillableType (mediaType: string): boolean {
  return isJson(mediaType) || fillableTypes.some(type => isInRange(type, mediaType))
}

/** Whether it is another type, and no range. Bodies in parts are left alone. */
function isOtherType (mediaType: string): boolean {
  return !isFillableType(mediaType) && !/^multipart\/|\*/i.test(mediaType.trim())
}

function contentOfTypes (content: object, isOne: (mediaType: string) => boolean): object {
  return { content: Object.fromEntries(Object.entries(content).filter(([mediaType]) => isOne(mediaType))) }
}
