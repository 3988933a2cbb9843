// What the merge adds to a request against the same host without the plugin, session lookup aside.
//
// The handlers of three hosts get the same: `plain` has no plugin, and its clients send every parameter themselves, as they
// must without sessions; `lookup` gets the same requests, waits for who asks and for what the session holds, which are
// known at once, and does nothing with it; `merge` has the plugin, whose lookups are those of `lookup`, and its clients
// leave four parameters to the session. So merge - lookup is what it costs to fill them in rather than to read them:
// the header, the gates, the plan, the values, and telling the client in a header. The ratio is 1 + (merge - lookup) /
// plain. A real lookup costs more than that of `lookup`; nothing here says how much.
//
// `bare` is `plain` with clients that leave the four parameters out and go without: to get four more values to the handler
// costs something whoever brings them, and the last line says how much by the plugin.
//
// Compared is the processor time that the host's process spends on a request, system calls included: it is what limits
// a process on one core, and it suffers less from what else the machine does than times and rates do.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Pool } from 'undici'

const limit = 1.10
const connections = 16
const warmUp = 8_000
const requests = 640
const rounds = 20
const kinds = ['bare', 'plain', 'lookup', 'merge']

export async function run ({ short, json }) {
  const began = performance.now()
  const samples = []
  let generations = 0
  // Processes of the same program differ by how they were compiled while running: some of each.
  do {
    samples.push(...await measureGeneration())
    generations++
  } while (generations < (short ? 2 : 12) && performance.now() - began < 120_000)

  const of = (kind, key) => percentile(samples.map(sample => sample[kind][key]), 0.5)
  // Of each round by itself: what slows the machine down for a while slows all three.
  const ratios = samples.map(({ plain, lookup, merge }) => 1 + (merge.cpu - lookup.cpu) / plain.cpu)
  const ratio = percentile(ratios, 0.5)
  const [lowest, highest] = [0.25, 0.75].map(share => percentile(ratios, share))
  const withoutValues = percentile(samples.map(({ bare, lookup, merge, plain }) => (merge.cpu - (lookup.cpu - plain.cpu)) / bare.cpu), 0.5)
  if (json) {
    console.log(JSON.stringify([{ path: 'merge', ratio, withoutValues, limit, met: ratio < limit, cpu: Object.fromEntries(kinds.map(kind => [kind, of(kind, 'cpu')])) }]))
  } else {
    console.log(`merge: ${generations} × ${rounds} rounds of ${requests} requests to each host, ${connections} connections; medians`)
    for (const [kind, label] of [['bare', 'without the plugin, 4 values missing'], ['plain', 'without the plugin, 4 values sent'], ['lookup', 'the same, and an empty lookup'], ['merge', 'with the plugin, 4 values filled in']]) {
      console.log(`  ${label.padEnd(36)} ${of(kind, 'cpu').toFixed(1)} µs of processor time a request; p50 ${of(kind, 'p50').toFixed(2)} ms, p99 ${of(kind, 'p99').toFixed(2)} ms`)
    }
    console.log(`  lookup aside: ratio ${ratio.toFixed(3)} (half of the rounds from ${lowest.toFixed(3)} to ${highest.toFixed(3)}); it must be under ${limit.toFixed(2)}`)
    console.log(`  lookup aside, against requests that go without the values: ratio ${withoutValues.toFixed(3)}`)
  }
  return ratio < limit ? 0 : 1
}

/** Starts each host once; its answer to the request that it is measured with must be what the measurement is about. */
export async function check () {
  await stop(await Promise.all(kinds.map(start)))
  return 0
}

const own = { amount: 5, recipient: '0x7f2c9a41d05be38816c4', memo: 'rent' }
const left = { chain: 'near', privacyLevel: 'shielded', rpcProvider: 'helius', backend: 'sip-native' }

function requestOf (kind) {
  return {
    method: 'POST',
    path: '/transfer',
    headers: { 'content-type': 'application/json', 'x-api-key': 'sk_pro_of_the_benchmark', 'x-session-id': `sess_${'0'.repeat(64)}` },
    body: JSON.stringify(kind === 'bare' || kind === 'merge' ? own : { ...own, ...left })
  }
}

async function measureGeneration () {
  const hosts = await Promise.all(kinds.map(start))
  try {
    for (const host of hosts) await measure(host, warmUp)
    const samples = []
    for (let round = 0; round < rounds; round++) {
      const sample = {}
      // Each goes first in turn.
      for (let i = 0; i < hosts.length; i++) {
        const host = hosts[(round + i) % hosts.length]
        sample[host.kind] = await measure(host, requests)
      }
      samples.push(sample)
    }
    return samples
  } finally {
    await stop(hosts)
  }
}

async function stop (hosts) {
  for (const { child, pool } of hosts) {
    await pool.close()
    child.disconnect()
  }
}

async function start (kind) {
  const child = fork(new URL('merge-host.js', import.meta.url), [kind])
  const [{ url }] = await once(child, 'message')
  const request = requestOf(kind)
  const response = await fetch(`${url}${request.path}`, request)
  const applied = response.headers.get('x-session-applied')
  if (response.status !== 200 || applied !== (kind === 'merge' ? 'chain, privacyLevel, rpcProvider, backend' : null)) {
    throw new Error(`The host ${kind} answered ${response.status} and applied ${applied}`)
  }
  return { kind, child, request, pool: new Pool(url, { connections }) }
}

async function measure ({ child, pool, request }, requests) {
  const times = []
  const before = await processorTime(child)
  await Promise.all(Array.from({ length: connections }, async () => {
    for (let i = 0; i < requests / connections; i++) {
      const began = performance.now()
      const { statusCode, body } = await pool.request(request)
      await body.dump()
      times.push(performance.now() - began)
      if (statusCode !== 200) throw new Error(`A request was answered ${statusCode}`)
    }
  }))
  const after = await processorTime(child)
  return { cpu: (after - before) / requests, p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
}

async function processorTime (child) {
  child.send('processor time')
  const [{ microseconds }] = await once(child, 'message')
  return microseconds
}

function percentile (values, share) {
  return [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * share)]
}
