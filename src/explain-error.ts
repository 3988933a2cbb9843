import { ConfigError } from './config.js'
import { decode } from './decode.js'
import { EmbeddedPostgresError } from './embedded-postgres.js'
import { UpstreamDocumentError } from './gateway/document.js'
import { grantsTo, SchemaVersionError } from './migrate.js'
import { isDatabaseError } from './postgres/database-error.js'

/**
 * What the process prints about an error that ended it: a sentence where the user can mend it, without the trace that
 * would bury it, and the trace where they cannot.
 *
 * @param databaseUrl the database that was to be used, if one was named
 */
export function explainError (error: unknown, databaseUrl = ''): string {
  const { code = '', syscall, message, path } = error as NodeJS.ErrnoException
  if (error instanceof ConfigError) return `The configuration is wrong.\n${message}`
  if (error instanceof EmbeddedPostgresError || error instanceof UpstreamDocumentError || error instanceof SchemaVersionError) return message
  if (code === 'EADDRINUSE') return `${message}. Another process listens there; stop it or set PORT.`
  if (syscall === 'listen') return `${message}. Set HOST and PORT to an address and port of this machine that you may listen on.`
  // What PgBouncer answers to a connection that asks for a time limit.
  if (code === '08P01' && message.startsWith('unsupported startup parameter')) {
    return `DATABASE_URL leads to a pooler such as PgBouncer, which refuses what a connection asks for (${message}). Set DATABASE_POOLER=transaction.`
  }
  if (code === '42501') {
    return `The user of DATABASE_URL may not do what is needed (${message}). Migrate as one who may make tables (npx sipher-sessions migrate), who also lets this one use what is there: ${grantsTo(userOf(databaseUrl))}`
  }
  // What the driver says itself has no code, and nor has what TLS says of a certificate one that begins alike.
  if (/^SASL|client password must be/.test(message)) return `The database of DATABASE_URL cannot be used: it wants a password, and the URL has none, or not its (${message}). Write it as postgres://user:password@host/database.`
  if (/does not support SSL|certificate|unable to verify/i.test(message)) {
    return `The database of DATABASE_URL cannot be used: TLS with it fails (${message}). See sslmode and sslrootcert in the URL: sslmode=no-verify trusts any certificate, sslmode=disable is without TLS.`
  }
  if (message === 'Connection terminated unexpectedly') return `The database of DATABASE_URL cannot be used: what answers there ended the connection (${message}). Is it a PostgreSQL?`
  if (/connection timeout|timeout exceeded when trying to connect/.test(message)) return `The database of DATABASE_URL cannot be used: nothing answers there (${message})`
  if (code === '25006') return `The database of DATABASE_URL cannot be written to (${message}). Set DATABASE_URL to the primary, or make the database writable.`
  if (syscall === 'open' && path !== undefined && decode(databaseUrl).includes(path)) return `A file that DATABASE_URL names cannot be read: ${message}`
  // Whatever ends the connection before it is one, a pooler's reasons as well: it is starting, in recovery, or has too many.
  if (isDatabaseError(error) && error.severity === 'FATAL') return `The database of DATABASE_URL cannot be used: ${message}`
  // A connection that was tried on several addresses has no message of its own; 3D and 28 are a database or user that
  // does not exist, or a wrong password, 53 that there is no room for another connection.
  if (syscall === 'connect' || syscall === 'getaddrinfo' || /^(ECONNREFUSED|ECONNRESET|ENOTFOUND|ETIMEDOUT|3D000|28...|53...)$/.test(code)) return `The database of DATABASE_URL cannot be used: ${message || code}`
  return String((error as Error).stack)
}

/** Whom a database's URL names, which may be nobody. */
function userOf (databaseUrl: string): string {
  return (URL.canParse(databaseUrl) && decode(new URL(databaseUrl).username)) || 'USER'
}
