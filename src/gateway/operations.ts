import FindMyWay, { type HTTPMethod, type HTTPVersion, type Instance } from 'find-my-way'
import { decode } from '../decode.js'
import { validationError } from '../errors.js'
import { type Placement } from '../fill-defaults.js'
import { planDefaults, type DefaultsPlan } from '../plan-defaults.js'
import { resolveReference } from '../schemas/properties.js'
import { isJson } from './apply-defaults.js'
import { isObject, type OpenApiDocument } from './document.js'

const methods = ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'DELETE', 'TRACE'] as const

type Router = Instance<HTTPVersion.V1>

/** The operations of an upstream's document, with what each takes of a session. */
export interface Operations {
  /**
   * What the operation takes that a request is for; undefined where the document has none for it.
   *
   * @throws VALIDATION_ERROR for a path that servers take for different operations
   */
  find: (method: string, path: string) => DefaultsPlan | undefined
  /** The defaults that no operation takes. */
  unread: string[]
  /** References into other documents, which are not read. */
  foreign: string[]
}

/**
 * Finds the operations of a document by method and path. The paths begin where its `servers` say, or where the
 * upstream does.
 *
 * @throws Error when the document is not what OpenAPI says
 */
export function createOperations (document: OpenApiDocument, upstream: URL, placements: readonly Placement[]): Operations {
  const exact = createRouter({})
  // Many frameworks take `/Quote/` for `/quote`; a request for it must not go without what `/quote` takes.
  const lenient = createRouter({ caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true })
  const unread = new Set(placements.map(({ name }) => name))
  const foreign = new Set<string>()
  const resolve = (value: unknown): unknown => followReferences(value, document, foreign)

  for (const [template, reference] of Object.entries(document.paths ?? {})) {
    const item = resolve(reference)
    if (!isObject(item)) continue
    for (const method of methods) {
      const operation = resolve(item[method.toLowerCase()])
      if (!isObject(operation)) continue
      const query = querySchema([item.parameters, operation.parameters], resolve)
      const body = method === 'GET' || method === 'HEAD' ? undefined : bodySchema(resolve(operation.requestBody))
      // Something for both, because the document has described them: what it leaves out is not taken.
      const plan = planDefaults(placements, body ?? {}, query, id => { foreign.add(id) }, document)
      for (const { name } of [...plan.body, ...plan.query]) unread.delete(name)
      const route = toRoute(template)
      for (const router of [exact, lenient]) {
        if (!router.hasRoute(method, route)) router.on(method, route, () => {}, plan)
      }
    }
  }

  const prefixes = new Set([...(document.servers ?? []).map(server => serverPath(server, upstream)), basePath(upstream.pathname)])
  const candidates = (path: string) => [...prefixes].flatMap(prefix => path.startsWith(`${prefix}/`) ? [path.slice(prefix.length)] : [])
  function findExactly (method: string, path: string): DefaultsPlan | undefined {
    for (const router of [exact, lenient]) {
      for (const candidate of candidates(path)) {
        const match = router.find(method as HTTPMethod, candidate) ?? (method === 'HEAD' ? router.find('GET', candidate) : null)
        if (match) return match.store as DefaultsPlan
      }
    }
    return undefined
  }
  return {
    find (method, path) {
      const plan = findExactly(method, path)
      if (!path.includes(';')) return plan
      // Servers of Java take `/quote;a=1` for `/quote` with a parameter of the segment's own, others for an operation like `/{name}`.
      const bare = findExactly(method, path.replaceAll(/;[^/]*/g, ''))
      if (plan && bare && plan !== bare) throw validationError('request', [{ field: 'url', reason: 'could be for two operations; encode the semicolon as %3B, or leave it out with what follows' }])
      return plan ?? bare
    },
    unread: [...unread],
    foreign: [...foreign]
  }
}

function createRouter (options: { caseSensitive?: boolean, ignoreTrailingSlash?: boolean, ignoreDuplicateSlashes?: boolean }): Router {
  return FindMyWay({ ...options, maxParamLength: 1_000_000 })
}

/** The value itself, or the one that its local `$ref` leads to. */
function followReferences (value: unknown, document: OpenApiDocument, foreign: Set<string>): unknown {
  const seen = new Set<unknown>()
  while (isObject(value) && typeof value.$ref === 'string' && !seen.has(value)) {
    seen.add(value)
    value = resolveReference(value.$ref, document, id => { foreign.add(id) }).schema
  }
  return value
}

/** The query parameters as the properties of an object. */
function querySchema (lists: unknown[], resolve: (value: unknown) => unknown): object {
  const parameters = lists.flatMap(list => Array.isArray(list) ? list.map(resolve) : [])
  return {
    properties: Object.fromEntries(parameters.flatMap(parameter =>
      isObject(parameter) && parameter.in === 'query' ? [[String(parameter.name), parameter.schema]] : []))
  }
}

/** What the operation takes as JSON; undefined where it takes none. */
function bodySchema (requestBody: unknown): object | undefined {
  if (!isObject(requestBody) || !isObject(requestBody.content)) return undefined
  const content = Object.entries(requestBody.content).filter(([mediaType]) => isJson(mediaType) || /^(\*|application)\/\*/.test(mediaType))
  return { content: Object.fromEntries(content) }
}

/**
 * `/files/{name}.json` as the router writes it. A segment with a parameter is matched as a whole, by an expression: a
 * parameter is never empty, which the router's own may be.
 */
function toRoute (template: string): string {
  return template.split('/').map((segment, index) => {
    const parts = segment.split(/(\{[^{}]+\})/)
    if (parts.length === 1 && !segment.includes('*')) return decode(segment).replaceAll(':', '::')
    return `:p${index}(^${parts.map((part, i) => i % 2 === 1 ? parameter(i, parts) : escape(decode(part))).join('')}$)`
  }).join('/')
}

/** Of several parameters of a segment each but the last ends where the text after it begins: nothing is tried twice. */
function parameter (i: number, parts: readonly string[]): string {
  const next = decode(parts[i + 1]!).charAt(0)
  return i === parts.length - 2 || next === '' ? '.+' : `[^${escape(next)}]+`
}

function escape (text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\-]/g, '\\$&')
}

function serverPath ({ url, variables = {} }: { url?: unknown, variables?: Record<string, { default?: unknown }> }, upstream: URL): string {
  const filled = String(url ?? '/').replaceAll(/\{([^{}]+)\}/g, (_all, name: string) => String(variables[name]?.default ?? ''))
  return URL.canParse(filled, upstream.href) ? basePath(new URL(filled, upstream).pathname) : ''
}

function basePath (path: string): string {
  return path.replace(/\/+$/, '')
}
