import { validationError } from '../errors.js'
import { type Placement } from '../fill-defaults.js'
import { planDefaults } from '../plan-defaults.js'
import { resolveReference } from '../schemas/properties.js'
import { isInRange, isJson } from './apply-defaults.js'
import { isObject, type OpenApiDocument } from './document.js'
import { createTemplateRouter, isLiteral, type Operation, type OperationPlan } from './template-router.js'

const methods = ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'DELETE', 'TRACE'] as const

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
}

/**
 * Finds the operations of a document by method and path. The paths begin where its `servers` say, or where the
 * upstream does.
 *
 * @param untold what an operation takes where the document refers to another one
 * @throws Error when the document is not what OpenAPI says
 */
export function createOperations (document: OpenApiDocument, upstream: URL, placements: readonly Placement[], untold: readonly Placement[]): Operations {
  const all: Operation[] = []
  const unread = new Set(placements.map(({ name }) => name))
  const foreign = new Set<string>()
  const servers: object[] = [...document.servers ?? []]
  const resolve = (value: unknown): unknown => followReferences(value, document, foreign)

  for (const [template, reference] of Object.entries(document.paths ?? {})) {
    const item = resolve(reference)
    if (!isObject(item)) continue
    for (const method of methods) {
      const operation = resolve(item[method.toLowerCase()])
      if (!isObject(operation) || operation.$ref !== undefined) continue
      const query = querySchema([item.parameters, operation.parameters], resolve)
      const body = resolve(operation.requestBody)
      const content = method === 'GET' || method === 'HEAD' ? {} : contentOf(body)
      // Something for both, because the document has described them: what it leaves out is not taken.
      const plan = {
        ...planDefaults(placements, jsonOf(content), query, () => undefined, { root: document, untold }),
        mediaTypes: isObject(body) && body.$ref !== undefined ? null : Object.keys(content)
      }
      for (const id of plan.lost) foreign.add(id)
      for (const { name } of [...plan.body, ...plan.query]) unread.delete(name)
      all.push({ method, template, plan })
      servers.push(...[item.servers, operation.servers].flatMap(list => Array.isArray(list) ? list.filter(isObject) : []))
    }
  }

  // Those of a path or an operation count for all: where it is there as well, it is the same.
  const prefixes = [...new Set([...servers.map(server => serverPath(server, upstream)), basePath(upstream.pathname)])]
  const literal = new Set(all.filter(isLiteral))
  const exact = createTemplateRouter(all)
  // Many frameworks take `/Quote/` for `/quote`; a request for it must not go without what `/quote` takes.
  const lenient = createTemplateRouter(all, { lenient: true })

  function lookUp (find: typeof exact, method: string, path: string, isPrefix: (prefix: string) => boolean): Operation | undefined {
    for (const prefix of prefixes) {
      if (!isPrefix(prefix)) continue
      const rest = path.slice(prefix.length)
      const operation = find(method, rest) ?? (method === 'HEAD' ? find('GET', rest) : undefined)
      if (operation) return operation
    }
    return undefined
  }

  /** What servers take the path for, the likeliest first. */
  function candidates (method: string, path: string): OperationPlan[] {
    const operation = lookUp(exact, method, path, prefix => path.startsWith(`${prefix}/`))
    if (operation && literal.has(operation)) return [operation.plan]
    const other = lookUp(lenient, method, path, prefix => path.toLowerCase().startsWith(`${prefix}/`.toLowerCase()))
    return [operation, other].flatMap(found => found ? [found.plan] : [])
  }

  return {
    find (method, path) {
      const [plan, ...others] = readings(path).flatMap(reading => candidates(method, reading))
      if (plan && others.some(other => !takesTheSame(plan, other))) {
        throw validationError('request', [{
          field: 'url',
          reason: 'could be for two operations that take different defaults, for servers differ over capital letters, %2F and semicolons; write it as the document does, with %3B for a semicolon, or send no X-Session-Id'
        }])
      }
      return plan
    },
    unread: [...unread],
    foreign: [...foreign]
  }
}

/**
 * The path, and as what else servers read it: those of Python take `%2F` for a slash, those of Java `/quote;a=1` for `/quote` with
 * a parameter of the segment's own.
 */
function readings (path: string): string[] {
  const slashes = [path, path.replaceAll(/%2f/gi, '/')]
  return [...new Set([...slashes, ...slashes.map(reading => reading.replaceAll(/;[^/]*/g, ''))])]
}

function takesTheSame (a: OperationPlan, b: OperationPlan): boolean {
  const isSame = (these: readonly Placement[], those: readonly Placement[]) => these.length === those.length && these.every((placement, i) => placement === those[i])
  return isSame(a.body, b.body) && isSame(a.query, b.query)
}

/** The value itself, or the one that its local `$ref` leads to; with its `$ref` where that leads to another document. */
function followReferences (value: unknown, document: OpenApiDocument, foreign: Set<string>): unknown {
  const seen = new Set<unknown>()
  while (isObject(value) && typeof value.$ref === 'string' && !seen.has(value)) {
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

/** The query parameters as the properties of an object; of one that is an object in its usual form, its own properties. */
function querySchema (lists: unknown[], resolve: (value: unknown) => unknown): object {
  const parameters = lists.flatMap(list => Array.isArray(list) ? list.map(resolve) : [])
  return {
    properties: Object.fromEntries(parameters.flatMap(parameter =>
      isObject(parameter) && parameter.in === 'query' ? [[String(parameter.name), parameter.schema]] : [])),
    allOf: parameters.flatMap(parameter => {
      if (!isObject(parameter)) return []
      // What another document says, of which it is not known whether it is about the query string.
      if (parameter.$ref !== undefined) return [parameter]
      // `style: form` and `explode: true`, which are the defaults: `?chain=near`, whatever the parameter's name.
      return parameter.in === 'query' && (parameter.style ?? 'form') === 'form' && parameter.explode !== false ? [parameter.schema] : []
    })
  }
}

/** What the operation takes in its body, by media type. */
function contentOf (requestBody: unknown): object {
  if (!isObject(requestBody)) return {}
  if (requestBody.$ref !== undefined) return { '*/*': { schema: requestBody } }
  return isObject(requestBody.content) ? requestBody.content : {}
}

/** What of that is JSON, or may be. */
function jsonOf (content: object): object {
  return { content: Object.fromEntries(Object.entries(content).filter(([mediaType]) => isJson(mediaType) || isInRange('application/json', mediaType))) }
}

function serverPath ({ url, variables = {} }: { url?: unknown, variables?: Record<string, { default?: unknown }> }, upstream: URL): string {
  const filled = String(url ?? '/').replaceAll(/\{([^{}]+)\}/g, (_all, name: string) => String(variables[name]?.default ?? ''))
  return URL.canParse(filled, upstream.href) ? basePath(new URL(filled, upstream).pathname) : ''
}

function basePath (path: string): string {
  return path.replace(/\/+$/, '')
}
