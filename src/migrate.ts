import { readdir, readFile } from 'node:fs/promises'
import type { FastifyBaseLogger } from 'fastify'
import type { Pool, QueryConfig } from 'pg'
import { packageRoot } from './package-root.js'
import type { Queryable } from './plugins/database.js'
import { advisoryLocks } from './postgres/advisory-locks.js'
import { columnTypes } from './postgres/column-types.js'

// No migration library: those that are kept up want names of their own for the files or run each step in a
// transaction of its own, and what is needed here is one loop in one transaction.

const folder = new URL('migrations/', packageRoot)

/**
 * The tables and sequences that the migrations make, and what the user of the service has to be allowed with each: all of what is
 * named with a table (to lock a row is to update it), and any of it with a sequence.
 */
export const relations: Readonly<Record<string, readonly string[]>> = {
  api_keys: ['select', 'insert', 'update'],
  audit: ['select', 'update', 'delete'],
  audit_id_seq: ['usage', 'update'],
  changes: ['select', 'insert', 'update', 'delete'],
  changes_id_seq: ['usage', 'update'],
  migrations: ['select'],
  request_counts: ['select', 'insert', 'update', 'delete'],
  session_counts: ['select', 'insert', 'update'],
  session_removals: ['select', 'insert', 'update', 'delete'],
  sessions: ['select', 'insert', 'update', 'delete']
}

interface Migration {
  version: number
  name: string
}

/** The database, or its schema, is not one that this code can use; the message says what to do. */
export class SchemaVersionError extends Error {
  override name = 'SchemaVersionError'
}

/** The migrations that this code brings, the oldest first: `0001-api-keys.sql` is version 1. */
async function listMigrations (): Promise<Migration[]> {
  const names = (await readdir(folder)).filter(name => /^\d{4}-.+\.sql$/.test(name)).sort()
  return names.map(name => ({ version: Number(name.slice(0, 4)), name }))
}

/**
 * Brings the schema `sipher_sessions` up to date.
 *
 * All that is pending runs in one transaction under one advisory lock that belongs to the transaction: instances
 * that start together wait for each other and find nothing left to do, and a process killed halfway leaves the
 * database as it was.
 *
 * @param onConnect called once there is a connection
 * @throws SchemaVersionError when the database was migrated by a newer release than this one, or is not in UTF8
 */
export async function migrate (pool: Pool, log?: Pick<FastifyBaseLogger, 'info'>, onConnect?: () => void): Promise<void> {
  const migrations = await listMigrations()
  const client = await pool.connect()
  onConnect?.()
  client.on('error', ignore)
  const database: Queryable = { query: (text, values) => client.query({ text, values, types: columnTypes } as QueryConfig) }
  let failed: Error | undefined
  try {
    await requireUnicode(database)
    // Before the lock and the tables: who may make none can start all the same where there are none to make.
    const newest = migrations.at(-1)!.version
    const found = await readVersionIfAny(database)
    if (found > newest) throw newerSchema(found, newest)
    if (found === newest) {
      await requireRelations(database)
      if (await findOvertakenSequence(database) !== undefined) {
        await beginMigration(database, log)
        await advanceSequence(database)
        await database.query('commit')
      }
      return
    }
    await beginMigration(database, log)
    const current = await prepareVersionTable(database)
    if (current === 0) await requireNoTables(database)
    for (const { version, name } of migrations.filter(migration => migration.version > current)) {
      await database.query(await readFile(new URL(name, folder), 'utf8'))
      await database.query('insert into sipher_sessions.migrations (version, name) values ($1, $2)', [version, name])
      log?.info({ migration: name }, 'database schema migrated')
    }
    await advanceSequence(database)
    await database.query('commit')
  } catch (error) {
    failed = error as Error
    throw error
  } finally {
    client.removeListener('error', ignore)
    // A failed transaction is ended by closing its connection: sending a rollback could fail as well.
    client.release(failed)
  }
}

/** Begins a transaction that no other instance's is beside, and that may take its time. */
async function beginMigration (database: Queryable, log?: Pick<FastifyBaseLogger, 'info'>): Promise<void> {
  // Whoever waited for the lock must see what was done meanwhile, whatever the user is set to.
  await database.query('begin isolation level read committed')
  // The pool's own limits, and those of its user, are meant for requests; building an index over a large table takes its time.
  await database.query('select set_config(name, \'0\', true) from pg_settings where name in (\'statement_timeout\', \'lock_timeout\', \'transaction_timeout\')')
  const { rows } = await database.query<{ isOurs: boolean }>('select pg_try_advisory_xact_lock($1) as "isOurs"', [advisoryLocks.migration])
  if (rows[0]!.isOurs) return
  log?.info('the database is being migrated by another instance, which is waited for')
  await database.query('select pg_advisory_xact_lock($1)', [advisoryLocks.migration])
}

/** Names, metadata and defaults may have any characters; in another encoding those that it lacks would fail as they come. */
async function requireUnicode (database: Queryable): Promise<void> {
  const { rows } = await database.query<{ encoding: string, name: string }>('select current_setting(\'server_encoding\') as encoding, current_database() as name')
  const { encoding, name } = rows[0]!
  if (encoding !== 'UTF8') throw new SchemaVersionError(`The encoding of the database ${JSON.stringify(name)} is ${encoding}, and sipher-sessions needs one in UTF8, such as: createdb --encoding UTF8 --template template0 sipher`)
}

