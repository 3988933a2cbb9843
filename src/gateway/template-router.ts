import FindMyWay, { type HTTPMethod } from 'find-my-way'
import { decode } from '../decode.js'
import type { Placement } from '../defaults/fill-defaults.js'
import type { DefaultsPlan } from '../defaults/plan-defaults.js'

/** What an operation takes of a session. */
export interface OperationPlan extends DefaultsPlan {
  /** The media types and ranges of its bodies; null where no document tells. */
  mediaTypes: readonly string[] | null
  /** What it takes, by media type, in bodies that cannot be filled in. */
  unfillable: ReadonlyMap<string, readonly Placement[]>
  /** The parameters of its query string that are JSON. */
  jsonParameters?: ReadonlySet<string>
  /** The parameters of its query string whose properties go by names of their own, such as `options[fast]`. */
  bracketed?: ReadonlySet<string>
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

/** A template whose last segment stands for all that follows, such as `/files/{*}`, by what is before it. */
interface Wildcard extends Candidate {
  method: HTTPMethod
  literals: (string | null)[]
}

/** Templates that differ only in what is around their parameters, the most literal first. */
interface Shape {
  method: HTTPMethod
  /** The text of each segment; null for one with a parameter. */
  literals: (string | null)[]
  alike: Candidate[]
  /** Those of which a path may be as well, for in another segment they are literal; found when they are asked for. */
  rivals?: Shape[]
  /** Those of the same size that are literal in no segment where this one is otherwise. */
  compatible?: Shape[]
}

/** The operations of a document by method and path; a path is given as it was sent, and as `canonical` has it. */
export interface TemplateRouter {
  /** Those that servers may take the path for, the likeliest first. */
  find: (method: string, path: string, meant: string) => Operation[]
  /** Those with a template for all that begins as it does, such as `/files/{*}`, which servers take where there is no other. */
  findWildcards: (method: string, path: string, meant: string) => Operation[]
}

/** Whether the template has no parameter. */
export function isLiteral ({ template }: Operation): boolean {
  return !template.split('/').some(isPattern)
}

/** For a character that has a meaning in a path and is encoded there: one of Unicode's private use area, which has none. */
const inert = (character: string) => String.fromCharCode(0xe000 + character.charCodeAt(0))

/**
 * A path by what its segments stand for, so that `/users/%40me` is `/users/@me`: as many segments, of which none has a character
 * with a meaning.
 */
export function canonical (path: string): string {
  return path.includes('%') ? path.split('/').map(segment => decode(segment).replaceAll(/[/?#%]/g, inert)).join('/') : path
}

/** Whether a segment has something encoded that need not be (RFC 3986, 3.3), by which not all servers know it again. */
function isDisguised (segment: string): boolean {
  return /[\w\-.~!$&'()*+,;=:@]/.test((segment.match(/%[2-7][0-9a-f]/gi) ?? []).map(decode).join(''))
}

/** Whether what is around the parameters of a segment is there in disguise alone. */
function isHidden (candidate: Candidate | undefined, i: number, sent: string): boolean {
  if (!sent.includes('%')) return false
  const undisguised = canonical(sent.replaceAll(/%[2-7][0-9a-f]/gi, code => isDisguised(code) ? inert(decode(code)) : code))
  return candidate?.expressions.get(i)!.test(undisguised) === false
}

/**
 * Finds operations by method and path, the literal before the template; with them those that other servers would find, for their
 * templates overlap, such as `/{kind}/me` and `/books/{id}`, or they do not take `/users/%40me` for `/users/@me`, and so for `/users/{id}`.
 *
 * The router cannot tell templates apart that differ only in what is around their parameters, such as `/jobs/{id}` and
 * `/jobs/{id}:cancel`: it has one route for them, and the one is chosen of which the most is literal.
 *
 * @param options `lenient` makes no difference of capital letters, of slashes in a row and of one at the end
 */
export function createTemplateRouter (operations: readonly Operation[], { lenient = false } = {}): TemplateRouter {
  const router = FindMyWay({
    maxParamLength: 1_000_000,
    // Those that it takes for unsafe have too many parts, each of which is tried once.
    allowUnsafeRegex: true,
    ...(lenient && { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true })
  })
  const literalOf = (segment: string) => lenient ? segment.toLowerCase() : segment
  const shapes = new Map<string, Shape>()
  const wildcards: Wildcard[] = []
  for (const operation of operations) {
    const { method } = operation
    const all = segmentsOf(canonical(operation.template), lenient)
    const isWildcard = /^(?:\*|\{\*\})$/.test(all.at(-1)!)
    const segments = isWildcard ? all.slice(0, -1) : all
    const expressions = new Map(segments.flatMap((segment, i) => isPattern(segment) ? [[i, new RegExp(`^${toExpression(segment, lenient)}$`)]] : []))
    const literals = segments.map(segment => isPattern(segment) ? null : literalOf(segment))
    if (isWildcard) {
      wildcards.push({ operation, method, literals, expressions })
      continue
    }
    const key = JSON.stringify([method, literals])
    const shape = shapes.get(key) ?? { method, literals, alike: [] }
    shape.alike.push({ operation, expressions })
    shapes.set(key, shape)
  }
  wildcards.sort((a, b) => b.literals.length - a.literals.length || literalLength(b.operation) - literalLength(a.operation))
  const bySize = new Map<string, Shape[]>()
  const sizeOf = ({ method, literals }: Shape) => `${method} ${literals.length}`
  for (const shape of shapes.values()) {
    const { alike } = shape
    alike.sort((a, b) => literalLength(b.operation) - literalLength(a.operation))
    const { method, template } = alike[0]!.operation
    const route = segmentsOf(canonical(template), lenient).map((segment, i) => isPattern(segment)
      ? `:p${i}(^(?:${[...new Set(alike.map(({ expressions }) => expressions.get(i)!.source.slice(1, -1)))].join('|')})$)`
      : segment.replaceAll(':', '::'))
    router.on(method, route.join('/'), () => {}, shape)
    bySize.set(sizeOf(shape), [...bySize.get(sizeOf(shape)) ?? [], shape])
  }

  /** @param disguised the segments by which not all servers know the shape again */
  function rivalsOf (shape: Shape, disguised: readonly number[]): Shape[] {
    const isAlike = (i: number, literal: string | null) => literal === null || shape.literals[i] === null || literal === shape.literals[i]
    shape.compatible ??= bySize.get(sizeOf(shape))!.filter(other => other !== shape && other.literals.every((literal, i) => isAlike(i, literal)))
    shape.rivals ??= shape.compatible.filter(({ literals }) => isMoreLiteral(literals, shape))
    return disguised.length === 0 ? shape.rivals : [...new Set([...shape.rivals, ...shape.compatible.filter(({ literals }) => disguised.every(i => literals[i] === null))])]
  }

  /** Whether it is literal in a segment where the shape is not; the first one, before the slash, always is. */
  function isMoreLiteral (literals: readonly (string | null)[], shape: Shape): boolean {
    return literals.some((literal, i) => literal !== null && shape.literals[i] === null)
  }

  function isMatch ({ literals }: Pick<Shape, 'literals'>, { expressions }: Candidate, segments: readonly string[]): boolean {
    return literals.every((literal, i) => literal === null ? expressions.get(i)!.test(segments[i]!) : literal === literalOf(segments[i]!))
  }

  function wildcardsFor (method: string, segments: readonly string[]): Wildcard[] {
    return wildcards.filter(candidate => candidate.method === method && candidate.literals.length < segments.length && isMatch(candidate, candidate, segments))
  }

  return {
    find (method, path, meant) {
      const shape = router.find(method as HTTPMethod, meant)?.store as Shape | undefined
      if (!shape) return []
      const [segments, sent] = [meant, path].map(path => segmentsOf(path, lenient)) as [string[], string[]]
      const matches = (shape: Shape) => shape.alike.filter(candidate => isMatch(shape, candidate, segments))
      const [first] = matches(shape)
      const disguised = [...sent.keys()].filter(i => shape.literals[i] === null ? isHidden(first, i, sent[i]!) : isDisguised(sent[i]!))
      // Where what is around a parameter is encoded, as in `/jobs/1%3Acancel`, servers take it for a part of the parameter.
      const isOfAll = disguised.some(i => shape.literals[i] === null)
      const found = [shape, ...rivalsOf(shape, disguised)].flatMap(shape => isOfAll ? matches(shape) : matches(shape).slice(0, 1))
      return [...found, ...wildcardsFor(method, segments).filter(({ literals }) => isMoreLiteral(literals, shape))].map(({ operation }) => operation)
    },
    findWildcards (method, _path, meant) {
      // The longest, and those of which it may be as well.
      const found = wildcardsFor(method, segmentsOf(meant, lenient))
      return found.filter(({ literals }) => literals.length === found[0]!.literals.length).map(({ operation }) => operation)
    }
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
  return parts.map((part, i) => i % 2 === 1 ? parameter(i, parts, lenient) : escape(part, lenient)).join('')
}

/**
 * Of several parameters of a segment each but the last ends where the text after it first comes: that leaves the most to the others,
 * and nothing is tried twice. What a parameter stands for may have line breaks.
 */
function parameter (i: number, parts: readonly string[], lenient: boolean): string {
  const next = escape(parts[i + 1]!, lenient)
  return i === parts.length - 2 || next === '' ? '[^]+' : `[^](?:(?!${next})[^])*`
}

/** Text as a regular expression has it, in either case where it is lenient. */
export function escape (text: string, lenient = false): string {
  const escaped = text.replaceAll(/[.*+?^${}()|[\]\\-]/g, '\\$&')
  return lenient ? escaped.replaceAll(/[a-z]/gi, letter => `[${letter.toLowerCase()}${letter.toUpperCase()}]`) : escaped
}
