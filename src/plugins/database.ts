import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import pg from 'pg'
import { setDeadline } from '../deadline.js'
import { ApiError } from '../errors.js'
import { checkSchemaVersion, migrate, SchemaVersionError } from '../migrate.js'
import { columnTypes } from '../postgres/column-types.js'
import { createConnections } from '../postgres/connections.js'
import { isDatabaseError } from '../postgres/database-error.js'

/** A pool, a client of a transaction or the database of the app: whatever a repository can send a statement to. */
export interface Queryable {
  /**
   * @param name under which Postgres may keep the statement, parsed and planned, for a connection; only for one whose plan
   * is right whatever the size that the tables come to have
   */
  query<Row extends object> (text: string, values?: unknown[], name?: string): Promise<{ rows: Row[], rowCount: number | null }>
  /** The same for a request that has been waiting since a time by `performance.now()`: that counts as its wait. */
  since? (time: number): Queryable
  /** How long something may wait until it is sent, in milliseconds, where the database has a limit. */
  maxWaitMs?: number
}

/** The queryable for what has been waiting since then, where it knows of waiting. */
export function waitingSince (database: Queryable, since: number): Queryable {
  return database.since?.(since) ?? database
}

export interface DatabaseOptions {
  /**
   * A pool to use. It stays the giver's: it is not ended here, and its own limits apply; Postgres keeps no plans of statements
   * that are sent by it, for it may lead through a pooler.
   * @default none: one is made, to `connectionString`
   */
  pool?: pg.Pool
  /**
   * Where to make a pool to, when none is given: `postgres://user:password@host:5432/database`.
   * @default none: then `pool` is needed
   */
  connectionString?: string | undefined
  /**
   * Connections of the pool that is made, at most: a whole number from 1.
   * @default 10
   */
  maxConnections?: number
  /**
   * `transaction` where a pooler such as PgBouncer, in transaction mode, is between here and Postgres. It refuses settings
   * of a connection, and gives each transaction another one: limits then go with a transaction around each statement, which
   * costs two round trips more, and Postgres keeps no statement's plan. Without it PgBouncer refuses the connection
   * (`unsupported startup parameter: statement_timeout`).
   * @default undefined: none, or one in session mode that lets startup parameters through
   */
  pooler?: 'transaction' | undefined
  /**
   * How long a statement may take, in milliseconds: half of it for the wait for a connection, half for Postgres. Past
   * either the request gets 503. A number from 1 to 3,600,000, an hour.
   * @default 800
   */
  timeoutMs?: number | undefined
  /**
   * Whether the schema is brought up to date before the app is ready.
   * @default true
   */
  migrate?: boolean
}

/**
 * How much longer than Postgres's own limit an answer is waited for, in milliseconds. Postgres gives up first, so that
 * a write that was answered 503 is not carried out afterwards; only one that cannot be reached any more is given up here.
 */
const answerGraceMs = 100

/** An hour, in milliseconds. */
const maxTimeoutMs = 3_600_000

/** How long a connection may take to be made, in milliseconds. */
const connectTimeoutMs = 3_000

/** How long a connection may be idle in a transaction, of which there are none but migrations, in milliseconds. */
const idleTimeoutMs = 10_000

const unavailableStates = /^(08|53|57|58|28|3D|3F|0A000|25006|25P0|40|42501|42P01|55P03)/

/**
 * Whether a failed statement says that the database is not to be had at the moment, rather than that the statement
 * was wrong: no connection, shutting down, out of resources, locked or taking too long, read-only or a standby after a failover, not
 * migrated yet or not allowed.
 */
function isUnavailable (error: unknown): boolean {
  if (!isDatabaseError(error)) return true
  return error.code === undefined || unavailableStates.test(error.code)
}

/**
 * Whether the connection cannot be kept: after a timeout the answer may still arrive, and after a fatal error Postgres
 * closes it. One that is read-only, or to a standby, may stay so when the database no longer is.
 */
function isBroken (error: unknown): boolean {
  return !isDatabaseError(error) || error.severity === 'FATAL' || error.code === '25006' || error.code === '0A000'
}

function unavailable (cause: unknown): ApiError {
  return new ApiError('SERVICE_UNAVAILABLE', { cause })
}

/** The answer to a statement, unless it takes longer; the statement may then still be under way on its connection. */
function inTime<Answer> (answer: Promise<Answer>, ms: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const clear = setDeadline(() => reject(new Error(`the database did not answer within ${Math.round(ms)} ms`)), ms)
    answer.then(resolve, reject).finally(clear)
  })
}

