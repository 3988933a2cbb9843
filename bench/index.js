// npm run bench [-- load | size | merge | soak ...] [--short] [--json] [--connections N]
// npm run bench -- --check
import { parseArgs } from 'node:util'

/** In the order in which all of them run. */
const scenarios = ['load', 'size', 'merge', 'soak']

const usage = `Say which, or nothing for all: npm run bench -- [${scenarios.join('|')} ...] [--short] [--json] [--connections N]
Or, to see whether they run, without measuring: npm run bench -- --check`
const { values, positionals } = read()
const unknown = positionals.find(name => !scenarios.includes(name))
if (unknown !== undefined) stop(`There is no benchmark ${unknown}.`)

const connections = Number(values.connections)
if (!Number.isInteger(connections) || connections < 1) stop(`--connections takes a number of at least 1, not ${values.connections}.`)

for (const scenario of scenarios) {
  if (positionals.length > 0 && !positionals.includes(scenario)) continue
  if (!values.json) console.log(`== ${scenario}`)
  // What the others start is of what `load` starts.
  const { run, check = () => 0 } = await import(`./${scenario}.js`)
  const exitCode = await (values.check ? check() : run({ ...values, connections }))
  process.exitCode ||= exitCode
}

function read () {
  try {
    return parseArgs({ allowPositionals: true, options: { short: { type: 'boolean', default: false }, json: { type: 'boolean', default: false }, check: { type: 'boolean', default: false }, connections: { type: 'string', default: '128' } } })
  } catch (error) {
    return stop(error.message)
  }
}

function stop (what) {
  console.error(`${what}\n${usage}`)
  process.exit(2)
}
