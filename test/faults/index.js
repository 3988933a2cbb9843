// Breaks things on purpose, and counts what was lost: npm run test:faults [-- --short] [-- --seed N] [-- NAME ...]
import { parseArgs } from 'node:util'
import * as coldStarts from './cold-starts.js'
import * as crashes from './crashes.js'
import * as hostile from './hostile.js'
import * as model from './model.js'
import * as outage from './outage.js'
import * as patches from './patches.js'
import * as pgbouncer from './pgbouncer.js'
import * as races from './races.js'
import * as rollingRestart from './rolling-restart.js'
import * as sweep from './sweep.js'
import * as timings from './timings.js'

const faults = { crashes, patches, races, outage, 'rolling-restart': rollingRestart, 'cold-starts': coldStarts, sweep, timings, model, hostile, pgbouncer }

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
  // A real difference between times is there each time; one by chance is not there three times.
  let attempts = fault.comparesTimes ? 3 : 1
  let result
  do {
    const began = performance.now()
    result = await attempt(fault)
    console.log(`${result.passed ? 'ok' : 'not ok'} - ${id}: ${fault.name}\n  ${result.did} (${Math.round((performance.now() - began) / 1000)} s)`)
  } while (!result.passed && --attempts > 0)
  if (result.passed) passed++
  else failed++
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

async function attempt (fault) {
  try {
    return await fault.run({ short: values.short, seed: Number(values.seed) })
  } catch (error) {
    return { did: String(error.stack), passed: false }
  }
}
