import FindMyWay, { type HTTPMethod } from 'find-my-way'
import { decode } from '../decode.js'
import { type DefaultsPlan } from '../plan-defaults.js'

/** What an operation takes of a session. */
export interface OperationPlan extends DefaultsPlan {
  /** The media types and ranges of its bodies; null where no document tells. */
  mediaTypes: readonly string[] | null
  /** The parameters of its query string that are JSON. */
  jsonParameters?: ReadonlySet<string>
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

/** Templates that differ only in what is around their parameters, the most literal first. */
interface Shape {
  method: HTTPMethod
  /** The text of each segment; null for one with a parameter. */
  literals: (string | null)[]
  alike: Candidate[]
  /** Those of which a path may be as well, for in another segment they are literal; found when they are asked for. */
  rivals?: Shape[]
}

/** Whether the template has no parameter. */
export function isLiteral ({ template }: Operation): boolean {
  return !template.split('/').some(isPattern)
}

/**
 * Finds operations by method and path, the literal before the template; with them those that other servers would find, for their
 * templates overlap, such as `/{kind}/me` and `/books/{id}`.
 *
 * The router cannot tell templates apart that differ only in what is around their parameters, such as `/jobs/{id}` and
 * `/jobs/{id}:cancel`: it has one route for them, and the one is chosen of which the most is literal.
 *
 * @param options `lenient` makes no difference of capital letters, of slashes in a row and of one at the end
 * @returns a function whose result is the caller's, the likeliest first
 */
export function createTemplateRouter (operations: readonly Operation[], { lenient = false } = {}): (method: string, path: string) => Operation[] {
  const router = FindMyWay({
    maxParamLength: 1_000_000,
    // Those that it takes for unsafe have too many parts, each of which is tried once.
    allowUnsafeRegex: true,
    ...(lenient && { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true })
  })
  const literalOf = (segment: string) => lenient ? decode(segment).toLowerCase() : decode(segment)
  const shapes = new Map<string, Shape>()
  for (const operation of operations) {
    const segments = segmentsOf(operation.template, lenient)
    const expressions = new Map(segments.flatMap((segment, i) => isPattern(segment) ? [[i, new RegExp(`^${toExpression(segment, lenient)}$`)]] : []))
    const literals = segments.map(segment => isPattern(segment) ? null : literalOf(segment))
    const key = JSON.stringify([operation.method, literals])
    const shape = shapes.get(key) ?? { method: operation.method, literals, alike: [] }
    shape.alike.push({ operation, expressions })
    shapes.set(key, shape)
  }
  const bySize = new Map<string, Shape[]>()
  const sizeOf = ({ method, literals }: Shape) => `${method} ${literals.length}`
  for (const shape of shapes.values()) {
    const { alike } = shape
    alike.sort((a, b) => literalLength(b.operation) - literalLength(a.operation))
    const { method, template } = alike[0]!.operation
    const route = segmentsOf(template, lenient).map((segment, i) => isPattern(segment)
      ? `:p${i}(^(?:${[...new Set(alike.map(({ expressions }) => expressions.get(i)!.source.slice(1, -1)))].join('|')})$)`
      : decode(segment).replaceAll(':', '::'))
    router.on(method, route.join('/'), () => {}, shape)
    bySize.set(sizeOf(shape), [...bySize.get(sizeOf(shape)) ?? [], shape])
  }

  function rivalsOf (shape: Shape): Shape[] {
    const { literals } = shape
    shape.rivals ??= bySize.get(sizeOf(shape))!.filter(other =>
      other.literals.every((literal, i) => literal === null || literals[i] === null || literal === literals[i]) &&
      other.literals.some((literal, i) => literal !== null && literals[i] === null))
    return shape.rivals
  }

  function firstIn ({ literals, alike }: Shape, segments: readonly string[]): Operation[] {
    if (!literals.every((literal, i) => literal === null || literal === literalOf(segments[i]!))) return []
    const found = alike.find(({ expressions }) => [...expressions].every(([i, expression]) => expression.test(decode(segments[i]!))))
    return found ? [found.operation] : []
  }

  return (method, path) => {
    const shape = router.find(method as HTTPMethod, path)?.store as Shape | undefined
    if (!shape) return []
    const segments = segmentsOf(path, lenient)
    return [shape, ...rivalsOf(shape)].flatMap(shape => firstIn(shape, segments))
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
 * Of several parameters of a segment each but the last ends where the text after it first comes: that leaves the most to the others,
 * and nothing is tried twice. What a parameter stands for may have line breaks.
 */
function parameter (i: number, parts: readonly string[], lenient: boolean): string {
  const next = escape(decode(parts[i + 1]!), lenient)
  return i === parts.length - 2 || next === '' ? '[^]+' : `[^](?:(?!${next})[^])*`
}

/** Text as a regular expression has it, in either case where it is lenient. */
export function escape (text: string, lenient = false): string {
  const escaped = text.replaceAll(/[.*+?^${}()|[\]\\-]/g, '\\$&')
  return lenient ? escaped.replaceAll(/[a-z]/gi, letter => `[${letter.toLowerCase()}${letter.toUpperCase()}]`) : escaped
}
