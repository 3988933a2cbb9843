import fc from 'fast-check'
import { createService } from '../../dist/service.js'
import { adminKey, encryptionKeys, startPostgres, withCleanup } from './harness.js'

export const name = 'random sequences of requests by 3 keys over 2 instances, against a model'

/** What the service promises, without a database, a network or a clock. */
class Model {
  keys = [0, 1, 2].map(() => ({ secret: 0, revoked: false }))
  sessions = []

  /** @returns the answer that step must get: its status and, where there are any, the defaults */
  step ({ kind, key: owner, session: index, values, stale }) {
    const key = this.keys[owner]
    const session = this.sessions.length > 0 ? this.sessions[index % this.sessions.length] : undefined
    if (kind === 'rotate') {
      if (!key.revoked) key.secret++
      return { status: key.revoked ? 409 : 200 }
    }
    if (kind === 'revoke') {
      key.revoked = true
      return { status: 200 }
    }
    if (kind === 'expire') {
      if (session) session.alive = false
      return { status: 200 }
    }
    if (key.revoked || (stale && key.secret > 0)) return { status: 401 }
    if (kind === 'create') {
      this.sessions.push({ owner, alive: true, defaults: { ...values } })
      return { status: 201, defaults: values }
    }
    if (!session?.alive || session.owner !== owner) return { status: 404 }
    if (kind === 'patch') Object.assign(session.defaults, values)
    if (kind === 'delete') {
      session.alive = false
      return { status: 200 }
    }
    return { status: 200, defaults: { ...session.defaults } }
  }
}

const step = fc.record({
  kind: fc.constantFrom('create', 'create', 'get', 'patch', 'delete', 'use', 'use', 'rotate', 'revoke', 'expire'),
  key: fc.nat(2),
  session: fc.nat(4),
  instance: fc.nat(1),
  // Whether the key's first secret is sent, which a rotation has ended.
  stale: fc.boolean(),
  values: fc.record({ chain: fc.constantFrom('near', 'sui'), privacyLevel: fc.constantFrom('standard', 'maximum'), defaultViewingKey: fc.constantFrom('0xab', '0xcd') }, { requiredKeys: [] })
})

export function run ({ short, seed, pooler }) {
  return withCleanup(async defer => {
    const numRuns = short ? 300 : 10_000
    const postgres = await startPostgres(defer, { pooler })
    const instances = []
    for (let i = 0; i < 2; i++) {
      const instance = createService({ connectionString: postgres.connectionString, ...postgres.options, logLevel: 'silent', rateLimit: false, adminKey, encryptionKeys })
      defer(() => instance.close())
      await instance.ready()
      instances.push(instance)
    }
    let steps = 0
    const report = await fc.check(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 20 }), async sequence => {
      const real = await Real.create(instances)
      const model = new Model()
      for (const [i, chosen] of sequence.entries()) {
        steps++
        const expected = model.step(chosen)
        const answered = await real.step(chosen)
        if (JSON.stringify(sorted(answered)) !== JSON.stringify(sorted(expected))) {
          throw new Error(`step ${i} (${chosen.kind}): expected ${JSON.stringify(expected)}, answered ${JSON.stringify(answered)}`)
        }
      }
    }), { numRuns, seed })
    if (report.failed) return { did: fc.defaultReportMessage(report), passed: false }
    return { did: `${numRuns} sequences of ${steps} steps, seed ${seed}: 0 differences`, passed: true }
  })
}

function sorted ({ status, defaults }) {
  return { status, defaults: defaults && Object.entries(defaults).sort(([a], [b]) => a < b ? -1 : 1) }
}

/** The same steps through the API. */
class Real {
  sessions = []

  constructor (instances, keys) {
    this.instances = instances
    this.keys = keys
  }

  static async create (instances) {
    const keys = await Promise.all([0, 1, 2].map(async () => {
      const { secret, record } = await instances[0].apiKeyRepository.create({ tier: 'pro', name: 'model' })
      return { id: record.id, secrets: [secret] }
    }))
    return new Real(instances, keys)
  }

  async step ({ kind, key: owner, session: index, instance: number, values, stale }) {
    const instance = this.instances[number]
    const key = this.keys[owner]
    const id = this.sessions.length > 0 ? this.sessions[index % this.sessions.length] : `sess_${'0'.repeat(64)}`
    const headers = { 'x-api-key': stale ? key.secrets[0] : key.secrets.at(-1) }
    const url = `/v1/sessions/${id}`
    const admin = { 'x-api-key': adminKey }
    switch (kind) {
      case 'rotate': {
        const { status, data } = await ask(instance, { method: 'POST', url: `/v1/admin/keys/${key.id}/rotate`, headers: admin, payload: { graceSeconds: 0 } })
        if (status === 200) key.secrets.push(data.key)
        return { status }
      }
      case 'revoke': return statusOf(await ask(instance, { method: 'DELETE', url: `/v1/admin/keys/${key.id}`, headers: admin }))
      case 'expire':
        await instance.sessionDatabase.query('update sipher_sessions.sessions set expires_at = now() where id = $1', [Buffer.from(id.slice(5), 'hex')])
        return { status: 200 }
      case 'create': {
        const { status, data } = await ask(instance, { method: 'POST', url: '/v1/sessions', headers, payload: { defaults: values } })
        if (status === 201) this.sessions.push(data.sessionId)
        return { status, defaults: data?.defaults }
      }
      case 'get': return withDefaults(await ask(instance, { url, headers }))
      case 'patch': return withDefaults(await ask(instance, { method: 'PATCH', url, headers, payload: { defaults: values } }))
      case 'delete': return statusOf(await ask(instance, { method: 'DELETE', url, headers }))
      default: {
        const { status, data } = await ask(instance, { method: 'POST', url: '/v1/resolve?properties=chain,privacyLevel,defaultViewingKey', headers: { ...headers, 'x-session-id': id }, payload: {} })
        return { status, defaults: data?.body }
      }
    }
  }
}

async function ask (instance, request) {
  const response = await instance.inject(request)
  return { status: response.statusCode, data: response.json().data }
}

function statusOf ({ status }) {
  return { status }
}

function withDefaults ({ status, data }) {
  return { status, defaults: data?.defaults }
}