/**
 * Prepares a connection: what a URL, a user or a database is set to would take the place of the limits, of how
 * transactions see each other, and of how exactly times are written.
 *
 * Plans of named statements are kept while tables grow: one that reads a whole table, which is best while it has a page, would go
 * on doing so when it has a million. Every statement that has a name finds its rows by an index. One that reads a table that has none
 * is then taken for so dear that PostgreSQL would compile it first, for longer than it may take.
 *
 * A standby is behind: it knows nothing of what was acknowledged just now. None becomes one while a connection to it lasts.
 */
async function prepareConnection (client: pg.ClientBase, statementTimeoutMs: number): Promise<void> {
  const text = `set statement_timeout = ${statementTimeoutMs}; set idle_in_transaction_session_timeout = ${idleTimeoutMs}; set default_transaction_isolation = 'read committed'; set extra_float_digits = 1; set enable_seqscan = off; set jit = off; select pg_is_in_recovery() as "isStandby"`
  const results = await client.query({ text, query_timeout: connectTimeoutMs, types: columnTypes } as pg.QueryConfig) as unknown as pg.QueryResult<{ isStandby: boolean }>[]
  if (results.at(-1)!.rows[0]!.isStandby) {
    throw new SchemaVersionError('The database is a standby, which takes no writes and may be behind. Set DATABASE_URL, or connectionString, to an address that always leads to the primary.')
  }
}

function createDatabase (options: DatabaseOptions, log: FastifyBaseLogger) {
  const { timeoutMs = 800 } = options
  if (!(timeoutMs >= 1 && timeoutMs <= maxTimeoutMs)) throw new Error(`The option timeoutMs is ${timeoutMs}; it must be a number from 1 to ${maxTimeoutMs}`)
  const halfMs = Math.ceil(timeoutMs / 2)
  // A pooler gives each transaction another connection, and how the connections of a pool that is given are set is not
  // known here.
  const named = !options.pool && !options.pooler
  const pool = options.pool ?? new pg.Pool({
    connectionString: options.connectionString,
    application_name: 'sipher-sessions',
    max: options.maxConnections ?? 10,
    // No less than a request waits, for the pool means its queue by it as well. A connection that comes too late for one request is
    // there for the next.
    connectionTimeoutMillis: Math.max(connectTimeoutMs, halfMs),
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    ...(!options.pooler && { statement_timeout: halfMs, idle_in_transaction_session_timeout: idleTimeoutMs }),
    ...(named && { onConnect: client => prepareConnection(client, halfMs) })
  })

  // Without listeners an idle connection that breaks, as all do when Postgres restarts, would end the process.
  const onIdleError = (error: Error) => log.warn({ err: error }, 'an idle database connection broke; the pool makes a new one')
  // One more listens to each event, here and for the connections: Node takes more than ten for a leak, and a pool may be given to many.
  const raiseMaxListeners = (by: number) => { pool.setMaxListeners(pool.getMaxListeners() && pool.getMaxListeners() + by) }
  raiseMaxListeners(1)
  pool.on('error', onIdleError)
  const connections = createConnections(pool, halfMs)

  async function query<Row extends object> (text: string, values: unknown[] | undefined, name: string | undefined, since: number): Promise<{ rows: Row[], rowCount: number | null }> {
    let client: pg.PoolClient
    try {
      client = await connections.acquire(since)
    } catch (error) {
      throw unavailable(error)
    }
    // A connection that breaks under a statement emits `error` besides failing the statement.
    client.on('error', ignore)
    const giveBack = (broken: boolean) => {
      client.removeListener('error', ignore)
      client.release(broken)
    }
    let isLeftOpen = false
    try {
      const result = await (options.pooler ? inTransaction<Row>(client, text, values, () => { isLeftOpen = true }) : inTime(client.query<Row>({ name: named ? name : undefined, text, values, types: columnTypes } as pg.QueryConfig), halfMs + answerGraceMs))
      giveBack(false)
      return result
    } catch (error) {
      giveBack(isLeftOpen || isBroken(error))
      throw isUnavailable(error) ? unavailable(error) : error
    }
  }

  /**
   * The statement in a transaction that carries its limit, which a pooler would not let a connection have. What is given
   * up here is not carried out, whatever Postgres and the pooler still do with it: `commit` is sent after the statement was
   * answered in time or not at all, and a connection that ends without one is rolled back. Only of a commit that is not
   * answered the outcome is unknown, as it is of one on a connection that breaks.
   *
   * @param onLeftOpen called where the transaction could not be ended, before the error is thrown for which it was to be
   */
  async function inTransaction<Row extends object> (client: pg.PoolClient, text: string, values: unknown[] | undefined, onLeftOpen: () => void): Promise<pg.QueryResult<Row>> {
    const deadline = performance.now() + halfMs
    const left = () => Math.max(0, deadline - performance.now())
    let result: pg.QueryResult<Row>
    try {
      await inTime(client.query(`begin isolation level read committed; set local statement_timeout = ${halfMs}; set local idle_in_transaction_session_timeout = ${halfMs}`), left())
      result = await inTime(client.query<Row>({ text, values, types: columnTypes } as pg.QueryConfig), left())
    } catch (error) {
      // A connection that is not to be kept is rolled back by its end.
      if (!isBroken(error)) await inTime(client.query('rollback'), left() + answerGraceMs).catch(onLeftOpen)
      throw error
    }
    await inTime(client.query('commit'), left() + answerGraceMs)
    return result
  }

  return {
    maxWaitMs: halfMs,

    /**
     * Sends one statement. Throws `SERVICE_UNAVAILABLE` when the database cannot be reached or takes longer than the
     * time allowed, and the driver's error when the statement itself is at fault.
     */
    query<Row extends object> (text: string, values?: unknown[], name?: string): Promise<{ rows: Row[], rowCount: number | null }> {
      return query(text, values, name, performance.now())
    },

    since (time: number): Queryable {
      return { query: (text, values, name) => query(text, values, name, time) }
    },

    /**
     * Resolves when the database answers, is no standby, can be written to where that is needed, and has the schema that this code
     * needs; throws otherwise.
     *
     * @param since when it was asked for, by `performance.now()`
     */
    async checkReady (since: number, needsWrites: boolean): Promise<void> {
      const database = this.since(since)
      await checkSchemaVersion(database)
      // Changes nothing, and fails where it could not. A standby has no unlogged tables even to be read.
      await database.query(needsWrites ? 'update sipher_sessions.request_counts set requests = requests where false' : 'select from sipher_sessions.request_counts where false')
    },

    /** @param onConnect called once there is a connection */
    async migrate (onConnect: () => void): Promise<void> {
      await migrate(pool, log, onConnect)
    },

    async close (): Promise<void> {
      pool.removeListener('error', onIdleError)
      connections.close()
      raiseMaxListeners(-1)
      if (options.pool) return
      // Connections may still break while they are closed.
      pool.on('error', ignore)
      await pool.end()
    }
  }
}

