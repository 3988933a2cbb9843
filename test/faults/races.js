import { adminKey, createClient, createKey, startInstance, startPostgres, withCleanup } from './harness.js'

export const name = 'delete and revoke racing with use over 3 instances'

/**
 * While three instances use a session it is deleted, or its key revoked, through one of them. What was sent after that
 * was acknowledged must be refused by each.
 */
export function run ({ short, pooler }) {
  return withCleanup(async defer => {
    const rounds = short ? 200 : 10_000
    const postgres = await startPostgres(defer, { pooler })
    const ask = createClient(defer)
    const instances = []
    for (let i = 0; i < 3; i++) instances.push(await startInstance(defer, postgres.connectionString, { ...postgres.variables, TRUST_PROXY: '127.0.0.1' }))
    let { key, id } = await createKey(ask, instances[0].origin)
    let acceptedAfter = 0
    let acceptedBefore = 0
    let failed = 0
    for (let round = 0; round < rounds; round++) {
      const [one, two, three] = [0, 1, 2].map(i => instances[(round + i) % 3].origin)
      // Uses of revoked keys are counted against their address, of which each round has its own.
      const headers = { 'x-forwarded-for': `10.0.${round >> 8}.${round & 255}` }
      const { status: created, body } = await ask(one, 'POST', '/v1/sessions', { key, headers, body: { defaults: { chain: 'near' } } })
      if (created !== 201) throw new Error(`round ${round}: the creation answered ${created} ${JSON.stringify(body)}`)
      const use = origin => ask(origin, 'POST', '/v1/resolve', { key, body: {}, headers: { ...headers, 'x-session-id': body.data.sessionId } })
      const revoke = round % 10 === 9
      const racing = [one, two, three, one, two, three].map(use)
      const { status } = revoke
        ? await ask(two, 'DELETE', `/v1/admin/keys/${id}`, { key: adminKey })
        : await ask(two, 'DELETE', `/v1/sessions/${body.data.sessionId}`, { key, headers })
      if (status !== 200) throw new Error(`round ${round}: the ${revoke ? 'revocation' : 'deletion'} answered ${status}`)
      const after = await Promise.all([one, two, three].map(use))
      const before = await Promise.all(racing)
      acceptedAfter += after.filter(answer => answer.status !== (revoke ? 401 : 404)).length
      acceptedBefore += before.filter(answer => answer.status === 200).length
      failed += before.filter(answer => ![200, revoke ? 401 : 404].includes(answer.status)).length
      if (revoke) ({ key, id } = await createKey(ask, one))
    }
    return { did: `${rounds} rounds; of the uses that raced ${acceptedBefore} came in time and ${failed} were answered otherwise than with use or refusal; ${acceptedAfter} accepted after the 2xx`, passed: acceptedAfter + failed === 0 && acceptedBefore > 0 }
  })
}
