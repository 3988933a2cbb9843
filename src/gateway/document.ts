import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { decode } from '../decode.js'
import { isRecord } from '../is-object.js'

/** The upstream's OpenAPI document cannot be used; the message says which, and why. */
export class UpstreamDocumentError extends Error {
  override name = 'UpstreamDocumentError'
}

export interface OpenApiDocument extends Record<string, unknown> {
  paths?: Record<string, unknown>
  servers?: unknown
}

const fetchTimeoutMs = 10_000
export const isUrl = /^https?:\/\//i

/**
 * Reads an OpenAPI document of version 3, in JSON or YAML.
 *
 * @param source a file's path, or an http or https URL
 * @throws UpstreamDocumentError
 */
export async function readDocument (source: string): Promise<OpenApiDocument> {
  let document: unknown
  try {
    const text = isUrl.test(source) ? await download(source) : await readFile(source, 'utf8')
    document = parseText(text.replace(/^\ufeff/, ''))
  } catch (error) {
    throw unusable(source, 'cannot be read', error)
  }
  const { openapi, swagger, paths } = (isRecord(document) ? document : {}) as Record<string, unknown>
  if (typeof openapi !== 'string' || !openapi.startsWith('3.')) {
    throw unusable(source, 'is not an OpenAPI document of version 3', swagger === undefined ? undefined : new Error(`it is Swagger ${String(swagger)}`))
  }
  if (paths !== undefined && !isRecord(paths)) throw unusable(source, 'is not an OpenAPI document of version 3', new Error('its paths are no object'))
  return document as OpenApiDocument
}

/** How often an alias may be read, with those within it; a document that takes more is made to exhaust the process. */
const maxAliasCount = 100_000

function parseText (text: string): unknown {
  const parseYaml = () => parse(text, { merge: true, maxAliasCount }) as unknown
  if (!/^\s*\{/.test(text)) return parseYaml()
  try {
    return JSON.parse(text)
  } catch (error) {
    // YAML may begin with a brace as well.
    try {
      return parseYaml()
    } catch {
      throw error
    }
  }
}

async function download (url: string): Promise<string> {
  // fetch takes no credentials in a URL.
  const target = new URL(url)
  const { username, password } = target
  const credentials = [username, password].map(decode).join(':')
  target.username = target.password = ''
  const headers = {
    accept: 'application/json, application/yaml, */*',
    ...((username || password) && { authorization: `Basic ${Buffer.from(credentials).toString('base64')}` })
  }
  const response = await fetch(target, { signal: AbortSignal.timeout(fetchTimeoutMs), headers })
  if (!response.ok) throw new Error(`it was answered ${response.status}`)
  return response.text()
}

export function unusable (source: string, problem: string, error?: unknown): UpstreamDocumentError {
  const { message, cause } = (error ?? {}) as { message?: string, cause?: { code?: string, message?: string } }
  const reason = [message, cause?.code ?? cause?.message].filter(Boolean).join(': ').split('\n', 1)[0]!
  return new UpstreamDocumentError(`The document of UPSTREAM_OPENAPI, ${withoutCredentials(source)}, ${problem}${reason && `: ${reason}`}`)
}

function withoutCredentials (source: string): string {
  if (!isUrl.test(source)) return source
  // What is no URL may be one but for a character of its password.
  if (!URL.canParse(source)) return source.replace(/\/\/.*@/s, '//')
  const url = new URL(source)
  if (!url.username && !url.password) return source
  url.username = url.password = ''
  return url.href
}
