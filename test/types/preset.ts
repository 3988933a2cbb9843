// What a host that keeps the preset sees. Compiled by types.test.ts, never run.
import Fastify from 'fastify'
import sipherSessions from 'sipher-sessions'

const host = Fastify()
await host.register(sipherSessions, { connectionString: 'postgres://localhost/host' })
host.get('/typed', async request => {
  const level: 'standard' | 'shielded' | 'maximum' | undefined = request.sessionDefaults?.privacyLevel
  // @ts-expect-error -- a chain that the preset does not have
  const chain: 'dogecoin' | undefined = request.sessionDefaults?.chain
  // @ts-expect-error -- nothing of another host's
  void request.sessionDefaults?.region
  // @ts-expect-error -- there may be no session
  void request.sessionDefaults.chain
  return { level, chain }
})