async function prepareVersionTable (database: Queryable): Promise<number> {
  // `create schema if not exists` wants the right to make one where there is one as well, which somebody else may have made.
  await database.query('do $$ begin if to_regnamespace(\'sipher_sessions\') is null then create schema sipher_sessions; end if; end $$')
  await database.query(`
    create table if not exists sipher_sessions.migrations (
      version int primary key,
      name text not null,
      applied_at timestamptz not null default now()
    )`)
  return readVersion(database)
}

/** Restored without what is in it, the record of migrations says that there are none. */
async function requireNoTables (database: Queryable): Promise<void> {
  const { rowCount } = await database.query('select from pg_tables where schemaname = \'sipher_sessions\' and tablename = any ($1) and tablename <> \'migrations\'', [Object.keys(relations)])
  if (rowCount !== 0) throw new SchemaVersionError('The schema sipher_sessions has tables, and no record of the migrations that made them. Restore it with the rows of sipher_sessions.migrations, or drop it: drop schema sipher_sessions cascade')
}

/**
 * The newest id in the log of changes, if its sequence is behind it. Logical replication copies the log, but not how far its ids have
 * come: whoever writes to it would be given those that there are.
 */
async function findOvertakenSequence (database: Queryable): Promise<string | undefined> {
  // Who may not look at the sequence is not told where it is.
  const { rows: [behind] } = await database.query<{ newest: string }>(`
    select newest::text
    from (select max(id) as newest from sipher_sessions.changes) as changes
    where has_sequence_privilege('sipher_sessions.changes_id_seq', 'usage, select')
      and newest > coalesce(pg_sequence_last_value('sipher_sessions.changes_id_seq'::regclass), 0)`)
  return behind?.newest
}

/** Under the lock of migrations: of two that find it behind, the later would set it back to before what was logged in between. */
async function advanceSequence (database: Queryable): Promise<void> {
  const newest = await findOvertakenSequence(database)
  if (newest === undefined) return
  const setting = `select setval('sipher_sessions.changes_id_seq', ${newest})`
  await database.query(setting).catch((error: unknown) => {
    throw new SchemaVersionError(`The log of changes is ahead of the sequence of its ids, as after logical replication, and the sequence cannot be set (${(error as Error).message}). As the user who migrates: ${setting}`)
  })
}

async function readVersion (database: Queryable): Promise<number> {
  const { rows } = await database.query<{ version: number }>(
    'select coalesce(max(version), 0) as version from sipher_sessions.migrations')
  return rows[0]!.version
}

/** The same; 0 where there are no tables yet. */
async function readVersionIfAny (database: Queryable): Promise<number> {
  return readVersion(database).catch((error: unknown) => {
    if (isMissing(error)) return 0
    throw error
  })
}

/** Whether it says that there is no such table. */
function isMissing (error: unknown): boolean {
  return (error as { code?: string }).code === '42P01'
}

/**
 * Resolves when the database's schema is at least the one that this code needs, and may be used.
 *
 * @throws SchemaVersionError, and what the database answers where it cannot be asked
 */
export async function checkSchemaVersion (database: Queryable): Promise<void> {
  const newest = (await listMigrations()).at(-1)!.version
  const current = await readVersion(database).catch((error: unknown) => {
    const { cause = error } = error as { cause?: unknown }
    if (!isMissing(cause)) throw error
    throw new SchemaVersionError('The database has no tables of sipher-sessions yet. Run: npx sipher-sessions migrate')
  })
  if (current < newest) {
    throw new SchemaVersionError(`The database schema is at version ${current} and this release needs ${newest}. Run: npx sipher-sessions migrate`)
  }
  // What a newer release has added is none of this one's business.
  if (current === newest) await requireRelations(database)
}

/**
 * That all of the schema is there, which a part of a backup may not be, and may be used: a user who may use the tables that there
 * were is not given the use of those that a migration by another user makes. What others keep in the schema is theirs.
 */
async function requireRelations (database: Queryable): Promise<void> {
  const { rows } = await database.query<{ name: string, user: string, missing: boolean }>(`
    select name, current_user as user, oid is null as missing
    from unnest($1::text[], $2::text[]) as needed (name, privileges)
    left join pg_class on relname = name and relnamespace = 'sipher_sessions'::regnamespace
    -- Of a list of privileges these functions ask for any.
    where oid is null or case relkind when 'S' then not has_sequence_privilege(oid, privileges)
      else exists (select from unnest(string_to_array(privileges, ',')) as privilege where not has_table_privilege(oid, privilege)) end
    order by name`, [Object.keys(relations), Object.values(relations).map(String)])
  const named = (isMissing: boolean) => rows.filter(({ missing }) => missing === isMissing).map(({ name }) => `sipher_sessions.${name}`).join(', ')
  if (named(true) !== '') throw new SchemaVersionError(`The database lacks ${named(true)}, which its migrations have made. Restore the schema sipher_sessions as a whole.`)
  if (rows.length === 0) return
  const { user } = rows[0]!
  throw new SchemaVersionError(`The user ${JSON.stringify(user)} may not use ${named(false)}. As the user who migrates: ${grantsTo(user)}`)
}

/** What lets another user than the one who migrates do all that the service does, in SQL. */
export function grantsTo (user: string): string {
  const name = `"${user.replaceAll('"', '""')}"`
  return `grant usage on schema sipher_sessions to ${name}; grant select, insert, update, delete on all tables in schema sipher_sessions to ${name}; ` +
    `grant usage on all sequences in schema sipher_sessions to ${name}`
}

function newerSchema (current: number, newest: number): Error {
  return new SchemaVersionError(`The database schema is at version ${current}, but this release knows versions up to ${newest} only: ` +
    'a newer release of sipher-sessions has migrated it. Start that release, or restore the database from before.')
}

function ignore (): void {}
