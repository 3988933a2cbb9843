import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { withDatabase } from '../src/commands/database.js'
import { run } from '../src/commands/run.js'
import { findEmbeddedPostgres, startEmbeddedPostgres } from '../src/embedded-postgres.js'
import { migrate } from '../src/migrate.js'
import { version } from '../src/package-root.js'
import { createDatabase, createKey, createPool, startService, unknownSessionId } from './helpers.js'

/** Runs a command line in this process; arguments may hold spaces. */
async function command (environment: NodeJS.ProcessEnv, ...args: string[]) {
  let out = ''
  let err = ''
  const code = await run(args, { environment, out: text => { out += text }, err: text => { err += text } })
  return { code, out, err }
}

async function startWithCommands (t: Test) {
  const { service, connectionString } = await startService(t, { rateLimit: false })
  const keys = (...args: string[]) => command({ DATABASE_URL: connectionString }, 'keys', ...args)
  return {
    service,
    connectionString,
    keys,
    async json (...args: string[]) {
      const { code, out, err } = await keys(...args, '--json')
      if (code !== 0 || err !== '') throw new Error(`exited with ${code}: ${err}`)
      return JSON.parse(out)
    },
    async accepts (key: string) {
      return (await service.inject({ url: `/v1/sessions/${unknownSessionId}`, headers: { 'x-api-key': key } })).statusCode === 404
    }
  }
}

const unknownKeyId = `key_${'0'.repeat(32)}`
const isoTime = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/

t.test('keys create shows a key once, which the running service accepts', async t => {
  const { keys, accepts, json } = await startWithCommands(t)
  const { code, out, err } = await keys('create', '--tier', 'pro', '--name', 'agent-7')
  const [, id, key] = /^Created the key (key_[0-9a-f]{32}) \(pro, agent-7\)\.\n\n {2}(sk_pro_\w{49})\n\nIt is shown this once: what is stored is its hash\.\n$/.exec(out) ?? []
  t.strictSame({ code, err }, { code: 0, err: '' })
  t.ok(await accepts(key!))
  const shown = await json('show', id!)
  t.strictSame(shown, { id, displayPrefix: key!.slice(0, 11), tier: 'pro', name: 'agent-7', metadata: {}, status: 'active', createdAt: shown.createdAt, ...(shown.lastUsedAt && { lastUsedAt: shown.lastUsedAt }) })
})

t.test('--json prints nothing but JSON, with the key', async t => {
  const { json, accepts } = await startWithCommands(t)
  const created = await json('create', '--tier', 'enterprise', '--name', 'a 🤖', '--metadata', '{"team": "payments"}', '--expires-at', '2190-01-01T00:00:00+01:00')
  t.strictSame(created, {
    id: created.id, displayPrefix: created.key.slice(0, 11), tier: 'enterprise', name: 'a 🤖', metadata: { team: 'payments' }, status: 'active', createdAt: created.createdAt, expiresAt: Date.parse('2189-12-31T23:00:00Z'), key: created.key
  })
  for (const [duration, seconds] of [['90d', 90 * 86_400], ['36h', 36 * 3600], ['90m', 5400], ['300s', 300]] as const) {
    const { expiresAt } = await json('create', '--tier', 'free', '--name', 'x', '--expires-in', duration)
    t.ok(Math.abs(expiresAt - Date.now() - seconds * 1000) < 60_000, duration)
  }
  t.equal((await json('update', created.id, '--expires-at', '2190-01-01')).expiresAt, Date.parse('2190-01-01T00:00:00Z'))
  const { keys } = await json('list')
  t.strictSame(keys[0], await json('show', created.id))
  t.match(keys.slice(1), Array<object>(4).fill({ tier: 'free' }))
  t.ok(await accepts(created.key))
})

