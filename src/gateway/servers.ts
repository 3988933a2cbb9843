import { isRecord } from '../is-object.js'
import { canonical, escape } from './template-router.js'

/** What the paths of a document begin with: matches up to the slash that begins them. */
export type Prefix = RegExp

/** Combinations of values that are told of one by one; of a server with more, each variable may be anything. */
const maxCombinations = 100

/** Stands for a variable while a URL is read. */
const anything = 'sipher-sessions-anything'

/**
 * Where the paths of a document begin, by its servers, each once: first those with the values of variables that it tells of, then
 * with any value of those that have no list.
 *
 * @param bases what URLs are relative to: the document's own (OpenAPI 3.1, 4.8.5), and the upstream's, as whoever writes `/v1` may mean
 * @returns these, and then where the upstream begins, for what is none of them
 */
export function serverPrefixes (servers: readonly object[], bases: readonly URL[]): [ofServers: Prefix[], ofUpstream: Prefix[]] {
  const known = new Set<string>()
  const open = new Set<string>()
  for (const server of servers) {
    for (const base of bases) {
      for (const url of urlsOf(server)) {
        const path = URL.canParse(url, base.href) ? basePath(new URL(url, base).pathname) : ''
        ;(path.includes(anything) ? open : known).add(path)
      }
    }
  }
  const prefixOf = (path: string) => new RegExp(`^${canonical(path).split(anything).map(text => escape(text)).join('[^/]+')}(?=/)`)
  return [[...known, ...open].map(prefixOf), [prefixOf(basePath(bases.at(-1)!.pathname))]]
}

/** A path without the slashes at its end. */
function basePath (path: string): string {
  return path.replace(/\/+$/, '')
}

/** The URLs of a server, by what its variables may be. */
function urlsOf (server: { url?: unknown, variables?: unknown }): string[] {
  const url = String(server.url ?? '/')
  const variables = isRecord(server.variables) ? server.variables : {}
  const names = [...new Set([...url.matchAll(/\{([^{}]+)\}/g)].map(([, name]) => name!))]
  // Whatever is in the place of a scheme or a host is none of the path.
  const inPath = url.replace(/^[^/]*\/\/[^/]*/, '')
  let combinations: Record<string, string>[] = [{}]
  let isOpen = false
  for (const name of names) {
    const { default: standard = '', enum: list } = (isRecord(variables[name]) ? variables[name] : {}) as { default?: unknown, enum?: unknown }
    const isListed = Array.isArray(list)
    const values = new Set([standard, ...isListed ? list as unknown[] : []].map(String))
    if (!inPath.includes(`{${name}}`)) combinations.forEach(combination => { combination[name] = String(standard) })
    else {
      isOpen ||= !isListed
      combinations = combinations.flatMap(combination => [...values].map(value => ({ ...combination, [name]: value })))
      if (combinations.length > maxCombinations) {
        isOpen = true
        combinations = combinations.slice(0, 1)
      }
    }
  }
  const fill = (valueOf: (name: string) => string) => url.replaceAll(/\{([^{}]+)\}/g, (_all, name: string) => valueOf(name))
  const [standard] = combinations
  return [
    ...combinations.map(combination => fill(name => combination[name]!)),
    ...isOpen ? [fill(name => inPath.includes(`{${name}}`) ? anything : standard![name]!)] : []
  ]
}
