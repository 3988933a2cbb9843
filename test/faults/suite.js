// The faults, in the order in which they run, and how one of them runs.
import { setTimeout as sleep } from 'node:timers/promises'
import { isEnding } from '../../scripts/before-exit.js'
import * as coldStarts from './cold-starts.js'
import * as crashes from './crashes.js'
import * as hostile from './hostile.js'
import * as model from './model.js'
import * as outage from './outage.js'
import * as patches from './patches.js'
import * as races from './races.js'
import * as rollingRestart from './rolling-restart.js'
import * as sweep from './sweep.js'
import * as timings from './timings.js'

export const suite = { crashes, patches, races, outage, 'rolling-restart': rollingRestart, 'cold-starts': coldStarts, sweep, timings, model, hostile }

/**
 * Runs a fault and prints what it did and found.
 *
 * @param options `short`, `seed`, and `pooler`: whether through PgBouncer
 * @returns whether what must hold did
 */
export async function runFault (id, fault, options) {
  for (let attempts = 3; attempts > 0; attempts--) {
    const began = performance.now()
    const { did, passed, disturbed } = await attempt(fault, options)
    if (!passed) {
      // Ctrl-C in a terminal ends its processes as well, which is seen before the signal is.
      await sleep(50)
      if (isEnding()) return new Promise(() => {})
    }
    console.log(`${passed ? 'ok' : 'not ok'} - ${id}: ${fault.name}\n  ${did} (${Math.round((performance.now() - began) / 1000)} s)`)
    if (passed) return true
    // A real difference between times is there each time, and so is what a machine that stood still did not cause; one by
    // chance is not there three times.
    if (!fault.comparesTimes && !disturbed) return false
  }
  return false
}

async function attempt (fault, options) {
  try {
    return await fault.run(options)
  } catch (error) {
    return { did: String(error.stack), passed: false }
  }
}