t.test('keys list prints a table with a line for each key, however many', async t => {
  const { keys, connectionString, service } = await startWithCommands(t)
  t.match(await keys('list'), { code: 0, out: /^ID +KEY +TIER +STATUS +CREATED +EXPIRES +LAST USED +NAME\n$/, err: '' })
  const { id, key } = await createKey(service)
  const { out } = await keys('list')
  const [, line] = out.split('\n')
  t.match(line, new RegExp(`^${id}  ${key.slice(0, 11)}…  pro   active  ${isoTime.source}  -        -          test pro$`))

  await createPool(t, connectionString).query(`
    insert into sipher_sessions.api_keys (id, secret_hash, display_prefix, tier, name)
    select 'key_' || md5(n::text), sha256(n::text::bytea), 'sk_pro_x', 'pro', 'x' from generate_series(1, 2000) n`)
  t.equal((await keys('list')).out.split('\n').length, 1 + 2001 + 1)
})

t.test('keys show and keys update print the record as it is', async t => {
  const { keys, service } = await startWithCommands(t)
  const { id, key } = await createKey(service)
  const { out } = await keys('show', id)
  t.strictSame(out.replace(isoTime, 'TIME').split('\n').map(line => line.split(/ {2,}/)), [
    ['id', id], ['key', `${key.slice(0, 11)}…`], ['tier', 'pro'], ['name', 'test pro'], ['status', 'active'], ['created', 'TIME'], ['expires', '-'],
    ['revoked', '-'], ['last used', '-'], ['old secret until', '-'], ['metadata', '{}'], ['']
  ])
  const updated = await keys('update', id, '--tier', 'free', '--name', 'fallen', '--expires-in', '1h', '--metadata', '{"a":1}')
  t.equal(updated.code, 0)
  t.match(updated.out, /^tier +free\nname +fallen\nstatus +active\n/m)
  t.match(updated.out, /^metadata +\{"a":1\}$/m)
  t.equal((await service.inject({ url: `/v1/sessions/${unknownSessionId}`, headers: { 'x-api-key': key } })).statusCode, 403)
  t.match((await keys('update', id, '--never-expires')).out, /^expires +-$/m)
})

t.test('keys rotate gives a new secret, and the old one its grace period', async t => {
  const { keys, json, accepts, service } = await startWithCommands(t)
  const { id, key: first } = await createKey(service)
  const { out } = await keys('rotate', id, '--grace', '1h')
  const [, until, second] = /^The key \w+ \(pro, test pro\) has a new secret\. The old one works until (\S+)\.\n\n {2}(sk_pro_\w{49})\n\nIt is shown this once/.exec(out) ?? []
  t.ok(Math.abs(Date.parse(until!) - Date.now() - 3_600_000) < 60_000)
  t.strictSame([await accepts(first), await accepts(second!)], [true, true])

  const { key: third, graceEndsAt } = await json('rotate', id)
  t.type(graceEndsAt, 'number')
  t.strictSame([await accepts(first), await accepts(second!), await accepts(third)], [false, false, true])
  t.match((await keys('rotate', id, '--grace', '0s')).out, 'The old one has ended.')
})

t.test('keys revoke ends a key for good', async t => {
  const { keys, json, accepts, service } = await startWithCommands(t)
  const { id, key } = await createKey(service)
  t.strictSame(await keys('revoke', id), { code: 0, out: `Revoked the key ${id}.\n`, err: '' })
  t.notOk(await accepts(key))
  t.strictSame(await json('revoke', id), { id, revoked: true })
  t.strictSame(await keys('rotate', id), { code: 1, out: '', err: 'This API key is revoked, which is for good.\n' })
})

