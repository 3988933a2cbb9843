import t from 'tap'
import { placementsOf } from '../../src/defaults/fill-defaults.js'
import { spliceDefaults } from '../../src/gateway/splice-json.js'

const values = { chain: 'near', privacyLevel: 'shielded', 1: true }
const splice = (text: string, placements = placementsOf(['chain', 'privacyLevel'])) => {
  const { text: result, filled } = spliceDefaults(text, values, placements)
  JSON.parse(result)
  return [result, filled.map(({ at }) => at).join()]
}

t.test('defaults go before what the text has, of which each character stays', async t => {
  const cases: [sent: string, result: string, filled: string][] = [
    ['{}', '{"chain":"near","privacyLevel":"shielded"}', 'chain,privacyLevel'],
    [' { \n } ', ' {"chain":"near","privacyLevel":"shielded" \n } ', 'chain,privacyLevel'],
    ['{"n": 12345678901234567890, "e":1.0E+2}', '{"chain":"near","privacyLevel":"shielded","n": 12345678901234567890, "e":1.0E+2}', 'chain,privacyLevel'],
    ['{"a":1,"a":2,"__proto__":{"chain":"sui"},"chain":"x"}', '{"privacyLevel":"shielded","a":1,"a":2,"__proto__":{"chain":"sui"},"chain":"x"}', 'privacyLevel'],
    ['{"a":"}\\"{\\\\","b":[[{"chain":1}],"]"],"c":{"d":{}} , "e" : null}', '{"chain":"near","privacyLevel":"shielded","a":"}\\"{\\\\","b":[[{"chain":1}],"]"],"c":{"d":{}} , "e" : null}', 'chain,privacyLevel'],
    ['{"\\u0063hain":null,"privacyLevel":false}', '{"\\u0063hain":null,"privacyLevel":false}', ''],
    ['[{}]', '[{}]', ''],
    ['"text"', '"text"', ''],
    ['-1.5e3', '-1.5e3', ''],
    ['null', 'null', ''],
    ['{\r\n\t"a":\t1\r\n}', '{"chain":"near","privacyLevel":"shielded",\r\n\t"a":\t1\r\n}', 'chain,privacyLevel']
  ]
  for (const [sent, result, filled] of cases) t.strictSame(splice(sent), [result, filled], sent)
})

t.test('nested places and the items of arrays are filled in, and objects on the way made', async t => {
  const placements = placementsOf(['chain', 'privacyLevel', '1'], { chain: ['network', 'list[].network', '[].network'], privacyLevel: 'options.deep.level', 1: 'options.1' })
  t.strictSame(splice('{"list":[{},{"network":0}, 5 ],"options":{"2":[]}}', placements),
    ['{"network":"near","list":[{"network":"near"},{"network":0}, 5 ],"options":{"1":true,"deep":{"level":"shielded"},"2":[]}}', 'network,list[].network,options.deep.level,options.1'])
  t.strictSame(splice('[ {}, [] ,{"a":1} ]', placements), ['[ {"network":"near"}, [] ,{"network":"near","a":1} ]', '[].network'])
  t.strictSame(splice('{"options":"none","list":[ ]}', placements), ['{"network":"near","options":"none","list":[ ]}', 'network'])
})

t.test('what lies deeper than any place may be nested however deep', async t => {
  const deep = '['.repeat(200_000) + ']'.repeat(200_000)
  t.equal(spliceDefaults(`{"deep":${deep}}`, values, placementsOf(['chain'])).text, `{"chain":"near","deep":${deep}}`)
})
