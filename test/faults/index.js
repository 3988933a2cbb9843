// Breaks things on purpose, and counts what was lost: npm run test:faults [-- --short] [-- --seed N] [-- NAME ...]
import { parseArgs } from 'node:util'
import * as pgbouncer from './pgbouncer.js'
import { runFault, suite } from './suite.js'

const faults = { ...suite, pgbouncer }

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { short: { type: 'boolean', default: false }, seed: { type: 'string', default: String(Date.now() % 1_000_000) } }
})
const unknown = positionals.find(name => !Object.hasOwn(faults, name))
if (unknown !== undefined) {
  console.error(`There is no fault ${unknown}. There are: ${Object.keys(faults).join(', ')}`)
  process.exit(2)
}

console.log(`${values.short ? 'short form' : 'long form'}, seed ${values.seed}`)
let passed = 0
let failed = 0
for (const [id, fault] of Object.entries(faults)) {
  if (positionals.length > 0 && !positionals.includes(id)) continue
  if (await runFault(id, fault, { short: values.short, seed: Number(values.seed) })) passed++
  else failed++
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