t.test('what fails is one sentence on standard error, and exit code 1', async t => {
  const { keys, connectionString } = await startWithCommands(t)
  for (const args of [['show'], ['update', '--name', 'x'], ['rotate'], ['revoke']]) {
    t.strictSame(await keys(args[0]!, unknownKeyId, ...args.slice(1)), { code: 1, out: '', err: 'There is no API key with this id.\n' })
  }
  t.strictSame(await keys('create', '--tier', 'pro', '--name', 'x', '--expires-at', '2020-01-01'), { code: 1, out: '', err: 'The expiry lies in the past.\n' })
  t.strictSame(await keys('create', '--tier', 'pro', '--name', 'x', '--metadata', '{"a":"\\u0000"}'), { code: 1, out: '', err: 'metadata holds a character that cannot be stored (NUL or half a surrogate pair).\n' })

  const list = (environment: NodeJS.ProcessEnv) => command(environment, 'keys', 'list')
  t.strictSame(await list({ DATABASE_URL: 'mysql://h' }), {
    code: 1, out: '', err: 'DATABASE_URL must be a URL such as postgres://user:password@host:5432/database. The PostgreSQL to use. Without it an embedded one is started.\n'
  })
  t.strictSame(await list({ DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' }), {
    code: 1, out: '', err: 'The database of DATABASE_URL cannot be used: connect ECONNREFUSED 127.0.0.1:1\n'
  })
  t.strictSame(await list({ DATABASE_URL: await createDatabase(t, { empty: true }) }), {
    code: 1, out: '', err: 'The database has no tables of sipher-sessions yet. Run: npx sipher-sessions migrate\n'
  })
  const pool = createPool(t, connectionString)
  await pool.query('alter table sipher_sessions.api_keys rename column last_used_at to hidden')
  t.strictSame(await keys('list'), { code: 1, out: '', err: 'column "last_used_at" does not exist\n' })
  await pool.query('alter table sipher_sessions.api_keys rename to hidden')
  t.strictSame(await keys('list'), { code: 1, out: '', err: 'The database lacks sipher_sessions.api_keys, which its migrations have made. Restore the schema sipher_sessions as a whole.\n' })
  await pool.query('delete from sipher_sessions.migrations where version > 1')
  t.match(await keys('list'), { code: 1, out: '', err: /^The database schema is at version 1 and this release needs \d+\. Run: npx sipher-sessions migrate\n$/ })
})

t.test('a wrong command line is a sentence on standard error, exit code 2, and nothing is done', async t => {
  const id = unknownKeyId
  const create = ['keys', 'create', '--tier', 'pro', '--name', 'x']
  const cases: [args: string[], message: string, helpFor?: string][] = [
    [[], 'A command is missing.', ''],
    [['keys'], 'The command "keys" is not complete.', ''],
    [['nope', '--help'], 'There is no command "nope".', ''],
    [['keys', 'destroy', id], `There is no command "keys destroy ${id}".`, ''],
    [['keys', 'create', '--name', 'x'], '--tier is missing.'],
    [['keys', 'create', '--tier', 'pro'], '--name is missing.'],
    [['keys', 'create', '--tier', 'gold', '--name', 'x'], '--tier is one of free, pro, enterprise.'],
    [['keys', 'create', '--tier', 'pro', '--name', ''], '--name takes 1 to 100 characters, none of them a control character.'],
    [[...create, '--expires-at', 'tomorrow'], '--expires-at takes a time such as 2030-12-31T23:59:59Z, not "tomorrow".'],
    [[...create, '--expires-at', '2030-02-30'], '--expires-at takes a time such as 2030-12-31T23:59:59Z, not "2030-02-30".'],
    [[...create, '--expires-at', '2030-01-01T00:00'], '--expires-at takes a time such as 2030-12-31T23:59:59Z, not "2030-01-01T00:00".'],
    [[...create, '--expires-at', '2030-13-01'], '--expires-at takes a time such as 2030-12-31T23:59:59Z, not "2030-13-01".'],
    [[...create, '--expires-in', '90'], '--expires-in takes a duration such as 90s, 15m, 1h or 90d, not "90".'],
    [[...create, '--expires-in', '999999999d'], 'A key expires between 1970 and the end of the year 9999.'],
    [[...create, '--expires-in', '1d', '--expires-at', '2030-01-01'], '--expires-at and --expires-in cannot be given together.'],
    [[...create, '--metadata', '[1]'], '--metadata takes a JSON object such as \'{"team": "payments"}\'.'],
    [[...create, '--metadata', 'null'], '--metadata takes a JSON object such as \'{"team": "payments"}\'.'],
    [[...create, '--metadata', '{'], '--metadata takes a JSON object such as \'{"team": "payments"}\'.'],
    [[...create, '--quiet'], 'Unknown option \'--quiet\'.'],
    [['keys', 'list', id], `Unexpected argument "${id}".`],
    [['keys', 'show'], 'ID is missing.'],
    [['keys', 'show', 'sk_pro_x'], 'ID is the id of a key, such as key_ and 32 hex digits, not the key itself. keys list shows it.'],
    [['keys', 'update', id], 'Nothing to change was given.'],
    [['keys', 'rotate', id, '--grace', '8d'], '--grace is at most 7d.'],
    [['keys', 'rotate', id, '--grace'], 'Option \'--grace <value>\' argument missing.'],
    [['keys', 'create', '--tier', '--name', 'x'], 'Option \'--tier\' argument is ambiguous.']
  ]
  for (const [args, message, helpFor = ` ${args.slice(0, 2).join(' ')}`] of cases) {
    t.strictSame(await command({}, ...args), { code: 2, out: '', err: `${message} See: sipher-sessions${helpFor} --help\n` }, args.join(' '))
  }
})

t.test('each level has its help', async t => {
  const top = await command({}, '--help')
  t.match(top, { code: 0, out: /^Usage: sipher-sessions COMMAND \[options\]\n\n {2}keys create +Create an API key/, err: '' })
  t.match(top.out, /^ {2}migrate +Bring the schema/m)
  t.match(top.out, /^ {2}rotate-encryption +Encrypt the secret values/m)
  t.notMatch((await command({}, 'keys', '--help')).out, /migrate/)
  for (const name of ['keys create', 'keys list', 'keys show', 'keys update', 'keys rotate', 'keys revoke', 'migrate', 'rotate-encryption']) {
    const { code, out, err } = await command({}, ...name.split(' '), '--help')
    t.strictSame({ code, err }, { code: 0, err: '' })
    t.match(out, new RegExp(`\n\nUsage: sipher-sessions ${name}${name === 'keys create' ? ' --tier TIER --name NAME' : '( ID)?'} \\[options\\]\n\n(  --.+\n)*  --help +Show this help\\.\n$`))
  }
  t.strictSame(await command({}, '--version'), { code: 0, out: `${version}\n`, err: '' })
})

t.test('a command has a limit of its connection, which behind a pooler it does not ask for', async t => {
  const DATABASE_URL = await createDatabase(t)
  const limit = (environment: NodeJS.ProcessEnv) => withDatabase(environment, async pool => (await pool.query('show statement_timeout')).rows)
  t.strictSame(await limit({ DATABASE_URL }), [{ statement_timeout: '30s' }])
  t.strictSame(await limit({ DATABASE_URL, DATABASE_POOLER: 'transaction' }), [{ statement_timeout: '0' }])
})

t.test('migrate brings the database of DATABASE_URL up to date', async t => {
  const DATABASE_URL = await createDatabase(t, { empty: true })
  const first = await command({ DATABASE_URL }, 'migrate')
  t.match(first, { code: 0, out: /^database schema migrated: \{"migration":"0001-api-keys\.sql"\}\n[^]*The database schema is up to date\.\n$/, err: '' })
  t.strictSame(await command({ DATABASE_URL }, 'migrate'), { code: 0, out: 'The database schema is up to date.\n', err: '' })
  t.strictSame(await command({}, 'migrate'), {
    code: 1, out: '', err: 'Set DATABASE_URL to the database to migrate. The embedded one is migrated by npm start.\n'
  })
})

t.test('without DATABASE_URL the embedded PostgreSQL is used while it runs, and stays its owner\'s', async t => {
  const dataDir = mkdtempSync(join(tmpdir(), 'sipher-commands-'))
  chmodSync(dataDir, 0o755)
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }))
  const missing = (DATA_DIR: string) => ({
    code: 1,
    out: '',
    err: `There is no database to talk to: set DATABASE_URL, or start the service (npm start), whose embedded PostgreSQL in ${DATA_DIR} is then used.\n`
  })
  const nowhere = join(dataDir, 'nowhere')
  t.strictSame(await command({ DATA_DIR: nowhere }, 'keys', 'list'), missing(nowhere))
  t.strictSame(await command({ DATA_DIR: dataDir }, 'keys', 'list'), missing(dataDir))

  const postgres = await startEmbeddedPostgres({ dataDir, durable: false })
  t.equal(await findEmbeddedPostgres(dataDir), postgres.connectionString)
  const pool = createPool(t, postgres.connectionString)
  await migrate(pool)
  t.equal((await command({ DATA_DIR: dataDir }, 'keys', 'create', '--tier', 'pro', '--name', 'x')).code, 0)
  t.match(await command({ DATA_DIR: dataDir }, 'keys', 'list'), { code: 0, out: /sk_pro_/ })
  await pool.query('select 1')
  await postgres.stop()
  t.strictSame(await command({ DATA_DIR: dataDir }, 'keys', 'list'), missing(dataDir))
})

