import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { generateApiKey } from '../src/api-key.js'
import { timePrefixedId } from '../src/ids.js'
import { tierNames } from '../src/schemas/tier.js'

const rules = readFileSync('docs/gitleaks.toml', 'utf8')
// RE2's syntax, in the part that the rule uses, is JavaScript's.
const regex = new RegExp(/^regex = '''(.+)'''$/m.exec(rules)![1]!)
const keywords = JSON.parse(/^keywords = (\[.+\])$/m.exec(rules)![1]!) as string[]

/** As gitleaks does: the regular expression is tried only where a keyword is, whatever its case. */
function find (text: string): string | undefined {
  const lower = text.toLowerCase()
  return keywords.some(keyword => lower.includes(keyword)) ? regex.exec(text)?.[0] : undefined
}

const surroundings: ((key: string) => string)[] = [
  key => key,
  key => `SIPHER_API_KEY=${key}`,
  key => `API_KEY='${key}' node agent.js\n`,
  key => `const key = "${key}"; // TODO`,
  key => JSON.stringify({ headers: { 'x-api-key': key } }),
  key => JSON.stringify(`line\n${key}\nline`),
  key => `curl -H 'X-API-Key: ${key}' https://api.example.com`,
  key => `Authorization: Bearer ${key}\r\nHost: x`,
  key => `https://api.example.com/?key=${key}&chain=near`,
  key => `redirect=%3Fkey%3D${key}%26x`,
  key => `https://${key}@api.example.com/`,
  key => `key: ${key} # comment`,
  key => `<key>${key}</key>`,
  key => `(${key})_${key}_`
]

t.test('the gitleaks rule finds 10,000 of 10,000 keys, in whatever text they are', async t => {
  const missed: string[] = []
  for (let i = 0; i < 10_000; i++) {
    const key = generateApiKey(tierNames[i % 3]!)
    const text = surroundings[i % surroundings.length]!(key)
    if (find(text) !== key) missed.push(text)
  }
  t.strictSame(missed, [])
})

t.test('it finds nothing in 10,000 ids and hashes', async t => {
  const found: string[] = []
  for (let i = 0; i < 10_000; i++) {
    const hash = createHash('sha256').update(randomBytes(16)).digest()
    const texts = [
      `sess_${timePrefixedId(32).toString('hex')}`, `key_${timePrefixedId(16).toString('hex')}`,
      hash.toString('hex'), hash.toString('base64'), hash.toString('base64url'), `sk_pro_${hash.toString('hex').slice(0, 4)}…`
    ]
    const text = texts.join(' ')
    if (find(text) !== undefined || regex.test(text)) found.push(text)
  }
  t.strictSame(found, [])
})
