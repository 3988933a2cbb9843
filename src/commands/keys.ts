import { Value } from '@sinclair/typebox/value'
import { createApiKeyRepository, type ApiKeyChanges, type ApiKeyRecord, type NewApiKey } from '../plugins/api-key-repository.js'
import { ApiKeyId, apiKeySchemas as schemas, graceSeconds } from '../schemas/api-key.js'
import { tierNames } from '../schemas/tier.js'
import { table, UsageError, type Arguments, type Command, type Terminal } from './command.js'
import { withDatabase } from './database.js'
import { parseDuration } from './duration.js'

const pageSize = 1000

const json = { help: 'Print JSON only, for scripts.' }
const tier = { value: 'TIER', help: `${tierNames.join(', ')}.` }
const name = { value: 'NAME', help: 'For people, to know the key by.' }
const expiry = {
  'expires-at': { value: 'TIME', help: 'When it stops working, such as 2030-12-31T23:59:59Z.' },
  'expires-in': { value: 'DURATION', help: 'In how long it stops working, such as 90d.' }
}
const metadata = { value: 'JSON', help: 'An object to keep with the key.' }

type Repository = ReturnType<typeof createApiKeyRepository>

async function withKeys<T> ({ environment }: Terminal, run: (keys: Repository) => Promise<T>): Promise<T> {
  return withDatabase(environment, database => run(createApiKeyRepository(database, 'command line')))
}

const create: Command = {
  name: 'keys create',
  summary: 'Create an API key and show it, this once.',
  options: { tier: { ...tier, isNeeded: true }, name: { ...name, isNeeded: true }, ...expiry, metadata, json },
  async run ({ options }, terminal) {
    const key = readFields(options) as unknown as NewApiKey
    const { secret, record } = await withKeys(terminal, keys => keys.create(key))
    printSecret(terminal, options, `Created the key ${record.id} (${record.tier}, ${record.name}).`, { ...known(record), key: secret })
  }
}

const list: Command = {
  name: 'keys list',
  summary: 'List all API keys, the oldest first.',
  options: { json },
  async run ({ options }, terminal) {
    const records = await withKeys(terminal, async keys => {
      const all: ApiKeyRecord[] = []
      for (let page: ApiKeyRecord[] | undefined; page === undefined || page.length === pageSize;) {
        page = await keys.list({ limit: pageSize, after: all.at(-1)?.id })
        all.push(...page)
      }
      return all
    })
    if (options.json) return printJson(terminal, { keys: records.map(known) })
    terminal.out(table([
      ['ID', 'KEY', 'TIER', 'STATUS', 'CREATED', 'EXPIRES', 'LAST USED', 'NAME'],
      ...records.map(record => [
        record.id, `${record.displayPrefix}…`, record.tier, record.status, time(record.createdAt), time(record.expiresAt), time(record.lastUsedAt), record.name
      ])
    ]))
  }
}

const show: Command = {
  name: 'keys show',
  summary: 'Show what is known of an API key: everything but the key itself.',
  positionals: ['ID'],
  options: { json },
  async run ({ options, positionals }, terminal) {
    const id = readId(positionals)
    printRecord(terminal, options, await withKeys(terminal, keys => keys.get(id)))
  }
}

const update: Command = {
  name: 'keys update',
  summary: 'Change an API key. Every instance of the service goes by it at once.',
  positionals: ['ID'],
  options: { tier, name, ...expiry, 'never-expires': { help: 'It works until it is revoked.' }, metadata: { ...metadata, help: 'An object instead of the one that is kept with the key.' }, json },
  async run ({ options, positionals }, terminal) {
    const id = readId(positionals)
    const changes = readFields(options) as ApiKeyChanges
    if (Object.keys(changes).length === 0) throw new UsageError('Nothing to change was given.')
    printRecord(terminal, options, await withKeys(terminal, keys => keys.update(id, changes)))
  }
}

const rotate: Command = {
  name: 'keys rotate',
  summary: 'Give an API key a new secret and show it, this once. Its sessions stay.',
  positionals: ['ID'],
  options: { grace: { value: 'DURATION', help: 'How long the old secret works as well, up to 7d. Without it, it ends at once.' }, json },
  async run ({ options, positionals }, terminal) {
    const id = readId(positionals)
    const seconds = typeof options.grace === 'string' ? parseDuration('grace', options.grace) : graceSeconds.default
    if (seconds > graceSeconds.maximum) throw new UsageError('--grace is at most 7d.')
    const { secret, record, graceEndsAt } = await withKeys(terminal, keys => keys.rotate(id, seconds))
    const old = seconds > 0 ? `works until ${time(graceEndsAt)}` : 'has ended'
    printSecret(terminal, options, `The key ${record.id} (${record.tier}, ${record.name}) has a new secret. The old one ${old}.`, { ...known(record), key: secret, graceEndsAt })
  }
}