t.test('a connection that breaks while a command does not use it does not end the command', async t => {
  const DATABASE_URL = await createDatabase(t)
  const other = createPool(t, DATABASE_URL)
  const pids = await withDatabase({ DATABASE_URL }, async pool => {
    const pid = async () => (await pool.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]!.pid
    const first = await pid()
    const gone = new Promise(resolve => pool.once('remove', resolve))
    await other.query('select pg_terminate_backend($1)', [first])
    await gone
    return [first, await pid()]
  })
  t.not(pids[0], pids[1])
})

t.test('the built program runs by its name, in its own folder too', async t => {
  const { PATH = '', HOME = '' } = process.env
  const coverage = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('_TAPJS_') || name === 'NODE_OPTIONS'))
  const env = { ...coverage, PATH, HOME, DATABASE_URL: await createDatabase(t) }
  const direct = spawnSync(join('dist', 'cli.js'), ['keys', 'create', '--tier', 'pro', '--name', 'x', '--json'], { env, encoding: 'utf8' })
  t.equal(direct.stderr, '')
  t.match(JSON.parse(direct.stdout), { tier: 'pro', key: /^sk_pro_/ })
  const byName = spawnSync('npx', ['--offline', 'sipher-sessions', 'keys', 'list'], { env, encoding: 'utf8' })
  t.match(byName.stdout, /^ID .*\nkey_[0-9a-f]{32} .*\n$/)
  const wrong = spawnSync(join('dist', 'cli.js'), ['nope'], { env, encoding: 'utf8' })
  t.strictSame([wrong.status, wrong.stdout, wrong.stderr], [2, '', 'There is no command "nope". See: sipher-sessions --help\n'])
  const cutShort = spawnSync('sh', ['-c', 'dist/cli.js --help | true'], { env, encoding: 'utf8' })
  t.strictSame([cutShort.stdout, cutShort.stderr], ['', ''], 'a reader that goes away is no trace')
  const unwritten = (command: string) => {
    const { status, stderr } = spawnSync('sh', ['-c', `dist/cli.js ${command}`], { env, encoding: 'utf8' })
    return [status, stderr]
  }
  const full = 'The output could not be written (ENOSPC: no space left on device, write). The command has done what it was to do.'
  const lost = ' The key that it was to show is lost: find it with keys list, and rotate or revoke it.\n'
  t.strictSame(unwritten('keys list > /dev/full'), [1, `${full}\n`])
  t.strictSame(unwritten('keys create --tier pro --name y > /dev/full'), [1, full + lost])
  t.match(unwritten('keys create --tier pro --name y | (exec <&-; sleep 2)')[1], new RegExp(`EPIPE.*${lost.trim()}`), 'who goes without a key that was made is told')
  t.strictSame(unwritten('nope 2> /dev/full'), [2, ''])
})

t.test('the audit log tells the command line from the admin operations', async t => {
  const connectionString = await createDatabase(t)
  t.equal(await run(['keys', 'create', '--tier', 'pro', '--name', 'x'], { environment: { DATABASE_URL: connectionString }, out: () => {}, err: () => {} }), 0)
  t.strictSame((await createPool(t, connectionString).query('select actor, action from sipher_sessions.changes')).rows, [{ actor: 'command line', action: 'key.create' }])
})
