import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Type, type TObject } from '@sinclair/typebox'
import Fastify, { type FastifyInstance } from 'fastify'
import type pg from 'pg'
import t, { type Test } from 'tap'
import { startEmbeddedPostgres } from '../../src/embedded-postgres.js'
import { createKeyRing, generateEncryptionKey } from '../../src/encryption.js'
import sipherSessions, { presetDefaults, secret, type SipherSessionsOptions } from '../../src/index.js'
import { createSessionSecrets } from '../../src/repositories/session-secrets.js'
import { adminKey, answer, createKey, createPool, createSession, encryptionKeys, failure, startService } from '../helpers.js'

const viewingKey = '0x7f2c9a41d05be38816c4'
const { currentKeyId } = createKeyRing(encryptionKeys)
const unreadable = failure(503, 'SERVICE_UNAVAILABLE', 'The secret values of this session cannot be read, so it is not used without them. The operator finds the cause in the log; meanwhile create a new session.')

/** A service whose log is kept, with a session that holds a secret. */
async function startWithSecret (t: Test, options: Partial<SipherSessionsOptions> = {}) {
  const lines: string[] = []
  const { service, connectionString } = await startService(t, { ...options, logLevel: 'warn', logStream: { write: line => { lines.push(line) } } })
  const { key, headers } = await createKey(service)
  const sessionId = await createSession(service, key, { chain: 'near', defaultViewingKey: viewingKey })
  const pool = createPool(t, connectionString)
  return { service, connectionString, key, headers, sessionId, pool, lines, url: `/v1/sessions/${sessionId}`, errors: () => lines.map(line => JSON.parse(line)).filter(({ level }) => level === 50).map(({ msg, err }) => ({ msg, message: err.message })) }
}

async function stored (pool: pg.Pool, sessionId: string) {
  const { rows } = await pool.query('select defaults, secrets from sipher_sessions.sessions where id = decode($1, \'hex\')', [sessionId.slice(5)])
  return rows[0] as { defaults: Record<string, unknown>, secrets: Record<string, string> }
}

function setSecrets (pool: pg.Pool, sessionId: string, secrets: object) {
  return pool.query('update sipher_sessions.sessions set secrets = $2 where id = decode($1, \'hex\')', [sessionId.slice(5), secrets])
}

t.test('a secret value is stored encrypted, and answered and applied in plain text to its owner', async t => {
  const { service, key, headers, sessionId, pool, url } = await startWithSecret(t)
  const first = await stored(pool, sessionId)
  t.strictSame(first.defaults, { chain: 'near' })
  t.strictSame(Object.keys(first.secrets), ['defaultViewingKey'])
  t.ok(first.secrets.defaultViewingKey!.startsWith(`v1.${currentKeyId}.`))

  const whole = { chain: 'near', defaultViewingKey: viewingKey }
  t.strictSame((await service.inject({ url, headers })).json().data.defaults, whole)
  const resolved = await service.inject({ method: 'POST', url: '/v1/resolve?properties=chain,defaultViewingKey', headers: { ...headers, 'x-session-id': sessionId }, payload: {} })
  t.strictSame(resolved.json().data.body, whole)

  const patch = (defaults: object) => service.inject({ method: 'PATCH', url, headers, payload: { defaults } })
  t.strictSame((await patch({ chain: 'sui' })).json().data.defaults, { ...whole, chain: 'sui' }, 'a patch that leaves it out leaves it')
  t.strictSame((await stored(pool, sessionId)).secrets, first.secrets)
  t.strictSame((await patch({ defaultViewingKey: '0xbeef' })).json().data.defaults, { chain: 'sui', defaultViewingKey: '0xbeef' })
  t.strictSame((await stored(pool, sessionId)).defaults, { chain: 'sui' })

  const without = await createSession(service, key, { chain: 'near' })
  t.strictSame((await stored(pool, without)).secrets, {})
})

