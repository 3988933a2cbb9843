import { Type } from '@sinclair/typebox'
import t from 'tap'
import { secret } from '../../src/index.js'
import { createSessionSchemas, presetDefaults } from '../../src/schemas/session.js'
import { secretNames } from '../../src/schemas/secret.js'

const { String, Object: Obj, Optional, Array: Arr } = Type

t.test('the preset\'s viewing key is secret', async t => {
  t.strictSame(secretNames(presetDefaults), ['defaultViewingKey'])
})

t.test('the mark survives what TypeBox and the API make of a schema', async t => {
  const token = secret(String())
  const schemas = {
    plain: Obj({ token }),
    optional: Obj({ token: Optional(token) }),
    readonly: Obj({ token: Type.Readonly(Optional(token)) }),
    required: Type.Required(Obj({ token: Optional(token) })),
    partial: Type.Partial(Obj({ token })),
    picked: Type.Pick(Obj({ token, other: String() }), ['token']),
    omitted: Type.Omit(Obj({ token, other: String() }), ['other']),
    composed: Type.Composite([Obj({ token }), Obj({ other: String() })]),
    overlapping: Type.Composite([Obj({ token }), Obj({ token: String() })]),
    marked: secret(Obj({ token: String() })),
    copied: { ...Obj({ token: { ...token, description: 'a copy' } }) },
    component: createSessionSchemas(Obj({ token })).SessionDefaults
  }
  for (const [name, schema] of Object.entries(schemas)) t.strictSame(secretNames(schema), ['token'], name)
})

t.test('a property is secret when something in it is', async t => {
  const token = secret(String())
  const Tree = Type.Recursive(This => Obj({ token, children: Arr(This) }))
  const schema = Obj({
    object: Obj({ deep: Optional(Obj({ token })) }),
    list: Arr(Obj({ token })),
    union: Type.Union([Type.Null(), token]),
    both: Type.Intersect([Obj({ token }), Obj({ other: String() })]),
    record: Type.Record(String(), token),
    rest: Obj({}, { additionalProperties: token }),
    tree: Tree,
    plain: Obj({ list: Arr(String()), token: String() }),
    text: String({ default: 'x', examples: [null] })
  })
  t.strictSame(secretNames(schema), ['object', 'list', 'union', 'both', 'record', 'rest', 'tree'])
  t.strictSame(secretNames(secret(Obj({ a: String(), b: String() }))), ['a', 'b'], 'and all are when the whole is marked')
})
