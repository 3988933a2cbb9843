import t from 'tap'
import { ConfigError } from '../src/config.js'
import { EmbeddedPostgresError } from '../src/embedded-postgres.js'
import { explainError } from '../src/explain-error.js'

const withCode = (code: string, message: string, syscall?: string) => Object.assign(new Error(message), { code, syscall })

t.test('what the user can mend is a sentence', async t => {
  t.equal(explainError(new ConfigError('PORT must be integer')), 'The configuration is wrong.\nPORT must be integer')
  t.equal(explainError(new EmbeddedPostgresError('no binary')), 'no binary')
  t.equal(explainError(withCode('EADDRINUSE', 'listen EADDRINUSE')), 'listen EADDRINUSE. Another process listens there; stop it or set PORT.')
  t.equal(explainError(withCode('EACCES', 'listen EACCES', 'listen')), 'listen EACCES. Set HOST and PORT to an address and port of this machine that you may listen on.')
  t.equal(explainError(withCode('EACCES', 'connect EACCES /run/.s.PGSQL.5432', 'connect')), 'The database of DATABASE_URL cannot be used: connect EACCES /run/.s.PGSQL.5432')
  t.equal(explainError(withCode('ECONNREFUSED', '')), 'The database of DATABASE_URL cannot be used: ECONNREFUSED')
  t.equal(explainError(withCode('53300', 'too many connections')), 'The database of DATABASE_URL cannot be used: too many connections')
  t.equal(explainError(withCode('28P01', 'wrong password')), 'The database of DATABASE_URL cannot be used: wrong password')
  t.equal(explainError(new Error('Connection terminated due to connection timeout')), 'The database of DATABASE_URL cannot be used: nothing answers there (Connection terminated due to connection timeout)')
  for (const message of ['The server does not support SSL connections', 'self-signed certificate', 'unable to verify the first certificate']) {
    t.equal(explainError(new Error(message)), `The database of DATABASE_URL cannot be used: TLS with it fails (${message}). See sslmode and sslrootcert in the URL: sslmode=no-verify trusts any certificate, sslmode=disable is without TLS.`)
  }
  t.equal(explainError(new Error('SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string')), 'The database of DATABASE_URL cannot be used: it wants a password, and the URL has none, or not its ' +
    '(SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string). Write it as postgres://user:password@host/database.')
  t.equal(explainError(new Error('Connection terminated unexpectedly')), 'The database of DATABASE_URL cannot be used: what answers there ended the connection (Connection terminated unexpectedly). Is it a PostgreSQL?')
  t.equal(explainError(withCode('42501', 'permission denied for database x')), 'The user of DATABASE_URL may not do what is needed (permission denied for database x). Migrate as one who may make tables ' +
    '(npx sipher-sessions migrate), who also lets this one use what is there: grant usage on schema sipher_sessions to "USER"; ' +
    'grant select, insert, update, delete on all tables in schema sipher_sessions to "USER"; grant usage on all sequences in schema sipher_sessions to "USER"')
  t.match(explainError(withCode('42501', 'permission denied for schema sipher_sessions'), 'postgres://a%22b:secret@host/db'), /: grant usage on schema sipher_sessions to "a""b"; .*[^t]$/)
  t.match(explainError(withCode('42501', 'permission denied for schema sipher_sessions'), 'postgres://host/db'), ' to "USER"; ')
  t.equal(explainError(withCode('08P01', 'unsupported startup parameter: statement_timeout')), 'DATABASE_URL leads to a pooler such as PgBouncer, which refuses what a connection asks for ' +
    '(unsupported startup parameter: statement_timeout). Set DATABASE_POOLER=transaction.')
  for (const [code, message] of [['57P03', 'the database system is starting up'], ['55000', 'database "d" is not currently accepting connections'], ['08P01', 'no more connections allowed (max_client_conn)']] as const) {
    t.equal(explainError(Object.assign(withCode(code, message), { severity: 'FATAL' })), `The database of DATABASE_URL cannot be used: ${message}`)
  }
  t.equal(explainError(withCode('ECONNRESET', 'read ECONNRESET', 'read')), 'The database of DATABASE_URL cannot be used: read ECONNRESET')
  t.equal(explainError(withCode('25006', 'cannot execute CREATE SCHEMA in a read-only transaction')), 'The database of DATABASE_URL cannot be written to (cannot execute CREATE SCHEMA in a read-only transaction). ' +
    'Set DATABASE_URL to the primary, or make the database writable.')
  const missing = Object.assign(withCode('ENOENT', 'ENOENT: no such file or directory, open \'/my certs/ca.pem\'', 'open'), { path: '/my certs/ca.pem' })
  t.equal(explainError(missing, 'postgres://h/d?sslrootcert=%2Fmy%20certs%2Fca.pem'), 'A file that DATABASE_URL names cannot be read: ENOENT: no such file or directory, open \'/my certs/ca.pem\'')
  t.match(explainError(missing), /^Error: ENOENT[^]*\n {4}at /, 'which no other file is')
})

t.test('what they cannot has its trace', async t => {
  t.match(explainError(new Error('a bug')), /^Error: a bug\n {4}at /)
  t.match(explainError(Object.assign(withCode('42703', 'column x does not exist'), { severity: 'ERROR' })), /^Error: column x does not exist\n {4}at /)
  t.match(explainError(withCode('08P01', 'invalid message format')), /^Error: invalid message format\n {4}at /)
})