t.test('a secret value may be anything that JSON holds, and is one value as a whole', async t => {
  const defaults = Type.Object({
    account: Type.Optional(Type.Object({ name: Type.String(), token: secret(Type.String()) })),
    list: Type.Optional(secret(Type.Array(Type.Unknown()))),
    limit: Type.Optional(secret(Type.Union([Type.Number(), Type.Null()]))),
    flag: Type.Partial(Type.Object({ flag: secret(Type.Boolean()) })).properties.flag,
    plain: Type.Optional(Type.String())
  })
  const { service, connectionString } = await startService(t, { defaults })
  const { key, headers } = await createKey(service)
  const values = { account: { name: 'ann', token: 'tököň 🔑 \\u0000 "' }, list: [1, null, { a: [] }], limit: 1.5e300, flag: false, plain: 'p' }
  const sessionId = await createSession(service, key, values)
  const url = `/v1/sessions/${sessionId}`
  const pool = createPool(t, connectionString)
  t.strictSame((await service.inject({ url, headers })).json().data.defaults, values)
  t.strictSame((await stored(pool, sessionId)).defaults, { plain: 'p' })
  t.strictSame(Object.keys((await stored(pool, sessionId)).secrets).sort(), ['account', 'flag', 'limit', 'list'])

  const patched = await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { account: { name: 'bob', token: '' }, limit: null } } })
  t.strictSame(patched.json().data.defaults, { ...values, account: { name: 'bob', token: '' }, limit: null })
  const { body } = (await service.inject({ method: 'POST', url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId }, payload: {} })).json().data
  t.strictSame(body, { plain: 'p' }, 'and none of it goes where it was not asked for')

  for (const token of ['a\u0000', 'a\\\u0000', '\ud800', 'x\udc00y', '\udbff', '\udfff']) {
    const response = await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { account: { name: 'x', token } } } })
    t.strictSame(response.json().error?.details, [{ field: 'defaults', reason: 'holds a character that cannot be stored (NUL or half a surrogate pair)' }], 'as for other values')
  }
})

t.test('concurrent patches of secret and other values through two instances lose none', async t => {
  const names = Array.from({ length: 32 }, (_, i) => `parameter${i}`)
  const defaults = Type.Object(Object.fromEntries(names.map((name, i) => [name, Type.Optional(i % 2 ? secret(Type.Integer()) : Type.Integer())])))
  const one = await startService(t, { defaults })
  const two = await startService(t, { defaults, connectionString: one.connectionString })
  const { key, headers } = await createKey(one.service)
  const url = `/v1/sessions/${await createSession(one.service, key, {})}`
  const responses = await Promise.all(names.map((name, i) =>
    (i % 4 < 2 ? one : two).service.inject({ method: 'PATCH', url, headers, payload: { defaults: { [name]: i } } })))
  t.ok(responses.every(({ statusCode }) => statusCode === 200))
  t.strictSame((await two.service.inject({ url, headers })).json().data.defaults, Object.fromEntries(names.map((name, i) => [name, i])))
})

/** What each way of using a session answers, the deletion last. */
async function useInEveryWay (service: FastifyInstance, headers: object, sessionId: string) {
  const url = `/v1/sessions/${sessionId}`
  const named = { ...headers, 'x-session-id': sessionId }
  return {
    get: answer(await service.inject({ url, headers: { ...headers } })),
    apply: answer(await service.inject({ method: 'POST', url: '/v1/resolve', headers: named, payload: {} })),
    proxy: answer(await service.inject({ url: '/v1/resolve', headers: named })),
    patch: answer(await service.inject({ method: 'PATCH', url, headers: { ...headers }, payload: { defaults: { chain: 'sui' } } }))
  }
}