const revoke: Command = {
  name: 'keys revoke',
  summary: 'Revoke an API key for good, on every instance of the service at once.',
  positionals: ['ID'],
  options: { json },
  async run ({ options, positionals }, terminal) {
    const id = readId(positionals)
    await withKeys(terminal, keys => keys.revoke(id))
    if (options.json) printJson(terminal, { id, revoked: true })
    else terminal.out(`Revoked the key ${id}.\n`)
  }
}

export const keysCommands: Command[] = [create, list, show, update, rotate, revoke]

function readId ([id]: string[]): string {
  if (!Value.Check(ApiKeyId, id)) throw new UsageError('ID is the id of a key, such as key_ and 32 hex digits, not the key itself. keys list shows it.')
  return id
}

/**
 * The fields of a key from options, held against the schema that the API has for them.
 *
 * @throws UsageError that names the option
 */
function readFields (options: Arguments['options']): Record<string, unknown> {
  const fields: Record<string, unknown> = {}
  for (const name of ['tier', 'name']) if (options[name] !== undefined) fields[name] = options[name]
  const expiries = ['expires-at', 'expires-in', 'never-expires'].filter(name => options[name] !== undefined)
  if (expiries.length > 1) throw new UsageError(`--${expiries[0]} and --${expiries[1]} cannot be given together.`)
  if (typeof options['expires-at'] === 'string') fields.expiresAt = readTime(options['expires-at'])
  if (typeof options['expires-in'] === 'string') fields.expiresAt = Date.now() + 1000 * parseDuration('expires-in', options['expires-in'])
  if (options['never-expires']) fields.expiresAt = null
  if (typeof options.metadata === 'string') fields.metadata = readMetadata(options.metadata)
  const { tier, ...others } = fields
  if (tier !== undefined && !tierNames.some(name => name === tier)) throw new UsageError(`--tier is one of ${tierNames.join(', ')}.`)
  const { properties } = schemas.CreateApiKeyRequest
  for (const [field, value] of Object.entries(others)) {
    if (value !== null && !Value.Check(properties[field as keyof typeof properties], value)) throw new UsageError(wrongFields[field])
  }
  return fields
}

const wrongFields: Record<string, string> = {
  name: '--name takes 1 to 100 characters, none of them a control character.',
  expiresAt: 'A key expires between 1970 and the end of the year 9999.',
  metadata: '--metadata takes a JSON object such as \'{"team": "payments"}\'.'
}

function readTime (text: string): number {
  // A day alone is midnight UTC; a time without a zone would be this machine's, which the reader cannot know.
  const time = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/.test(text) && isDay(text.slice(0, 10)) ? Date.parse(text) : NaN
  if (Number.isNaN(time)) throw new UsageError(`--expires-at takes a time such as 2030-12-31T23:59:59Z, not ${JSON.stringify(text)}.`)
  return time
}

/** Whether there is such a day: of the 30th of February Date.parse makes the 2nd of March. */
function isDay (text: string): boolean {
  const time = Date.parse(text)
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text)
}

function readMetadata (text: string): unknown {
  // Refused as what is no object.
  const none: unknown[] = []
  try {
    return JSON.parse(text) ?? none
  } catch {
    return none
  }
}

/** A record without what there is none of. */
function known (record: ApiKeyRecord): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null))
}

function printJson ({ out }: Terminal, value: object): void {
  out(`${JSON.stringify(value, null, 2)}\n`)
}

function printSecret (terminal: Terminal, { json }: Arguments['options'], sentence: string, fields: { key: string, [name: string]: unknown }): void {
  if (json) printJson(terminal, fields)
  else terminal.out(`${sentence}\n\n  ${fields.key}\n\nIt is shown this once: what is stored is its hash.\n`)
}

function printRecord (terminal: Terminal, { json }: Arguments['options'], record: ApiKeyRecord): void {
  if (json) return printJson(terminal, known(record))
  terminal.out(table([
    ['id', record.id],
    ['key', `${record.displayPrefix}…`],
    ['tier', record.tier],
    ['name', record.name],
    ['status', record.status],
    ['created', time(record.createdAt)],
    ['expires', time(record.expiresAt)],
    ['revoked', time(record.revokedAt)],
    ['last used', time(record.lastUsedAt)],
    ['old secret until', time(record.graceEndsAt)],
    ['metadata', JSON.stringify(record.metadata)]
  ]))
}

function time (milliseconds: number | null): string {
  return milliseconds === null ? '-' : new Date(milliseconds).toISOString().replace(/\.\d+/, '')
}
