// The service as a process that sweeps at another pace than once a minute: sooner, so that a test need not wait, or never.
import { createService } from '../../dist/service.js'
import { adminKey, encryptionKeys } from './harness.js'

const { DATABASE_URL, DATABASE_POOLER, SWEEP_INTERVAL_MS } = process.env
const service = createService({
  connectionString: DATABASE_URL,
  pooler: DATABASE_POOLER,
  sweepIntervalMs: Number(SWEEP_INTERVAL_MS),
  adminKey,
  encryptionKeys,
  tierLimits: { pro: { requestsPerHour: 2_000_000_000, maxSessions: 2_000_000_000 } }
})
await service.listen({ host: '127.0.0.1', port: 0 })