t.test('with another key, changed, moved or put in as plain text a secret is refused, never left out', async t => {
  const { service, key, headers, sessionId, pool, lines, errors } = await startWithSecret(t)
  const good = await stored(pool, sessionId)
  const otherId = await createSession(service, key, { chain: 'near', defaultViewingKey: '0xfeed0123456789' })
  const { secrets: moved } = await stored(pool, otherId)
  const foreign = createKeyRing([generateEncryptionKey()])
  const last = good.secrets.defaultViewingKey!.at(-1) === 'A' ? 'B' : 'A'
  const changed = good.secrets.defaultViewingKey!.replace(/.$/, last)

  const cases: Record<string, [secrets: object, reason: string]> = {
    'another key': [{ defaultViewingKey: foreign.encrypt('"0x1"', Buffer.alloc(0)) }, `is encrypted with the key ${foreign.currentKeyId}, which this process does not have: add that key to SESSION_ENCRYPTION_KEYS (option encryptionKeys)`],
    'from another session': [moved, `does not decrypt with the key ${currentKeyId}: it was changed in the database, or comes from another session or property`],
    changed: [{ defaultViewingKey: changed }, `does not decrypt with the key ${currentKeyId}: it was changed in the database, or comes from another session or property`],
    'plain text': [{ defaultViewingKey: '0x1' }, 'is no ciphertext: it was changed in the database'],
    'not even text': [{ defaultViewingKey: null }, 'is no ciphertext: it was changed in the database'],
    'cut off': [{ defaultViewingKey: `v1.${currentKeyId}.AAAA` }, 'is no ciphertext: it was changed in the database']
  }
  for (const [name, [secrets, reason]] of Object.entries(cases)) {
    await t.test(name, async t => {
      lines.length = 0
      await setSecrets(pool, sessionId, secrets)
      t.strictSame(await useInEveryWay(service, headers, sessionId), { get: unreadable, apply: unreadable, proxy: unreadable, patch: unreadable })
      t.strictSame((await stored(pool, sessionId)).defaults, { chain: 'near' }, 'the patch that was not acknowledged was not done')
      t.strictSame(errors(), Array.from({ length: 4 }, () => ({
        msg: 'a session is refused because its secrets cannot be read',
        message: `The secret "defaultViewingKey" of the session ${sessionId.slice(0, 17)}… ${reason}. Until then the session is refused; its owner can set the value anew by PATCH, or delete the session.`
      })))
      t.notMatch(lines.join(''), sessionId)
    })
  }
  t.equal((await service.inject({ url: `/v1/sessions/${sessionId}`, headers })).headers['retry-after'], '60')

  await t.test('to another property', async t => {
    await setSecrets(pool, sessionId, { rpcProvider: good.secrets.defaultViewingKey })
    t.strictSame(answer(await service.inject({ url: `/v1/sessions/${sessionId}`, headers })), unreadable)
  })
  await t.test('plain text among the other values', async t => {
    await setSecrets(pool, sessionId, {})
    await pool.query('update sipher_sessions.sessions set defaults = defaults || \'{"defaultViewingKey": "0x1"}\' where id = decode($1, \'hex\')', [sessionId.slice(5)])
    lines.length = 0
    t.strictSame(answer(await service.inject({ url: `/v1/sessions/${sessionId}`, headers })), unreadable)
    t.match(errors()[0]!.message, 'is stored in plain text, where only ciphertext counts.')
  })
  await t.test('to another owner', async t => {
    await pool.query('update sipher_sessions.sessions set defaults = \'{}\', secrets = $2 where id = decode($1, \'hex\')', [sessionId.slice(5), good.secrets])
    const thief = await createKey(service)
    await pool.query('update sipher_sessions.sessions set owner_id = $2 where id = decode($1, \'hex\')', [sessionId.slice(5), thief.id])
    t.strictSame(answer(await service.inject({ url: `/v1/sessions/${sessionId}`, headers: thief.headers })), unreadable)
  })
})

t.test('a patch that sets the unreadable value mends the session, and a deletion ends it', async t => {
  const { service, headers, sessionId, pool, url } = await startWithSecret(t)
  await setSecrets(pool, sessionId, { defaultViewingKey: 'x' })
  await pool.query('update sipher_sessions.sessions set defaults = defaults || \'{"defaultViewingKey": "0x1"}\'')
  const mended = await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { defaultViewingKey: '0xbeef' } } })
  t.strictSame(mended.json().data?.defaults, { chain: 'near', defaultViewingKey: '0xbeef' })
  t.strictSame((await stored(pool, sessionId)).defaults, { chain: 'near' })

  await setSecrets(pool, sessionId, { defaultViewingKey: 'x' })
  t.strictSame(answer(await service.inject({ method: 'DELETE', url, headers })), { status: 200, body: { success: true, data: { sessionId, deleted: true } } })
  t.equal((await service.inject({ url, headers })).json().error.code, 'SESSION_NOT_FOUND')
})

t.test('an unreadable session is no reason to refuse another in the same statement, nor to tell a stranger of it', async t => {
  const { service, key, headers, sessionId, pool } = await startWithSecret(t)
  const goodId = await createSession(service, key, { chain: 'near', defaultViewingKey: viewingKey })
  await setSecrets(pool, sessionId, { defaultViewingKey: 'x' })
  const stranger = await createKey(service)
  const [bad, good, strange, patch] = await Promise.all([
    service.inject({ url: `/v1/sessions/${sessionId}`, headers }),
    service.inject({ url: `/v1/sessions/${goodId}`, headers }),
    service.inject({ url: `/v1/sessions/${sessionId}`, headers: stranger.headers }),
    service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers: stranger.headers, payload: { defaults: {} } })
  ])
  t.equal(bad.statusCode, 503)
  t.strictSame(good.json().data.defaults, { chain: 'near', defaultViewingKey: viewingKey })
  t.equal(strange.json().error.code, 'SESSION_NOT_FOUND')
  t.equal(patch.json().error.code, 'SESSION_NOT_FOUND')
})

