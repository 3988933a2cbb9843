// npm run bench -- merge [--short]
const scenarios = ['merge']

const [scenario, ...options] = process.argv.slice(2)
if (!scenarios.includes(scenario)) {
  console.error(`Say which: npm run bench -- ${scenarios.join(' | ')} [--short]`)
  process.exit(1)
}
const { run } = await import(`./${scenario}.js`)
process.exitCode = await run({ short: options.includes('--short') })
