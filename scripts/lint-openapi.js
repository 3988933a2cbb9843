// Writes the service's OpenAPI document and holds it against Redocly's recommended rules: no error, no warning.
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createService } from '../dist/service.js'

const file = '.cache/openapi.json'

// The document needs no database: nothing connects until a request asks for it.
const service = createService({
  connectionString: 'postgres://unused',
  migrate: false,
  encryptionKeys: [Buffer.alloc(32).toString('base64')],
  logLevel: 'silent',
  publicUrl: 'https://sipher.sip-protocol.org'
})
const { body } = await service.inject('/v1/openapi.json')
await service.close()
mkdirSync('.cache', { recursive: true })
writeFileSync(file, JSON.stringify(JSON.parse(body), null, 2))

const { stdout, stderr } = spawnSync('node_modules/.bin/redocly', ['lint', file, '--extends=recommended', '--format=json'], {
  encoding: 'utf8',
  env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' }
})
// Warnings count as well, which the exit code does not tell.
let result
try {
  result = JSON.parse(stdout)
} catch {
  console.error(`redocly lint did not run:\n${stderr}`)
  process.exit(1)
}
for (const { ruleId, severity, message, location } of result.problems) {
  console.error(`${severity} ${ruleId} at ${location.map(({ pointer }) => pointer).join(' ')}: ${message}`)
}
console.log(`redocly lint ${file}: ${result.totals.errors} errors, ${result.totals.warnings} warnings`)
process.exitCode = result.problems.length === 0 ? 0 : 1