t.test('what goes bad between the check and the patch is not answered as done', async t => {
  const { service, headers, sessionId, pool, url } = await startWithSecret(t)
  await pool.query(`
    create function spoil () returns trigger language plpgsql as $$ begin new.secrets = '{"defaultViewingKey": "x"}'; return new; end $$;
    create trigger spoil before update on sipher_sessions.sessions for each row execute function spoil()`)
  t.strictSame(answer(await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { chain: 'sui' } } })), unreadable)
  await pool.query('drop trigger spoil on sipher_sessions.sessions')
  t.strictSame((await stored(pool, sessionId)).secrets, { defaultViewingKey: 'x' })

  await pool.query('delete from sipher_sessions.sessions')
  t.equal((await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { chain: 'sui' } } })).json().error.code, 'SESSION_NOT_FOUND')
})

t.test('a lenient host refuses it as well', async t => {
  const { connectionString, sessionId, key, pool } = await startWithSecret(t)
  await setSecrets(pool, sessionId, { defaultViewingKey: 'x' })
  const host = Fastify()
  t.teardown(() => host.close())
  await host.register(sipherSessions, { encryptionKeys, connectionString, sweepIntervalMs: 0, onInvalid: 'ignore' })
  host.post('/echo', async request => request.body)
  const send = (sessionId: string) => host.inject({ method: 'POST', url: '/echo', headers: { 'x-api-key': key, 'x-session-id': sessionId }, payload: { a: 1 } })
  t.strictSame(answer(await send(sessionId)), unreadable)
  t.strictSame(answer(await send(`sess_${'0'.repeat(64)}`)), { status: 200, body: { a: 1 } }, 'for the caller\'s own mistakes it is lenient')
})

t.test('a property that was secret or becomes secret is in one place after a patch', async t => {
  const plain = Type.Object({ chain: Type.Optional(Type.String()), defaultViewingKey: Type.Optional(Type.String()) })
  const { connectionString, sessionId, headers, pool, url } = await startWithSecret(t)
  const { service } = await startService(t, { connectionString, defaults: plain })
  t.strictSame((await service.inject({ url, headers })).json().data.defaults, { chain: 'near', defaultViewingKey: viewingKey }, 'what was encrypted is still read')
  const patch = await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { defaultViewingKey: '0xbeef' } } })
  t.strictSame(patch.json().data.defaults, { chain: 'near', defaultViewingKey: '0xbeef' })
  t.strictSame(await stored(pool, sessionId), { defaults: { chain: 'near', defaultViewingKey: '0xbeef' }, secrets: {} })
})

t.test('a session whose value was none before its property became secret is patched with that value or not at all', async t => {
  const { connectionString, headers, key, pool, service } = await startWithSecret(t)
  const plain = Type.Object({ chain: Type.Optional(Type.String()), defaultViewingKey: Type.Optional(Type.String()) })
  const { service: before } = await startService(t, { connectionString, defaults: plain })
  const sessionId = await createSession(before, key, { chain: 'near', defaultViewingKey: '0xbeef' })
  const patch = async (defaults: object) => answer(await service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults } }))
  t.strictSame(await patch({ chain: 'sui' }), unreadable)
  t.strictSame(await stored(pool, sessionId), { defaults: { chain: 'near', defaultViewingKey: '0xbeef' }, secrets: {} }, 'and nothing is changed')
  t.equal((await pool.query('select from sipher_sessions.changes where action = \'session.update\'')).rowCount, 0)
  t.match(await patch({ chain: 'sui', defaultViewingKey: viewingKey }), { status: 200, body: { data: { defaults: { chain: 'sui', defaultViewingKey: viewingKey } } } })
  t.match(await stored(pool, sessionId), { defaults: { chain: 'sui' }, secrets: { defaultViewingKey: /^v1/ } })
})

