import type { FastifyInstance } from 'fastify'
import { tierNames, type Tier } from './schemas/tier.js'

/** Makes one key for each tier where there is no key yet, and returns them by tier; null where there are keys. */
export async function createDemoKeys ({ apiKeyRepository }: FastifyInstance): Promise<Record<Tier, string> | null> {
  const existing = await apiKeyRepository.list({ limit: 1 })
  if (existing.length > 0) return null
  const keys: Partial<Record<Tier, string>> = {}
  for (const tier of tierNames) {
    const { secret } = await apiKeyRepository.create({ tier, name: `demo ${tier}` })
    keys[tier] = secret
  }
  return keys as Record<Tier, string>
}

/** What a new user reads after a start; with the keys only after the first. */
export function demoMessage (url: string, keys: Record<Tier, string> | null): string {
  const where = `
sipher-sessions is listening on ${url}

  Swagger UI   ${url}/docs
`
  if (!keys) {
    return `${where}
The first start has shown its demo keys. For another one: npx sipher-sessions keys create --tier pro --name NAME

`
  }
  return `${where}  free key     ${keys.free}
  pro key      ${keys.pro}
  ent key      ${keys.enterprise}

These demo keys are shown this once. Create a session with:

curl -sS -X POST ${url}/v1/sessions -H 'X-API-Key: ${keys.pro}' -H 'Content-Type: application/json' -d '{"defaults":{"chain":"near","privacyLevel":"shielded"}}'

`
}
