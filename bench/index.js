// npm run bench -- load | size | soak | merge [--short] [--json]
const scenarios = ['load', 'size', 'soak', 'merge']

const [scenario, ...options] = process.argv.slice(2)
if (!scenarios.includes(scenario)) {
  console.error(`Say which: npm run bench -- ${scenarios.join(' | ')} [--short] [--json]`)
  process.exit(1)
}
const { run } = await import(`./${scenario}.js`)
process.exitCode = await run({ short: options.includes('--short'), json: options.includes('--json') })
