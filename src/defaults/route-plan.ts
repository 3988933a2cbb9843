import type { FastifyBaseLogger, FastifyInstance, RouteOptions } from 'fastify'
import { isJsonSchema } from '../json-schema/is-json-schema.js'
import { exampleSessionId } from '../schemas/session.js'
import type { Placement } from './fill-defaults.js'
import { planDefaults, type DefaultsPlan } from './plan-defaults.js'
import { bodyMethods } from './request-body.js'

/** What a route takes of a session, by its schemas and its `config.sessionDefaults`. */
export interface RoutePlan extends DefaultsPlan {
  /** What most requests are told was filled in: all that goes into the body, each name once. */
  bodyNames: string
}

/** A name that sessions do not hold is a typing error, and would leave a request without what its caller relies on. */
export function requireKnownNames ({ method, url, config }: RouteOptions, names: readonly string[]): void {
  const selection: unknown = config?.sessionDefaults
  if (!Array.isArray(selection) && !['undefined', 'boolean', 'function'].includes(typeof selection)) {
    throw new Error(`The route ${String(method)} ${url} has ${JSON.stringify(selection)} in config.sessionDefaults; it is true, false, a list of names or a function`)
  }
  const unknown = Array.isArray(selection) ? selection.find(name => !names.includes(name as string)) as unknown : undefined
  if (unknown !== undefined) {
    throw new Error(`The route ${String(method)} ${url} has ${JSON.stringify(unknown)} in config.sessionDefaults, which sessions do not hold; they hold ${names.join(', ')}`)
  }
}

/** Tells of defaults that clients can put into a session to no effect. */
export function warnOfUnread (log: FastifyBaseLogger, names: Iterable<string>): void {
  const list = [...names].join(', ')
  log.warn({ defaults: list }, `No route takes these session defaults: ${list}. Give a route's schema the property, map them to one (option mapping), or let sessions hold only what is read (option defaults).`)
}

/** Tells of schemas that only a validator of the host's own can read or find, where the host has not said what they take. */
export function warnOfUntold (log: FastifyBaseLogger, route: RouteOptions, plan: DefaultsPlan): void {
  const { method, url } = route
  const list = plan.lost.join(', ')
  const taken = [...new Set(takenBy(plan, route).map(({ name }) => name))].join(', ')
  const reason = list === '' ? 'are no JSON Schema' : `refer to ${list}, which Fastify does not have`
  const remedy = list === '' ? '' : ', or give Fastify what they refer to (addSchema)'
  log.warn({ ...(list !== '' && { references: list }) }, `The schemas of ${String(method)} ${url} ${reason}, so that what they take of a session is not known: the route is given ${taken}. Name what it takes in config.sessionDefaults${remedy}.`)
}

/** @param placements where each of the session's values may go */
export function makePlan (route: Pick<RouteOptions, 'schema' | 'config'>, instance: FastifyInstance, placements: readonly Placement[]): RoutePlan {
  const selection = route.config?.sessionDefaults ?? true
  const selected = placements.filter(({ name }) => Array.isArray(selection) ? selection.includes(name) : selection === true)
  const plan = planDefaults(selected, route.schema?.body, querystringOf(route), id => instance.getSchema(id))
  return { ...plan, bodyNames: [...new Set(plan.body.map(({ name }) => name))].join(', ') }
}

/** Fastify takes either name. */
function querystringOf ({ schema }: Pick<RouteOptions, 'schema'>): unknown {
  return schema?.querystring ?? (schema as { query?: unknown } | undefined)?.query
}

/** What a request of the route can be given at all: one that may not have a body takes none in it. */
export function takenBy ({ body, query, undescribed }: DefaultsPlan, { method }: RouteOptions): readonly Placement[] {
  return undescribed && [method].flat().every(name => !bodyMethods.includes(name)) ? [] : [...query, ...body]
}

/** Puts the header into the schema of a route that takes values, from which OpenAPI documents are made. */
export function documentHeader (route: RouteOptions, plan: DefaultsPlan): void {
  const taken = takenBy(plan, route)
  if (taken.length === 0) return
  const texts = new Set(taken.map(({ name, at }) => at === name ? name : `${name} as ${at}`))
  const headers = (route.schema?.headers ?? { type: 'object' }) as { properties?: Record<string, unknown>, $ref?: string }
  // A host that describes the header itself has said what there is to say.
  if (!isJsonSchema(headers) || headers.$ref !== undefined || Object.keys(headers.properties ?? {}).some(name => name.toLowerCase() === 'x-session-id')) return
  route.schema = {
    ...route.schema,
    headers: {
      ...headers,
      properties: {
        ...headers.properties,
        'X-Session-Id': {
          type: 'string',
          description: `Fills in what the request leaves out, from this session: ${[...texts].join(', ')}.`,
          examples: [exampleSessionId]
        }
      }
    }
  }
}
