import { Type } from '@sinclair/typebox'
import { createService } from '../../dist/service.js'
import { startPostgres, withCleanup } from './harness.js'

export const name = '64 parallel patches of different keys over 2 instances'

/** Each patch sets a parameter of its own; afterwards the session must hold all 64. */
export function run ({ short, pooler }) {
  return withCleanup(async defer => {
    const rounds = short ? 20 : 1000
    const postgres = await startPostgres(defer, { pooler })
    const names = Array.from({ length: 64 }, (_, i) => `parameter${i}`)
    const defaults = Type.Object(Object.fromEntries(names.map(name => [name, Type.Optional(Type.Integer())])))
    const instances = []
    for (let i = 0; i < 2; i++) {
      const instance = createService({ connectionString: postgres.connectionString, ...postgres.options, logLevel: 'silent', rateLimit: false, defaults })
      defer(() => instance.close())
      await instance.ready()
      instances.push(instance)
    }
    const { secret: key } = await instances[0].apiKeyRepository.create({ tier: 'pro', name: 'faults' })
    const headers = { 'x-api-key': key }
    const created = await instances[0].inject({ method: 'POST', url: '/v1/sessions', headers, payload: { defaults: {}, ttlSeconds: 86_400 } })
    const url = `/v1/sessions/${created.json().data.sessionId}`
    let lost = 0
    for (let round = 1; round <= rounds; round++) {
      const answers = await Promise.all(names.map((name, i) =>
        instances[i % 2].inject({ method: 'PATCH', url, headers, payload: { defaults: { [name]: round } } })))
      const refused = answers.filter(({ statusCode }) => statusCode !== 200).length
      if (refused > 0) throw new Error(`${refused} patches of round ${round} were refused: ${answers.find(({ statusCode }) => statusCode !== 200).body}`)
      const { data } = (await instances[round % 2].inject({ url, headers })).json()
      lost += names.filter(name => data.defaults[name] !== round).length
    }
    return { did: `${rounds} rounds of 64 patches: ${lost} lost`, passed: lost === 0 }
  })
}
