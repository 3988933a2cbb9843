import FindMyWay, { type HTTPMethod } from 'find-my-way'
import { decode } from '../decode.js'
import { type DefaultsPlan } from '../plan-defaults.js'

/** What an operation takes of a session. */
export interface OperationPlan extends DefaultsPlan {
  /** The media types and ranges of its bodies; null where no document tells. */
  mediaTypes: readonly string[] | null
}

/** An operation of a document, where it is, and what it takes of a session. */
export interface Operation {
  method: HTTPMethod
  /** `/files/{name}.json` */
  template: string
  plan: OperationPlan
}

interface Candidate {
  operation: Operation
  /** What its segments with parameters are matched by. */
  expressions: Map<number, RegExp>
}

/** Whether the template has no parameter. */
export function isLiteral ({ template }: Operation): boolean {
  return !template.split('/').some(isPattern)
}

/**
 * Finds operations by method and path, the literal before the template.
 *
 * The router cannot tell templates apart that differ only in what is around their parameters, such as `/jobs/{id}` and
 * `/jobs/{id}:cancel`: it has one route for them, and the one is chosen of which the most is literal.
 *
 * @param options `lenient` makes no difference of capital letters, of slashes in a row and of one at the end
 */
export function createTemplateRouter (operations: readonly Operation[], { lenient = false } = {}): (method: string, path: string) => Operation | undefined {
  const router = FindMyWay({
    maxParamLength: 1_000_000,
    // Those that it takes for unsafe have too many parts, each of which is tried once.
    allowUnsafeRegex: true,
    ...(lenient && { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true })
  })
  const shapes = new Map<string, Candidate[]>()
  for (const operation of operations) {
    const segments = segmentsOf(operation.template, lenient)
    const expressions = new Map(segments.flatMap((segment, i) => isPattern(segment) ? [[i, new RegExp(`^${toExpression(segment, lenient)}$`)]] : []))
    const shape = `${operation.method} ${segments.map(segment => isPattern(segment) ? '{}' : lenient ? decode(segment).toLowerCase() : decode(segment)).join('/')}`
    shapes.set(shape, [...shapes.get(shape) ?? [], { operation, expressions }])
  }
  for (const alike of shapes.values()) {
    alike.sort((a, b) => literalLength(b.operation) - literalLength(a.operation))
    const { method, template } = alike[0]!.operation
    const route = segmentsOf(template, lenient).map((segment, i) => isPattern(segment)
      ? `:p${i}(^(?:${[...new Set(alike.map(({ expressions }) => expressions.get(i)!.source.slice(1, -1)))].join('|')})$)`
      : decode(segment).replaceAll(':', '::'))
    router.on(method, route.join('/'), () => {}, alike)
  }

  return (method, path) => {
    const match = router.find(method as HTTPMethod, path)
    const alike = match?.store as Candidate[] | undefined
    return alike?.find(({ expressions }) => [...expressions].every(([i, expression]) => expression.test(match!.params[`p${i}`]!)))?.operation
  }
}

function segmentsOf (template: string, lenient: boolean): string[] {
  return (lenient ? template.replaceAll(/\/+/g, '/').replace(/(?<=.)\/$/, '') : template).split('/')
}

/** Whether a segment is matched by an expression: it has a parameter, or a star, which would be a wildcard to the router. */
function isPattern (segment: string): boolean {
  return /\{[^{}]+\}|\*/.test(segment)
}

function literalLength ({ template }: Operation): number {
  return template.replaceAll(/\{[^{}]+\}/g, '').length
}

/** A segment with parameters is matched as a whole: a parameter is never empty, which the router's own may be. */
function toExpression (segment: string, lenient: boolean): string {
  const parts = segment.split(/(\{[^{}]+\})/)
  return parts.map((part, i) => i % 2 === 1 ? parameter(i, parts, lenient) : escape(decode(part), lenient)).join('')
}

/**
 * Of several parameters of a segment each but the last ends where the text after it begins: nothing is tried twice. What a parameter
 * stands for may have line breaks.
 */
function parameter (i: number, parts: readonly string[], lenient: boolean): string {
  const next = decode(parts[i + 1]!).charAt(0)
  return i === parts.length - 2 || next === '' ? '[^]+' : `[^${escape(lenient ? next.toLowerCase() : next, false)}${lenient && /[a-z]/i.test(next) ? next.toUpperCase() : ''}]+`
}

function escape (text: string, lenient: boolean): string {
  const escaped = text.replaceAll(/[.*+?^${}()|[\]\\-]/g, '\\$&')
  return lenient ? escaped.replaceAll(/[a-z]/gi, letter => `[${letter.toLowerCase()}${letter.toUpperCase()}]`) : escaped
}