t.test('where sessions can hold a secret the registration needs keys, and says so', async t => {
  const register = (options: Partial<SipherSessionsOptions>) => async () => {
    await Fastify().register(sipherSessions, { connectionString: 'postgres://unused', migrate: false, ...options })
  }
  const message = 'sipher-sessions needs encryptionKeys: sessions hold secret values (defaultViewingKey), which are stored encrypted. Give it a list of keys, each 32 random bytes in base64 (openssl rand -base64 32), or `defaults` without a secret property.'
  await t.rejects(register({}), { message })
  await t.rejects(register({ encryptionKeys: [] }), { message })
  for (const [keys, reason] of [[[undefined], 'key 1 is missing.'], [[...encryptionKeys, undefined], 'key 2 is missing.'], ['key', 'it is no list of keys.']] as const) {
    await t.rejects(register({ encryptionKeys: keys as unknown as string[] }), { name: 'KeyRingError', message: `The option encryptionKeys is wrong: ${reason}` })
  }
  const noObject = { message: 'The option defaults is no object of @sinclair/typebox 0.34, such as Type.Object({ region: Type.Optional(Type.String()) }).' }
  for (const defaults of [{}, null, { type: 'object', properties: {} }, Type.String()]) await t.rejects(register({ encryptionKeys, defaults: defaults as TObject }), noObject)
  for (const auditRetentionDays of [0, 0.5, NaN]) {
    await t.rejects(register({ encryptionKeys, auditRetentionDays }), { message: `The option auditRetentionDays is ${auditRetentionDays}; it must be a whole number from 1` })
  }
  await t.rejects(register({ encryptionKeys: [...encryptionKeys, 'c2hvcnQ='] }), { name: 'KeyRingError', message: 'The option encryptionKeys is wrong: key 2 has 5 bytes instead of 32.' })
  await t.resolves(register({ defaults: Type.Object({ chain: Type.String() }) }))
})

t.test('a secret is nowhere in the database, its files, the log, errors or the OpenAPI document', async t => {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-secrets-'))
  chmodSync(dataDir, 0o755)
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }))
  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.teardown(() => postgres.stop())
  const lines: string[] = []
  const { service } = await startService(t, { connectionString: postgres.connectionString, logLevel: 'trace', logStream: { write: line => { lines.push(line) } } })
  const { key, headers } = await createKey(service)
  const seeds = ['0xc0ffee00112233445566778899aabbccddeeff0123', '0xDECADE8765432100fedcba98765432100badf00d99'] as const
  const marker = 'a-marker-that-is-no-secret'
  const sessionId = await createSession(service, key, { chain: 'near', defaultViewingKey: seeds[0] })
  const url = `/v1/sessions/${sessionId}`
  const pool = createPool(t, postgres.connectionString)
  // The database's own log may have each statement with its values.
  await pool.query('alter system set log_min_duration_statement = 0')
  await pool.query('select pg_reload_conf()')
  // Each server process reads it anew when it comes to it.
  while ((await pool.query<{ log_min_duration_statement: string }>('show log_min_duration_statement')).rows[0]!.log_min_duration_statement !== '0');
  await pool.query('select $1::text', [marker])

  const answers: string[] = [(await service.inject('/v1/openapi.json')).body]
  const send = async (request: object) => { answers.push((await service.inject({ headers, ...request })).body) }
  t.equal((await service.inject({ method: 'PATCH', url, headers, payload: { defaults: { defaultViewingKey: seeds[1] } } })).statusCode, 200)
  t.equal((await service.inject({ url, headers })).json().data.defaults.defaultViewingKey, seeds[1])
  t.equal((await service.inject({ method: 'POST', url: '/v1/resolve?properties=defaultViewingKey', headers: { ...headers, 'x-session-id': sessionId } })).statusCode, 200)
  for (const defaultViewingKey of seeds) {
    await send({ method: 'POST', url: '/v1/sessions', payload: { defaults: { defaultViewingKey: `${defaultViewingKey}\u0000` } } })
    await send({ method: 'POST', url: '/v1/sessions', payload: { defaults: { defaultViewingKey: [defaultViewingKey] } } })
    await send({ method: 'PATCH', url, payload: { defaults: { defaultViewingKey, chian: 'near' } } })
    await send({ method: 'PATCH', url, payload: { defaults: { defaultViewingKey: `${defaultViewingKey} ` } } })
  }
  await send({ url: '/v1/resolve', headers: { ...headers, 'x-session-id': sessionId } })
  await send({ url: '/v1/admin/keys', headers: { 'x-api-key': adminKey } })

  const tables = await pool.query<{ name: string }>('select format(\'%I.%I\', schemaname, tablename) as name from pg_tables where schemaname = \'sipher_sessions\'')
  t.ok(tables.rows.length >= 3)
  let dump = ''
  for (const { name } of tables.rows) {
    for (const { row } of (await pool.query<{ row: string }>(`select t::text as row from ${name} as t`)).rows) dump += `${row}\n`
  }
  await pool.query('alter table sipher_sessions.sessions add check (false) not valid')
  await send({ method: 'PATCH', url, payload: { defaults: { defaultViewingKey: seeds[0] } } })
  t.match(answers.at(-1), 'INTERNAL_SERVER_ERROR')
  await pool.query('alter table sipher_sessions.sessions drop constraint sessions_check')
  await setSecrets(pool, sessionId, { defaultViewingKey: (await stored(pool, sessionId)).secrets.defaultViewingKey!.replace(/.$/, '-') })
  await send({ url })
  t.match(answers.at(-1), 'SERVICE_UNAVAILABLE')

  await pool.query('checkpoint')
  const files = readdirSync(dataDir, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).map(entry => readFileSync(join(entry.parentPath, entry.name)))
  const places = { dump: Buffer.from(dump), log: Buffer.from(lines.join('')), answers: Buffer.from(answers.join('\n')), files: Buffer.concat(files) }
  t.ok(places.files.includes(marker), 'the search finds what is there')
  t.ok(places.dump.includes('defaultViewingKey'))
  for (const [place, bytes] of Object.entries(places)) {
    for (const [form, needle] of Object.entries(formsOf(seeds))) t.notOk(bytes.includes(needle), `${form} in ${place}`)
    for (const encoded of encryptionKeys) {
      t.notOk(bytes.includes(encoded), `the key in ${place}`)
      t.notOk(bytes.includes(Buffer.from(encoded, 'base64')), `the key's bytes in ${place}`)
    }
  }
})