/** @param limitMs how long Fastify waits, 0 for ever: what it says then is that somebody forgot to resolve a promise */
async function inTimeToStart (run: (onConnect: () => void) => Promise<void>, limitMs: number): Promise<void> {
  let isConnected = false
  const migrated = run(() => { isConnected = true })
  if (limitMs === 0) return migrated
  const earlierMs = Math.floor(limitMs * 0.9)
  let timer: NodeJS.Timeout
  const tooLong = new Promise<void>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new SchemaVersionError(!isConnected
        ? `The database has given no connection within ${earlierMs} ms: is it there, or are all connections of the pool taken?`
        : `The database is not migrated after ${earlierMs} ms, and Fastify waits for ${limitMs} ms (pluginTimeout): the migration takes long, or waits for another instance's. ` +
        'Give Fastify more time, or migrate before the start: npx sipher-sessions migrate'))
    }, earlierMs)
  })
  await Promise.race([migrated, tooLong]).finally(() => { clearTimeout(timer) })
}

function ignore (): void {}

type Database = ReturnType<typeof createDatabase>

declare module 'fastify' {
  interface FastifyInstance {
    sessionDatabase: Database
  }
}

export default fp<DatabaseOptions>(async (fastify, options) => {
  if (!options.pool && !options.connectionString) {
    throw new Error('sipher-sessions needs a database: give it `pool` (a pg.Pool) or `connectionString`.')
  }
  if (options.pool && typeof options.pool.connect !== 'function') throw new Error('The option pool is no pg.Pool.')
  // What the driver makes of other forms of numbers and times is not what they are.
  if ((options.pool?.options as { binary?: boolean } | undefined)?.binary) throw new Error('The option pool is of connections with binary: true, whose answers are not read; give another one, or connectionString.')
  const database = createDatabase(options, fastify.log)
  fastify.decorate('sessionDatabase', database)
  if (options.migrate !== false) fastify.addHook('onReady', () => inTimeToStart(onConnect => database.migrate(onConnect), fastify.initialConfig.pluginTimeout!))
  fastify.addHook('onClose', () => database.close())
}, { name: 'database', fastify: '5.x' })