/** What a value may look like where it was written in another form. */
function formsOf (values: readonly string[]): Record<string, string | Buffer> {
  const forms: Record<string, string | Buffer> = {}
  for (const value of values) {
    const digits = value.slice(2)
    const lower = digits.toLowerCase()
    forms[`${value} as it is`] = digits
    forms[`${value} in lower case`] = lower
    forms[`${value} in upper case`] = digits.toUpperCase()
    forms[`${value} as bytes`] = Buffer.from(digits, 'hex')
    for (const text of [value, digits, JSON.stringify(value)]) {
      forms[`${text} in hex`] = Buffer.from(text).toString('hex')
      // Without what depends on where in a text it stands.
      for (const encoding of ['base64', 'base64url'] as const) forms[`${text} in ${encoding}`] = Buffer.from(text).toString(encoding).replace(/=*$/, '').slice(0, -2)
    }
    forms[`${value}'s bytes in base64`] = Buffer.from(digits, 'hex').toString('base64').replace(/=*$/, '').slice(0, -2)
  }
  return forms
}

t.test('a secret is bound to every byte of its session\'s id', async t => {
  const secrets = createSessionSecrets(presetDefaults, createKeyRing(encryptionKeys))
  const id = Buffer.alloc(32, 7)
  const sealed = secrets.seal({ id, ownerId: 'ann' }, { defaultViewingKey: '0x1' }).secrets
  t.strictSame(secrets.open({ id, ownerId: 'ann' }, {}, sealed), { defaultViewingKey: '0x1' })
  for (let at = 0; at < id.length; at++) {
    const other = Buffer.from(id)
    other[at]! ^= 1
    t.throws(() => secrets.open({ id: other, ownerId: 'ann' }, {}, { ...sealed }), { code: 'SERVICE_UNAVAILABLE' }, `byte ${at}`)
  }
})

t.test('what an earlier release has encrypted stays readable', async t => {
  const key = Buffer.from(Array.from({ length: 32 }, (_, i) => i)).toString('base64')
  const secrets = createSessionSecrets(presetDefaults, createKeyRing([encryptionKeys[0]!, key]))
  const sealed = { defaultViewingKey: 'v1.630dcd2966c4.AQEBAQEBAQEBAQEBVbWOag39CQukOAI6iboqu5zc-WUS71m1LVljUg' }
  t.strictSame(secrets.open({ id: Buffer.alloc(32, 7), ownerId: 'key_example' }, {}, sealed), { defaultViewingKey: 'vk_example' })
})
