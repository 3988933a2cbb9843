import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { stringify } from 'yaml'
import { secret } from '../../src/schemas/secret.js'
import { createService, type ServiceOptions } from '../../src/service.js'
import { createDatabase, createSession, encryptionKeys, failure, sendInTwo, startService } from '../helpers.js'
import { exchange, startGateway, startUpstream, writeDocument } from './helpers.js'

const json = { 'content-type': 'application/json' }

/** A way to send requests that name the session, and to see what the upstream got of each. */
async function start (t: Test, upstream: { openapi?: string, base?: string } = {}, options: Partial<ServiceOptions> = {}) {
  const { url, received } = await startUpstream(t)
  const gateway = await startGateway(t, { url: url + (upstream.base ?? ''), ...(upstream.openapi && { openapi: upstream.openapi }) }, options)
  const send = async (method: string, path: string, body?: string, headers: Record<string, string> = json) => {
    const response = await exchange(gateway.port, { method, path, headers: { ...gateway.withSession, ...headers }, ...(body !== undefined && { body }) })
    const { url, body: got, headers: { 'content-type': type } } = received.at(-1)!
    return { applied: response.headers['x-session-applied'], url, body: got, type }
  }
  return { ...gateway, send, received }
}

t.test('without a document JSON object bodies get all defaults but the secret ones', async t => {
  const { send } = await start(t)
  const type = 'application/json'
  const applied = 'chain, privacyLevel'
  const all = '"chain":"near","privacyLevel":"shielded"'
  t.strictSame(await send('POST', '/x?a=1', '{"amount":5}'), { applied, url: '/x?a=1', body: `{${all},"amount":5}`, type })
  t.strictSame(await send('DELETE', '/x', '{"amount":5}'), { applied, url: '/x', body: `{${all},"amount":5}`, type })
  t.strictSame(await send('PROPPATCH', '/x', '{"amount":5}', { 'content-type': 'Application/Vnd.Own+JSON; charset=utf-8' }), { applied, url: '/x', body: `{${all},"amount":5}`, type: 'Application/Vnd.Own+JSON; charset=utf-8' })
  for (const type of ['text/json', 'model/gltf+json;a=1', 'application/json ; charset=utf-8']) t.strictSame(await send('POST', '/x', '{"amount":5}', { 'content-type': type }), { applied, url: '/x', body: `{${all},"amount":5}`, type })
  for (const method of ['POST', 'PUT', 'PATCH']) {
    for (const headers of [{}, json, { ...json, 'transfer-encoding': 'chunked' }, { 'transfer-encoding': 'chunked' }, { 'content-length': '0', 'content-type': 'text/plain' }] as Record<string, string>[]) {
      t.strictSame(await send(method, '/x', undefined, headers), { applied, url: '/x', body: `{${all}}`, type }, 'a body-less request gets an object')
    }
  }
  t.equal((await send('POST', '/x?to=a?b&c', '{}')).url, '/x?to=a?b&c')
  t.strictSame(await send('POST', '/x', '{"chain":"sui","privacyLevel":null}'), { applied: undefined, url: '/x', body: '{"chain":"sui","privacyLevel":null}', type }, 'what was sent wins')
  for (const method of ['GET', 'DELETE']) t.strictSame(await send(method, '/x', undefined, {}), { applied: undefined, url: '/x', body: '', type: undefined })
  t.strictSame(await send('DELETE', '/x', '', { ...json, 'transfer-encoding': 'chunked' }), { applied: undefined, url: '/x', body: '', type })
  t.strictSame(await send('GET', '/x', '{}', { ...json, 'content-length': '2' }), { applied: undefined, url: '/x', body: '{}', type })
  for (const [body, type] of [['[{}]', 'application/json'], ['"x"', 'application/json'], ['{}', 'text/plain'], ['{}', 'application/json-seq'], ['a=1', 'application/x-www-form-urlencoded'], ['--b--', 'multipart/form-data; boundary=b']] as const) {
    t.strictSame(await send('POST', '/x', body, { 'content-type': type }), { applied: undefined, url: '/x', body, type }, `${body} as ${type} is left alone`)
  }
})

t.test('what was sent keeps its value: numbers beyond 2^53, duplicate keys, __proto__, spaces', async t => {
  const { send } = await start(t)
  const sent = '{ "n":12345678901234567890, "f":1.10, "a":1, "a":2, "__proto__":{"x":1}, "chain" : "\\u0073ui" }'
  t.equal((await send('POST', '/x', sent)).body, sent.replace('{', '{"privacyLevel":"shielded",'))
  t.equal((await send('POST', '/x', '{"ä":"𝄞"}')).body, '{"chain":"near","privacyLevel":"shielded","ä":"𝄞"}')
})

const text = { type: 'string' }
const takes = (...names: string[]) => ({ type: 'object', properties: Object.fromEntries(names.map(name => [name, text])) })
const bodyOf = (schema: object, mediaType = 'application/json') => ({ requestBody: { content: { [mediaType]: { schema } } } })

t.test('the upstream\'s document says which operation takes which, in body and query string', async t => {
  const document = {
    paths: {
      '/transfers': { post: bodyOf({ $ref: '#/components/schemas/Transfer' }), get: { parameters: [{ $ref: '#/components/parameters/chain' }, { in: 'header', name: 'privacyLevel' }] } },
      '/transfers/{id}': { parameters: [{ in: 'query', name: 'privacyLevel', schema: text }], $comment: 'x', get: {}, patch: { $ref: '#/components/x-operations/patch' } },
      '/transfers/special': { get: { parameters: [{ in: 'query', name: 'chain', schema: text }] } },
      '/jobs/{id}:cancel': { post: { requestBody: { $ref: '#/components/requestBodies/Cancel' } } },
      '/files/{a-b}.{ext}/*/x': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/a:b%20c/100%': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/form': { post: bodyOf(takes('chain'), 'application/x-www-form-urlencoded') },
      '/any': { post: bodyOf(takes('chain'), '*/*') },
      '/range': { post: bodyOf(takes('chain'), 'application/*') },
      '/of/{chain}': { get: { parameters: [{ in: 'path', name: 'chain', schema: text }, { in: 'cookie', name: 'privacyLevel', schema: text }, { in: 'path', name: 'o', schema: takes('rpcProvider', 'chain') }] } },
      '/two/parts': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/text': { post: { requestBody: { content: { 'Text/JSON': { schema: takes('chain') }, 'text/*; charset=utf-8': {}, 'application/octet-stream': {} } } } },
      '/none': { post: {} },
      '/untold': { post: { requestBody: { description: 'x' } } },
      '/delete': { delete: bodyOf(takes('chain')), get: bodyOf(takes('chain')) },
      '/{a}-{b}--{c}{d}$x': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/jobs/{id}': { post: bodyOf(takes('chain')) },
      '/jobs/{id}:pause': { post: {} },
      '/jobs/{id}.json': { post: bodyOf(takes('chain', 'privacyLevel')) },
      '/top/{slug}': { get: {} },
      '/top/quote': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/top/a/b': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/part/{a}v{b}': { post: bodyOf(takes('chain')) },
      '/compare/{base}...{head}': { post: bodyOf(takes('chain')) },
      '/compare/{basehead}': { post: {} },
      '/slash': { post: bodyOf(takes('chain')) },
      '/slash/': { post: bodyOf(takes('privacyLevel')) },
      ...Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`/many/{id}:verb${i}`, { post: i === 39 ? bodyOf(takes('chain')) : {} }])),
      '/same/{x}': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/same/{y}': { get: {} },
      '/item': { $ref: '#/components/pathItems/Item' },
      '/broken': null,
      '/loop': { $ref: '#/paths/~1loop' }
    },
    components: {
      schemas: { Transfer: { allOf: [{ $ref: '#/components/schemas/Base' }, takes('defaultViewingKey')] }, Base: takes('chain') },
      parameters: { chain: { in: 'query', name: 'chain', schema: text } },
      requestBodies: { Cancel: bodyOf(takes('privacyLevel')).requestBody },
      pathItems: { Item: { post: bodyOf(takes('chain')) } },
      'x-operations': { patch: bodyOf(takes('chain')) }
    }
  }
  for (const openapi of [writeDocument(t, document), writeDocument(t, {}, stringify({ openapi: '3.0.3', ...document }))]) {
    const { send, port, withSession, received } = await start(t, { openapi })
    const outcome = async (...request: Parameters<typeof send>) => {
      const { url, body, applied } = await send(...request)
      return [url, body, applied]
    }
    t.strictSame(await outcome('POST', '/transfers', '{}'), ['/transfers', '{"chain":"near","defaultViewingKey":"0xabc"}', 'chain, defaultViewingKey'], 'a secret one where the document has it')
    t.strictSame(await outcome('POST', '/transfers'), ['/transfers', '{"chain":"near","defaultViewingKey":"0xabc"}', 'chain, defaultViewingKey'])
    t.strictSame(await outcome('GET', '/transfers'), ['/transfers?chain=near', '', 'chain'])
    t.strictSame(await outcome('GET', '/transfers?x=%20&y'), ['/transfers?x=%20&y&chain=near', '', 'chain'])
    for (const query of ['chain=', 'chain', 'x=1&chain=sui', 'ch%61in=sui', 'chain[]=a&chain=b']) t.strictSame(await outcome('GET', `/transfers?${query}`), [`/transfers?${query}`, '', undefined], 'what was sent wins')
    t.strictSame(await outcome('GET', '/transfers?chained=1&xchain=1'), ['/transfers?chained=1&xchain=1&chain=near', '', 'chain'])
    for (const path of ['/transfers/7%2F8', '/transfers/7%0A8', '/transfers/%0d%E2%80%A8']) t.strictSame(await outcome('GET', path), [`${path}?privacyLevel=shielded`, '', 'privacyLevel'], 'parameters of the path item')
    t.strictSame(await outcome('PATCH', '/transfers/7', '{"a":1}'), ['/transfers/7?privacyLevel=shielded', '{"chain":"near","a":1}', 'chain, privacyLevel'], 'body and query string')
    t.strictSame(await outcome('GET', '/transfers/special'), ['/transfers/special?chain=near', '', 'chain'], 'the literal path before the template')
    t.strictSame(await outcome('POST', '/jobs/1:cancel', '{}'), ['/jobs/1:cancel', '{"privacyLevel":"shielded"}', 'privacyLevel'])
    t.strictSame(await outcome('POST', '/jobs/1', '{}'), ['/jobs/1', '{"chain":"near"}', 'chain'], 'the template of which the most is literal')
    t.strictSame(await outcome('POST', '/jobs/1:pause', '{}'), ['/jobs/1:pause', '{}', undefined])
    t.strictSame(await outcome('POST', '/jobs/1.json', '{}'), ['/jobs/1.json', '{"chain":"near","privacyLevel":"shielded"}', 'chain, privacyLevel'])
    t.strictSame(await outcome('POST', '/compare/a...b', '{}'), ['/compare/a...b', '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('POST', '/compare/a', '{}'), ['/compare/a', '{}', undefined])
    t.strictSame(await outcome('POST', '/slash', '{}'), ['/slash', '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('POST', '/slash/', '{}'), ['/slash/', '{"privacyLevel":"shielded"}', 'privacyLevel'])
    t.strictSame(await outcome('POST', '/many/1:verb39', '{}'), ['/many/1:verb39', '{"chain":"near"}', 'chain'])
    for (const path of ['/MANY/1:VERB39/', '/PART/1V2', '/part%2F1v2', '/Part%2f1v2;a']) t.strictSame(await outcome('POST', path, '{}'), [path, '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('GET', '/top/other'), ['/top/other', '', undefined])
    t.strictSame(await outcome('GET', '/files/a.b/*/x'), ['/files/a.b/*/x?chain=near', '', 'chain'])
    t.strictSame(await outcome('GET', '/a:b%20c/100%25'), ['/a:b%20c/100%25?chain=near', '', 'chain'])
    t.strictSame(await outcome('GET', '/1-2--34$x'), ['/1-2--34$x?chain=near', '', 'chain'])
    t.strictSame(await outcome('GET', '/1-2--34'), ['/1-2--34', '', undefined])
    t.strictSame(await outcome('GET', '/same/1'), ['/same/1?chain=near', '', 'chain'])
    t.strictSame(await outcome('POST', '/any', '{}'), ['/any', '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('POST', '/range', '{}'), ['/range', '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('GET', '/of/sui'), ['/of/sui', '', undefined], 'parameters elsewhere than in the query string')
    t.strictSame(await outcome('POST', '/text', '{}', { 'content-type': 'text/json; charset=utf-8' }), ['/text', '{"chain":"near"}', 'chain'])
    for (const [path, type] of [['/text', 'text/plain'], ['/text', 'Application/Octet-Stream; a=1'], ['/any', 'image/png']] as const) t.strictSame(await outcome('POST', path, '{}', { 'content-type': type }), [path, '{}', undefined], 'not JSON, and documented')
    for (const path of ['/none', '/untold']) t.strictSame(await outcome('POST', path, '{}'), [path, '{}', undefined], 'described as taking nothing')
    t.strictSame(await outcome('DELETE', '/delete'), ['/delete', '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('GET', '/delete'), ['/delete', '', undefined])
    t.strictSame(await outcome('POST', '/item', '{}'), ['/item', '{"chain":"near"}', 'chain'])
    t.strictSame(await outcome('POST', '/unknown', '{}'), ['/unknown', '{"chain":"near","privacyLevel":"shielded"}', 'chain, privacyLevel'], 'what is not described takes all but the secret ones')
    for (const path of ['/Transfers', '/transfers//']) t.strictSame(await outcome('GET', path), [`${path}?chain=near`, '', 'chain'], 'spelt otherwise, as many frameworks take it')
    for (const path of ['/transfers;a=1', '/Transfers;a=1;b', '/two;a=1/parts;b=2;c', '/transfers/7;a=1']) {
      const refused = await exchange(port, { path, headers: withSession })
      const reason = 'has a semicolon in its path, at which the query string begins for some servers; write %3B, or send no X-Session-Id'
      t.strictSame({ status: refused.status, body: refused.json() }, failure(400, 'VALIDATION_ERROR', `The request is not valid: url ${reason}`, [{ field: 'url', reason }]), path)
    }
    t.strictSame(await outcome('POST', '/Transfers;a=1', '{}'), ['/Transfers;a=1', '{"chain":"near","defaultViewingKey":"0xabc"}', 'chain, defaultViewingKey'], 'with parameters of a segment, as servers of Java take it')
    for (const path of ['/transfers/special;a=1', '/transfers/SPECIAL', '/transfers/', '/top/Quote', '/top/a%2Fb', '/top/a%2fb;c', '/jobs/1:CANCEL']) {
      const ambiguous = await exchange(port, { method: path.startsWith('/jobs') ? 'POST' : 'GET', path, headers: withSession })
      const reason = 'could be for two operations that take different defaults, for servers differ over capital letters, %2F, semicolons, empty segments and templates that overlap; write it as the document does, with %3B for a semicolon, or send no X-Session-Id'
      t.strictSame([ambiguous.status, ambiguous.json().error], [400, { code: 'VALIDATION_ERROR', message: `The request is not valid: url ${reason}`, details: [{ field: 'url', reason }] }], path)
    }
    t.equal((await exchange(port, { method: 'HEAD', path: '/transfers', headers: withSession })).headers['x-session-applied'], 'chain')
    t.equal(received.at(-1)!.url, '/transfers?chain=near')
  }
})

t.test('a parameter that not all servers take for the one that would be filled in is refused', async t => {
  const openapi = writeDocument(t, {
    paths: {
      '/x': { get: { parameters: [{ in: 'query', name: 'chain' }] } },
      '/options': { get: { parameters: [{ in: 'query', name: 'options', style: 'deepObject', schema: takes('privacy') }] } }
    }
  })
  const { url, received } = await startUpstream(t)
  const { port, withSession } = await startGateway(t, { url, openapi }, { mapping: { privacyLevel: 'options.privacy' } })
  const get = (path: string) => exchange(port, { path, headers: withSession })
  for (const name of ['chain[]', 'chain[0]', 'chain%5B%5D', 'chain[a]b', 'chain[', '[chain]', 'chain]', ']chain', '%20chain', '?chain', '?%20chain', 'chain%00', 'x=1;chain', 'x;%5Bchain']) {
    const response = await get(`/x?${name}=sui`)
    const field = decodeURIComponent(name.replace(/^.*;/, ''))
    const reason = 'is chain to some servers and not to others; send it as chain, or send no X-Session-Id'
    t.strictSame({ status: response.status, body: response.json() }, failure(400, 'VALIDATION_ERROR', `The request is not valid: ${field} ${reason}`, [{ field, reason }]))
  }
  const reason = 'has 1001 query parameters, with those that the session adds, and of more than 1000 servers leave out some; send fewer, or send no X-Session-Id'
  const ofMany = await get(`/x?${'&a=1'.repeat(999)}`)
  t.strictSame({ status: ofMany.status, body: ofMany.json() }, failure(400, 'VALIDATION_ERROR', `The request is not valid: url ${reason}`, [{ field: 'url', reason }]))
  t.equal(received.length, 0)
  const many = `/x?a=1${'&a=1'.repeat(998)}`
  const cases = [
    [many, `${many}&chain=near`],
    [`${many}&a=1&chain=sui`, `${many}&a=1&chain=sui`],
    ['/x?x=1;chain=2&chain=sui', '/x?x=1;chain=2&chain=sui'],
    ['/x?x=1;y=2', '/x?x=1;y=2&chain=near'],
    ['/options?options[fast]=1&fields=a;b', '/options?options[fast]=1&fields=a;b&options%5Bprivacy%5D=shielded'],
    ['/options', '/options?options%5Bprivacy%5D=shielded'],
    ['/options?options[fast]=1&options[a][b]=2', '/options?options[fast]=1&options[a][b]=2&options%5Bprivacy%5D=shielded'],
    ['/options?options[privacy]=maximum', '/options?options[privacy]=maximum'],
    ['/options?options[privacy][eq]=maximum', '/options?options[privacy][eq]=maximum'],
    ['/options?options=x', '/options?options=x']
  ] as const
  for (const [sent, got] of cases) {
    await get(sent)
    t.equal(received.at(-1)!.url, got)
  }
})

t.test('a path is what its segments stand for, and is refused where not all servers know it again', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, {
      servers: [{ url: '/~team/v1' }, { url: '/%7Eother' }, { url: '/' }],
      paths: {
        '/users/@me': { get: chain },
        '/quotes:search': { get: chain },
        '/a,b/$count': { get: chain },
        '/c%3Ad/a%2Fb;x': { get: chain },
        '/a=b+c': { get: chain },
        '/café/50%': { get: chain },
        '/books/@me': { get: chain },
        '/books/{id}': { get: {} },
        '/films/@me': { get: chain },
        '/films/{id}': { get: chain },
        '/cafés/é': { get: chain },
        '/cafés/{id}': { get: {} }
      }
    })
  })
  const paths = [
    '/users/@me', '/users/%40me', '/users/%40%6de', '/quotes%3Asearch', '/quotes:search', '/a%2Cb/%24count', '/a,b/$count', '/c:d/a%2fb%3Bx', '/a%3Db%2Bc', '/a=b+c', '/caf%C3%A9/50%25',
    '/~team/v1/a=b+c', '/%7Eteam/v1/a=b+c', '/~team//%761/a=b+c', '/~other/a=b+c', '/%7eOther/a%3Db+c', '/books/@me', '/films/%40me', '/caf%C3%A9s/%C3%A9'
  ]
  for (const path of paths) t.equal((await send('GET', path)).url, `${path}?chain=near`)
  for (const path of ['/books/%40me', '/c%3Ad/a%2Fb;x', '/;x/~team/v1/a=b+c']) {
    const refused = await exchange(port, { path, headers: withSession })
    t.match(refused.json(), { error: { code: 'VALIDATION_ERROR', details: [{ field: 'url' }] } })
  }
  t.equal((await send('GET', '/books/%40you')).url, '/books/%40you')
})

t.test('a path is refused where servers differ over what is around its parameters, or over a parameter that is empty', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, {
      paths: {
        '/jobs/{id}': { get: chain },
        '/jobs/{id}:cancel': { get: {} },
        '/doc/{id}': { get: chain },
        '/doc/{name}.{ext}': { get: {} },
        '/{kind}/{id}': { get: chain },
        '/tasks/{id}:stop': { get: {} },
        '/{kind}/{id}/{part}:all': { get: {} },
        '/accounts': { get: {}, post: {} },
        '/accounts/{id}': { get: {}, post: bodyOf(takes('chain')) },
        '/a/b/c': { get: chain },
        '/only/{id}/of': { get: chain },
        '/own/doc/{id}': { get: chain },
        '/own/doc/{name}.{ext}': { get: {} },
        '/slashed/': { get: chain },
        '/slashed/{id}': { get: {} },
        '/users/{id}/': { get: chain },
        '/users/{id}/{tab}': { get: {} },
        '/{a}/': { put: {} },
        '/b/{c}': { put: bodyOf(takes('chain')) },
        '/{root}': { patch: bodyOf(takes('chain')) },
        '/cut': { get: chain, post: bodyOf(takes('chain')) },
        '/cut/{id}': { get: {}, post: {} },
        '/café-{id}': { head: chain },
        '/{other}': { head: {} },
        '/hat/{x}^y': { get: chain },
        '/hat/{x}': { get: {} }
      }
    })
  })
  const statusOf = async (method: string, path: string) => (await exchange(port, { method, path, headers: withSession })).status
  for (const path of ['/jobs/1%3Acancel', '/jobs/1:c%61ncel', '/doc/a%2Eb', '/tasks/1%3astop', '/own/doc/a%2Eb', '/cut;/x', '/cut;x/y']) t.equal(await statusOf('GET', path), 400, path)
  for (const path of ['/jobs/1:cancel', '/jobs/a%40b:cancel', '/jobs/1%3Acancel:cancel', '/doc/a%2Eb.c', '/tasks/1:stop']) t.equal((await send('GET', path)).url, path)
  for (const path of ['/jobs/1%3Astop', '/jobs/1', '/doc/a%20b', '/tasks/1', '/only//of']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
  t.equal(await statusOf('POST', '/accounts/'), 400)
  t.equal((await send('POST', '/accounts', '{}')).body, '{}')
  for (const path of ['/a/b/c/', '/slashed/', '/users/5/']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
  t.match((await send('GET', '/hat/1%5Ey')).url, /\?chain=near$/, 'what has to be encoded is no disguise')
  t.equal((await send('HEAD', '/caf%C3%A9-5')).url, '/caf%C3%A9-5?chain=near')
  for (const path of ['/Accounts/', '/cut;/x', '/cut;x/y']) t.equal(await statusOf('POST', path), 400, path)
  t.equal(await statusOf('PUT', '/b/'), 400)
  t.equal((await send('PUT', '/c/', '{}')).body, '{}')
  t.equal((await send('PATCH', '/', '{}')).body, '{"chain":"near"}')
})

t.test('a path that is another one of each of two servers of the document is refused where these take different defaults', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  for (const servers of [[{ url: '/' }, { url: '/v1' }], [{ url: '/v1' }, { url: '/' }]]) {
    const { send, port, withSession } = await start(t, { openapi: writeDocument(t, { servers, paths: { '/quote': { get: chain }, '/{kind}/quote': { get: {} }, '/alone': { get: chain } } }) })
    t.equal((await exchange(port, { path: '/v1/quote', headers: withSession })).status, 400)
    for (const path of ['/quote', '/v1/alone', '/alone']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
    t.equal((await send('GET', '/v1/of/quote')).url, '/v1/of/quote')
  }
})

t.test('where a server of the document has a path, it is none of what the upstream has without', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  const { send } = await start(t, { openapi: writeDocument(t, { servers: [{ url: 'https://api.example.com/v1' }], paths: { '/orders': { get: chain }, '/{tenant}/orders': { get: {} } } }) })
  for (const path of ['/v1/orders', '/orders']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
  for (const path of ['/v1/x/orders', '/x/orders']) t.equal((await send('GET', path)).url, path)
  const { send: sendToAny } = await start(t, { openapi: writeDocument(t, { servers: [{ url: '/{base}', variables: { base: { default: 'api' } } }], paths: { '/transfers/': { get: {} }, '/transfers/{id}': { get: chain } } }) })
  t.equal((await sendToAny('GET', '/api/transfers/')).url, '/api/transfers/')
})

t.test('a template may end in what stands for all that follows, or in what may be left out', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  const warnings: string[] = []
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, {
      paths: {
        '/files/{*}': { get: chain },
        '/files/own/*': { get: {} },
        '/files/{id}': { get: {} },
        '/{kind}/x/*': { put: {} },
        '/opt/{id}?': { get: chain },
        '/{id}?': { patch: {} },
        '/rpc?method=send': { post: bodyOf(takes('rpcProvider')) },
        '/page#top': { get: { parameters: [{ in: 'query', name: 'backend' }] } }
      }
    })
  }, { logLevel: 'warn', logStream: { write (line) { warnings.push((JSON.parse(line) as { msg: string }).msg) } } })
  for (const path of ['/files/a/b', '/files/a/b/', '/files/a/b/c%2Fd', '/FILES/a/b', '/opt/5', '/opt']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
  t.equal((await exchange(port, { path: '/files/', headers: withSession })).status, 400, 'some servers take it for /files/{id}')
  for (const path of ['/files', '/files/a', '/files/own/a/b', '/opt/5/6']) t.equal((await send('GET', path)).url, path)
  t.equal((await send('PUT', '/any/x/1/2', '{}')).body, '{}')
  for (const path of ['/', '/5']) t.equal((await send('PATCH', path, '{}')).body, '{}', path)
  t.equal((await send('POST', '/rpc', '{}')).body, '{"chain":"near","privacyLevel":"shielded"}')
  t.strictSame(warnings.filter(line => line.includes('UPSTREAM_OPENAPI')), [
    'Paths of UPSTREAM_OPENAPI have a query string or a fragment: /rpc?method=send, /page#top. No request is for these: requests for what stands before are taken for undocumented, unless the document has that as well.',
    'No operation of UPSTREAM_OPENAPI takes these session defaults: privacyLevel, rpcProvider, backend, defaultViewingKey. Clients can put them into a session to no effect.'
  ])
})

t.test('a body takes what the document has for its media type', async t => {
  const content = {
    'application/json': { schema: takes('chain', 'memo') },
    'application/merge-patch+json': { schema: takes('memo') },
    'application/*': { schema: takes('privacyLevel') }
  }
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, {
      paths: {
        '/rec': { patch: { requestBody: { content } } },
        '/a/{id}': { post: { requestBody: { content } } },
        '/a/b%2Fc': { post: bodyOf(takes('chain', 'privacyLevel')) },
        '/a/b/c': { post: { requestBody: { content } } }
      }
    })
  })
  const patch = async (type: string) => (await send('PATCH', '/rec', '{"memo":"x"}', { 'content-type': type })).body
  t.equal(await patch('application/json; charset=utf-8'), '{"chain":"near","memo":"x"}')
  t.equal(await patch('application/merge-patch+json'), '{"memo":"x"}')
  t.equal(await patch('application/own+json'), '{"privacyLevel":"shielded","memo":"x"}')
  t.equal((await exchange(port, { method: 'PATCH', path: '/rec', headers: { ...withSession, 'content-type': 'text/json' }, body: '{}' })).status, 415)
  t.equal((await send('PATCH', '/rec', undefined, {})).body, '{"chain":"near"}', 'a body that is made is JSON')
  t.equal((await exchange(port, { method: 'POST', path: '/a/b%2Fc', headers: { ...withSession, ...json }, body: '{}' })).status, 400, 'operations that differ by a type are not the same')
})

t.test('a body that is made is of a type that the operation takes', async t => {
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, {
      paths: {
        '/json': { post: bodyOf(takes('chain')) },
        '/vnd': { post: bodyOf(takes('chain'), 'Application/Vnd.Api+json; ext=a') },
        '/two': { post: { requestBody: { content: { 'application/merge-patch+json': { schema: takes('chain') }, 'application/x+json': { schema: takes('privacyLevel') } } } } },
        '/any': { post: bodyOf(takes('chain'), '*/*') },
        '/suffix': { post: bodyOf(takes('chain'), 'application/*+json') }
      }
    })
  })
  const made = async (path: string, said?: string) => {
    const { body, type } = await send('POST', path, undefined, said === undefined ? {} : { 'content-type': said })
    return [body, type]
  }
  const [chain, level] = ['{"chain":"near"}', '{"privacyLevel":"shielded"}']
  for (const said of [undefined, 'text/json', 'application/x+json', 'text/plain', 'application/json; charset=utf-16', 'application/json;']) t.strictSame(await made('/json', said), [chain, 'application/json'], said ?? 'no type')
  t.strictSame(await made('/json', 'application/json; v=1; Charset="utf-8"; b'), [chain, 'application/json; v=1; b'])
  for (const said of [undefined, 'application/json']) t.strictSame(await made('/vnd', said), [chain, 'Application/Vnd.Api+json; ext=a'])
  t.strictSame(await made('/vnd', 'application/vnd.api+json'), [chain, 'application/vnd.api+json'])
  t.strictSame(await made('/two'), [chain, 'application/merge-patch+json'])
  t.strictSame(await made('/two', 'application/x+json'), [level, 'application/x+json'])
  t.strictSame(await made('/any', 'text/json'), [chain, 'text/json'])
  t.strictSame(await made('/suffix'), [chain, 'application/json'])
  t.strictSame(await made('/suffix', 'application/own+json'), [chain, 'application/own+json'])
  t.equal((await send('POST', '/suffix', '{}', { 'content-type': 'application/own+json' })).body, chain)
  for (const type of ['application/json', 'text/own+json']) t.equal((await exchange(port, { method: 'POST', path: '/suffix', headers: { ...withSession, 'content-type': type }, body: '{}' })).status, 415, type)
  const { status, json } = await exchange(port, { method: 'POST', path: '/vnd', headers: { ...withSession, 'content-type': 'application/json' }, body: '{}' })
  t.strictSame({ status, body: json() }, failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'The session\'s defaults go into the JSON that this operation takes, and the body is application/json, which its document does not have. Send it with Content-Type: Application/Vnd.Api+json; ext=a, or send no X-Session-Id.'))
})

t.test('a template for all that follows takes nothing from what the document has besides', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, {
      servers: [{ url: '/' }, { url: '/v1' }],
      paths: { '/{*}': { get: {}, post: {} }, '/files/{name}': { get: chain }, '/transfer': { post: bodyOf(takes('chain')) }, '/docs/{*}': { get: chain }, '/{bucket}/{key}': { get: {} } }
    })
  })
  t.equal((await send('POST', '/v1/transfer', '{}')).body, '{"chain":"near"}', 'under another of the servers')
  t.equal((await send('GET', '/files/a%2Fb')).url, '/files/a%2Fb?chain=near')
  t.equal((await send('GET', '/other')).url, '/other')
  t.equal((await exchange(port, { path: '/docs/x', headers: withSession })).status, 400, 'and is refused where both may be')
})

t.test('media types that differ in their parameters alone take the same', async t => {
  const content = { 'application/json; v=1.0': { schema: takes('chain') }, 'application/json; v=2.0': { schema: takes('memo') }, 'application/own+json': { schema: takes('privacyLevel') } }
  const { send } = await start(t, { openapi: writeDocument(t, { paths: { '/x': { post: { requestBody: { content } } } } }) })
  for (const parameter of ['', '; v=1.0', '; v=2.0']) t.equal((await send('POST', '/x', '{}', { 'content-type': `application/json${parameter}` })).body, '{"chain":"near"}')
  t.equal((await send('POST', '/x', '{}', { 'content-type': 'application/own+json' })).body, '{"privacyLevel":"shielded"}')
})

t.test('HEAD is what the document has for it, or for GET, and is refused where that differs', async t => {
  const chain = { parameters: [{ in: 'query', name: 'chain' }] }
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, { paths: { '/x/{id}': { head: {} }, '/x/me': { get: chain }, '/y': { head: {}, get: chain }, '/{page}': { get: chain }, '/z/{id}': { head: chain }, '/z/me': { get: chain } } })
  })
  t.equal((await exchange(port, { method: 'HEAD', path: '/x/me', headers: withSession })).status, 400)
  t.equal((await send('HEAD', '/y')).url, '/y')
  t.equal((await send('HEAD', '/z/me')).url, '/z/me?chain=near')
})

t.test('what names another method than the request has is refused where a session is named', async t => {
  const { port, headers, withSession, received } = await start(t)
  // Servers that have headers as variables, as CGI has, take the last two for the first.
  for (const name of ['X-HTTP-Method-Override', 'X-Http-Method', 'x-method-override', 'X_HTTP_Method_Override', 'X.HTTP.Method-Override']) {
    const response = await exchange(port, { method: 'POST', path: '/x', headers: { ...withSession, [name]: 'GET' } })
    const reason = 'must be the method of the request, or be left out, where a session is named'
    t.strictSame({ status: response.status, body: response.json() }, failure(400, 'VALIDATION_ERROR', `The request is not valid: ${name.toLowerCase()} ${reason}`, [{ field: name.toLowerCase(), reason }]))
    t.equal((await exchange(port, { method: 'POST', path: '/x', headers: { ...headers, [name]: 'GET' } })).status, 200)
    for (const value of ['post', '']) t.equal((await exchange(port, { method: 'POST', path: '/x', headers: { ...withSession, [name]: value } })).status, 200)
  }
  t.equal(received.length, 15)
  for (const name of ['_method', '%20_method', '.method', '_method%00']) {
    const refused = await exchange(port, { method: 'POST', path: `/x?a=1&${name}=PUT`, headers: withSession })
    t.match(refused.json(), { error: { code: 'VALIDATION_ERROR', details: [{ field: '_method', reason: 'must be the method of the request, or be left out, where a session is named' }] } })
  }
  t.equal((await exchange(port, { method: 'POST', path: '/x?_method=PUT', headers })).status, 200)
  for (const query of ['_method=post', '_method', 'a_method=PUT']) t.equal((await exchange(port, { method: 'POST', path: `/x?${query}`, headers: withSession })).status, 200)
})

t.test('a body of a type that the document does not have is refused where the operation takes defaults in JSON', async t => {
  const content = { 'application/json': { schema: { properties: { chain: {} } } }, 'text/csv': {} }
  const { port, headers, withSession, received } = await start(t, { openapi: writeDocument(t, { paths: { '/x': { post: { requestBody: { content } } } } }) })
  const post = async (type: string, sent: Record<string, string>) => {
    const response = await exchange(port, { method: 'POST', path: '/x', headers: { ...sent, 'content-type': type }, body: '{}' })
    return { status: response.status, body: response.json() }
  }
  for (const type of ['text/plain;charset=UTF-8', 'application/x-www-form-urlencoded', 'application/json-seq']) {
    t.strictSame(await post(type, withSession), failure(415, 'UNSUPPORTED_MEDIA_TYPE', `The session's defaults go into the JSON that this operation takes, and the body is ${type.split(';')[0]}, which its document does not have. Send it with Content-Type: application/json, or send no X-Session-Id.`))
    t.equal((await post(type, headers)).status, 200, 'without a session it is sent on')
  }
  t.equal(received.length, 3)
  for (const framing of [{ 'content-length': 2 }, { 'transfer-encoding': 'chunked' }] as Record<string, string | number>[]) {
    const response = await exchange(port, { method: 'POST', path: '/x', headers: { ...withSession, ...framing }, body: '{}' })
    t.strictSame({ status: response.status, body: response.json() }, failure(415, 'UNSUPPORTED_MEDIA_TYPE', 'The session\'s defaults go into the JSON that this operation takes, and the body has no Content-Type. Send it with Content-Type: application/json, or send no X-Session-Id.'))
  }
  t.equal(received.length, 3)
})

t.test('without a document a body without a type is refused, as it may be JSON', async t => {
  const { port, headers, withSession, received } = await start(t)
  const post = async (sent: object) => (await exchange(port, { method: 'POST', path: '/x', headers: { ...sent }, body: '{}' })).status
  t.equal(await post(withSession), 415)
  t.equal(received.length, 0)
  t.equal(await post(headers), 200, 'without a session it is sent on')
  t.equal(await post({ ...withSession, 'content-type': 'text/plain' }), 200)
  t.equal((await exchange(port, { method: 'POST', path: '/x', headers: withSession })).status, 200)
  t.equal(received.at(-1)!.body, '{"chain":"near","privacyLevel":"shielded"}')
})

t.test('a body without a type is not in the range of all types', async t => {
  const { port, withSession, received } = await start(t, { openapi: writeDocument(t, { paths: { '/x': { post: { requestBody: { content: { '*/*': { schema: takes('chain') } } } } }, '/bytes': { post: { requestBody: { content: { '*/*': { schema: {} } } } } } } }) })
  const post = async (path: string, type: object) => (await exchange(port, { method: 'POST', path, headers: { ...withSession, ...type }, body: '{}' })).status
  t.equal(await post('/x', json), 200)
  t.equal(received.at(-1)!.body, '{"chain":"near"}')
  t.equal(await post('/x', {}), 415)
  t.equal(await post('/x', { 'content-type': 'text/plain' }), 200)
  t.equal(await post('/bytes', {}), 200)
})

t.test('a large or compressed body of an operation that takes nothing streams through', async t => {
  const { send } = await start(t, { openapi: writeDocument(t, { paths: { '/none': { post: bodyOf(takes('amount')) }, '/key': { post: bodyOf(takes('rpcProvider')) } } }) })
  const body = 'x'.repeat(2_000_000)
  t.equal((await send('POST', '/none', body)).body, body)
  t.equal((await send('POST', '/none', body, { ...json, 'content-encoding': 'gzip' })).body, body)
  t.equal((await send('POST', '/key', body)).body, body, 'or nothing that the session has')
})

t.test('a session that is changed or deleted while a body is on its way goes upstream as it is then', async t => {
  const { url, received } = await startUpstream(t)
  const { service, id, headers, sessionId, withSession } = await startGateway(t, { url })
  const send = (meanwhile: () => Promise<void>) => sendInTwo(t, service, id, { path: '/x', headers: withSession, body: '{}' }, meanwhile)
  const patched = await send(async () => {
    t.equal((await service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chain: 'sui' } } })).statusCode, 200)
  })
  t.match(patched, /^HTTP\/1\.1 200 [^]*"chain":"sui"/)
  const deleted = await send(async () => {
    t.equal((await service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)
  })
  t.match(deleted, /^HTTP\/1\.1 404 [^]*"SESSION_NOT_FOUND"/)
  withSession['x-session-id'] = await createSession(service, headers['x-api-key'])
  const empty = await sendInTwo(t, service, id, { path: '/x', headers: { ...withSession, 'content-length': '', 'transfer-encoding': 'chunked' }, body: '0\r\n\r\n' }, async () => {
    await service.inject({ method: 'DELETE', url: `/v1/sessions/${withSession['x-session-id']}`, headers })
  })
  t.match(empty, /^HTTP\/1\.1 404 [^]*"SESSION_NOT_FOUND"/, 'a body of nothing')
  withSession['x-session-id'] = await createSession(service, headers['x-api-key'])
  const revoked = await send(() => service.apiKeyRepository.revoke(id))
  t.match(revoked, /^HTTP\/1\.1 401 [^]*"INVALID_API_KEY"/)
  t.equal(received.length, 1)
})

t.test('what streams through goes upstream by its key and session as they are when the body begins', async t => {
  const openapi = writeDocument(t, { paths: { '/x': { post: { parameters: [{ in: 'query', name: 'chain', schema: text }] } } } })
  const { service, id, headers, sessionId, withSession, received } = await start(t, { openapi })
  const send = (sent: Record<string, string>, meanwhile: () => Promise<void>) => sendInTwo(t, service, id, { path: '/x', headers: { ...sent, 'content-type': 'text/plain' }, body: 'b' }, meanwhile)
  t.match(await send(headers, async () => {}), /^HTTP\/1\.1 200 [^]*\r\n\r\nb$/)
  await send(withSession, async () => {
    t.equal((await service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { chain: 'sui' } } })).statusCode, 200)
  })
  t.strictSame(received.map(({ url, body }) => [url, body]), [['/x', 'b'], ['/x?chain=sui', 'b']])
  const deleted = await send(withSession, async () => {
    t.equal((await service.inject({ method: 'DELETE', url: `/v1/sessions/${sessionId}`, headers })).statusCode, 200)
  })
  t.match(deleted, /^HTTP\/1\.1 404 [^]*"SESSION_NOT_FOUND"/)
  t.match(await send(headers, () => service.apiKeyRepository.revoke(id)), /^HTTP\/1\.1 401 [^]*"INVALID_API_KEY"/)
  t.equal(received.length, 2)
})

t.test('paths begin where the document\'s servers say, or where the upstream does', async t => {
  const paths = { '/quote': { servers: [{ url: '/of/path' }], get: { servers: [{ url: '/of/operation' }, 'wrong'], parameters: [{ in: 'query', name: 'chain' }] } } }
  const cases: [servers: object[] | undefined, base: string, path: string][] = [
    [undefined, '', '/quote'],
    [undefined, '/api', '/quote'],
    [[{ url: '/' }], '', '/quote'],
    [[{ url: '/v2/' }], '', '/v2/quote'],
    [[{ url: '/v2' }], '/v2', '/quote'],
    [[{ url: 'https://api.example.com/v2' }], '', '/v2/quote'],
    [[{ url: 'https://api.example.com/v2' }], '/v2/', '/quote'],
    [[{ url: 'https://api.example.com/v2' }], '', '/quote'],
    [[{ url: 'https://{host}/{version}', variables: { version: { default: 'v3' }, host: { default: 'h' } } }], '', '/v3/quote'],
    [[{ url: 'https://{none}:x/' }, {}], '', '/quote'],
    [[{ url: '/a' }, { url: '/b' }], '', '/b/quote'],
    [[{ url: '/' }, { url: '/v2' }], '', '/v2/quote'],
    [[{ url: '/a' }], '', '/of/path/quote'],
    [[{ url: '/a' }], '', '/of/operation/quote'],
    [[{ url: '/a' }], '', '/A/Quote'],
    [[{ url: 'https://api.example.com/{tenant}/v1', variables: { tenant: { default: 'demo' } } }], '', '/demo/v1/quote'],
    [[{ url: 'https://api.example.com/{tenant}/v1', variables: { tenant: { default: 'demo' } } }], '', '/acme/v1/quote'],
    [[{ url: '/{tenant}/{none}' }], '', '/acme/v2/quote'],
    [[{ url: '{scheme}://{host}:{port}/{stage}-x', variables: { scheme: { default: 'http' }, host: { default: 'h' }, port: { default: 80, enum: [80] }, stage: { default: 'a', enum: ['b'] } } }], '', '/a-x/quote'],
    [[{ url: '{scheme}://{host}/{stage}-x', variables: { scheme: { default: 'http' }, host: { default: 'h' }, stage: { default: 'a', enum: ['b'] } } }], '', '/b-x/quote'],
    [[{ url: '/{version}/(x)', variables: { version: { enum: ['v1beta', 'v2beta'] } } }], '', '/v2beta/(x)/quote'],
    [[{ url: '/{a}/{b}', variables: Object.fromEntries(['a', 'b'].map(name => [name, { default: 'x', enum: Array.from({ length: 11 }, (_, i) => `${name}${i}`) }])) }], '', '/a7/b10/quote']
  ]
  for (const [servers, base, path] of cases) {
    const { send } = await start(t, { base, openapi: writeDocument(t, { paths, ...(servers && { servers }) }) })
    for (const method of ['GET', 'HEAD']) t.strictSame((await send(method, path)).url, `${base.replace(/\/$/, '')}${path}?chain=near`, `${method} ${JSON.stringify(servers)} ${base}`)
  }
})

t.test('a variable of a server that has a list is none of what is not on it', async t => {
  const { send } = await start(t, { openapi: writeDocument(t, { servers: [{ url: '/{version}', variables: { version: { default: 'v1', enum: ['v1', 'v2'] } } }], paths: { '/quote': { post: {} } } }) })
  t.equal((await send('POST', '/v2/quote', '{}')).body, '{}')
  t.not((await send('POST', '/v3/quote', '{}')).body, '{}')
})

t.test('servers of a document that was fetched are relative to where it was, or to the upstream', async t => {
  const document = JSON.stringify({ openapi: '3.1.0', servers: [{ url: './' }], paths: { '/quote': { get: { parameters: [{ in: 'query', name: 'chain' }] } } } })
  const { url } = await startUpstream(t, (_request, response) => { response.end(document) })
  const { send } = await start(t, { openapi: `${url}/api/v3/openapi.json` })
  for (const path of ['/api/v3/quote', '/quote']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
})

t.test('what is beside a reference to a path counts, and extensions among the paths do not', async t => {
  const chain = { in: 'query', name: 'chain' }
  const { send } = await start(t, {
    openapi: writeDocument(t, {
      paths: { '/pi': { $ref: '#/components/pathItems/pi', parameters: [chain] }, 'x-limits': { get: { parameters: [chain] } } },
      components: { pathItems: { pi: { parameters: [{ in: 'query', name: 'privacyLevel' }], get: {} } } }
    })
  })
  t.equal((await send('GET', '/pi')).url, '/pi?chain=near&privacyLevel=shielded')
})

t.test('a parameter of the query string that is JSON gets JSON', async t => {
  const content = { 'application/json': { schema: text } }
  const { send } = await start(t, {
    openapi: writeDocument(t, {
      paths: {
        '/json': { get: { parameters: [{ in: 'query', name: 'chain', content }, { in: 'query', name: 'privacyLevel', schema: text }] } },
        '/text': { get: { parameters: [{ in: 'query', name: 'chain', content: { 'text/plain': {} } }] } }
      }
    })
  })
  t.equal((await send('GET', '/json')).url, '/json?chain=%22near%22&privacyLevel=shielded')
  t.equal((await send('GET', '/text')).url, '/text?chain=near')
})

t.test('templates that overlap are refused where they take different defaults', async t => {
  const { send, port, withSession } = await start(t, {
    openapi: writeDocument(t, { paths: { '/{kind}/me': { get: { parameters: [{ in: 'query', name: 'chain' }] } }, '/books/{id}': { get: {} }, '/films/{id}': { get: { parameters: [{ in: 'query', name: 'chain' }] } } } })
  })
  t.match((await exchange(port, { path: '/books/me', headers: withSession })).json(), { error: { code: 'VALIDATION_ERROR', details: [{ field: 'url' }] } })
  t.equal((await send('GET', '/films/me')).url, '/films/me?chain=near')
  t.equal((await send('GET', '/books/1')).url, '/books/1')
})

t.test('documents may begin as Visual Studio writes them, be YAML in braces, and use an alias often', async t => {
  const path = (i: number) => `"/${i}": { get: { parameters: *all } }`
  const often = `{ openapi: 3.1.0, common: { parameters: &all [ &one { in: query, name: chain }, *one ] }, paths: { ${Array.from({ length: 200 }, (_, i) => path(i)).join(', ')} } }`
  const bom = `\ufeff${JSON.stringify({ openapi: '3.0.0', paths: { '/0': { get: { parameters: [{ in: 'query', name: 'chain' }] } } } })}`
  for (const document of [often, bom]) {
    const { send } = await start(t, { openapi: writeDocument(t, {}, document) })
    t.equal((await send('GET', '/0')).url, '/0?chain=near')
  }
})

t.test('a document in YAML may merge, and objects in the query string are their properties', async t => {
  const filter = { in: 'query', name: 'filter', schema: takes('chain') }
  const operations: Record<string, object> = {
    object: [null, filter],
    form: [{ ...filter, style: 'form', explode: true }],
    whole: [{ ...filter, explode: false }],
    deep: [{ ...filter, style: 'deepObject' }],
    header: [{ ...filter, in: 'header' }]
  }
  const text = `openapi: 3.1.0
common: &common
  get: { parameters: [{ in: query, name: chain }] }
paths:
  /merged: { <<: *common, summary: x }
${Object.entries(operations).map(([name, parameters]) => `  /${name}: ${JSON.stringify({ get: { parameters } })}\n`).join('')}`
  const { send } = await start(t, { openapi: writeDocument(t, {}, text) })
  for (const path of ['/merged', '/object', '/form']) t.equal((await send('GET', path)).url, `${path}?chain=near`)
  t.equal((await send('GET', '/merged?to=a?b&c')).url, '/merged?to=a?b&c&chain=near')
  for (const path of ['/whole', '/deep', '/header']) t.equal((await send('GET', path)).url, path)
})

t.test('defaults of a schema of the host\'s go under their mapped names, lists and objects as well', async t => {
  const defaults = Type.Object({ tags: Type.Array(Type.String()), fee: Type.Object({ max: Type.Number() }), level: Type.Integer(), key: secret(Type.String()) })
  const query = ['tags', 'fee', 'lvl'].map(name => ({ in: 'query', name }))
  const openapi = writeDocument(t, { paths: { '/q': { get: { parameters: query } }, '/b': { post: bodyOf({ type: 'object', properties: { options: takes('lvl'), list: { type: 'array', items: takes('lvl') } } }) } } })
  const { url, received } = await startUpstream(t)
  const service = createService({ connectionString: await createDatabase(t), encryptionKeys, sweepIntervalMs: 0, logLevel: 'silent', defaults, mapping: { level: ['lvl', 'options.lvl', 'list[].lvl'] }, upstream: { url, openapi } })
  t.teardown(() => service.close())
  await service.ready()
  const { secret: key } = await service.apiKeyRepository.create({ tier: 'pro', name: 'x' })
  const sessionId = await createSession(service, key, { tags: ['a', 'b&c'], fee: { max: 1 }, level: 3, key: 'k' })
  const headers = { 'x-api-key': key, 'x-session-id': sessionId }
  await service.inject({ url: '/q', headers })
  t.equal(received.at(-1)!.url, '/q?tags=a&tags=b%26c&fee=%7B%22max%22%3A1%7D&lvl=3')
  await service.inject({ method: 'POST', url: '/b', headers, payload: { list: [{}, {}] } })
  t.equal(received.at(-1)!.body, '{"options":{"lvl":3},"list":[{"lvl":3},{"lvl":3}]}')
})

t.test('at the start warnings name what no operation takes, and references that lead elsewhere', async t => {
  /** The warnings that concern the document: PostgreSQL may be slow, which is none of its business. */
  const warnings = async (schema: object, version = '3.1.0') => {
    const lines: string[] = []
    const openapi = writeDocument(t, { openapi: version, paths: { '/x': { post: bodyOf(schema) } } })
    await start(t, { openapi }, { logLevel: 'warn', logStream: { write (line) { lines.push((JSON.parse(line) as { msg: string }).msg) } } })
    return lines.filter(line => line.includes('UPSTREAM_OPENAPI'))
  }
  t.strictSame(await warnings({ allOf: [takes('chain'), { $ref: 'other.yaml#/Transfer' }] }), [
    'The document of UPSTREAM_OPENAPI refers to what is not in it: other.yaml. Other documents are not read: bundle them into it. What refers to them takes all defaults but the secret ones.',
    'No operation of UPSTREAM_OPENAPI takes these session defaults: defaultViewingKey. Clients can put them into a session to no effect.'
  ])
  const all = takes('chain', 'privacyLevel', 'rpcProvider', 'backend', 'defaultViewingKey')
  for (const version of ['3.0', '3.0.4', '3.1.0']) t.strictSame(await warnings(all, version), [], version)
  t.strictSame(await warnings(all, '3.2.0'), ['The document of UPSTREAM_OPENAPI is OpenAPI 3.2.0, of which what 3.1 does not have is not read, such as querystring parameters and additionalOperations.'])
})

t.test('what refers to other documents takes all defaults but the secret ones', async t => {
  const { send } = await start(t, {
    openapi: writeDocument(t, {
      paths: {
        '/schema': { post: bodyOf({ $ref: 'other.yaml#/Transfer' }) },
        '/part': { post: bodyOf({ properties: { chain: { $ref: 'other.yaml#/Chain' }, amount: { $ref: 'other.yaml#/Amount' } } }) },
        '/body': { post: { requestBody: { $ref: 'other.yaml#/Body' } } },
        '/query': { get: { parameters: [{ $ref: 'other.yaml#/Parameter' }] } },
        '/operation': { post: { $ref: 'other.yaml#/Operation' } }
      }
    })
  })
  const all = '{"chain":"near","privacyLevel":"shielded"}'
  for (const path of ['/schema', '/body', '/operation']) t.equal((await send('POST', path, '{}')).body, all, path)
  t.equal((await send('POST', '/part', '{}')).body, '{"chain":"near"}')
  t.equal((await send('GET', '/query')).url, '/query?chain=near&privacyLevel=shielded')
})

t.test('a document may be behind a user name and a password, which no message repeats', async t => {
  const { url } = await startUpstream(t, ({ headers }, response) => {
    if (headers.authorization === `Basic ${Buffer.from('me:p@ss/word').toString('base64')}`) response.end('openapi: 3.1.0\npaths: {}\n')
    else response.writeHead(401).end()
  })
  const startWith = (credentials: string) => startService(t, { upstream: { url, openapi: url.replace('//', `//${credentials}@`) } })
  await startWith('me:p%40ss%2Fword')
  for (const credentials of ['me:wrong', 'me:wr@ong', 'me:wr ong', 'me:50%']) {
    await t.rejects(startWith(credentials), { message: `The document of UPSTREAM_OPENAPI, ${url}/, cannot be read: it was answered 401` }, credentials)
  }
  await t.rejects(startWith('me:wr/ong'), { message: `The document of UPSTREAM_OPENAPI, ${url}, cannot be read: Invalid URL` })
})

t.test('a document that cannot be used ends the start with a sentence', async t => {
  const { url, server } = await startUpstream(t, (request, response) => {
    if (request.url === '/openapi.yaml') response.end('openapi: 3.1.0\npaths:\n  /x:\n    get: {}\n')
    else response.writeHead(404).end()
  })
  const startWith = async (openapi: string) => {
    const service = createService({ connectionString: 'postgres://unused', migrate: false, encryptionKeys, logLevel: 'silent', upstream: { url, openapi } })
    t.teardown(() => service.close())
    await service.ready()
  }
  const file = (text: string) => writeDocument(t, {}, text)
  const not = 'is not an OpenAPI document of version 3'
  const cases: [source: string, message: RegExp | string][] = [
    ['/nowhere/openapi.json', 'cannot be read: ENOENT: no such file or directory, open \'/nowhere/openapi.json\''],
    [`${url}/nowhere`, 'cannot be read: it was answered 404'],
    ['http://127.0.0.1:2/', 'cannot be read: fetch failed: ECONNREFUSED'],
    ['http://127.0.0.1:1/', 'cannot be read: fetch failed: bad port'],
    [file('{"openapi":'), /cannot be read: .*JSON/],
    [file('a: [b'), /cannot be read: [^\n]+$/],
    [file('just text'), not],
    [file('swagger: "2.0"'), `${not}: it is Swagger 2.0`],
    [file('openapi: 3'), not],
    [file('openapi: 3.0.0\npaths: []'), `${not}: its paths are no object`],
    [file('openapi: 3.0.0\npaths:\n  x:\n    get: {}'), 'cannot be used: its path "x" does not begin with a slash'],
    [file('openapi: 3.0.0\nservers: { url: /v1 }'), 'cannot be used: servers must be a list, such as [{ url: /v1 }]'],
    [file('openapi: 3.0.0\npaths:\n  /x:\n    get:\n      servers: {}'), 'cannot be used: the servers of GET /x must be a list, such as [{ url: /v1 }]']
  ]
  for (const [source, message] of cases) {
    await t.rejects(startWith(source), { name: 'UpstreamDocumentError', message: typeof message === 'string' ? `The document of UPSTREAM_OPENAPI, ${source}, ${message}` : message })
  }
  await t.resolves(startWith(`${url}/openapi.yaml`))
  await t.resolves(startWith(file('openapi: 3.0.0\nservers:\npaths:\n  group: { summary: x }')))
  await t.resolves(startWith(file('openapi: 3.1.0\nwebhooks: {}')), 'one without paths has no operation')
  server.closeAllConnections()
})

t.test('a default that is set while a body is on its way is filled in', async t => {
  const { url, received } = await startUpstream(t)
  const { service, id, headers, sessionId, withSession } = await startGateway(t, { url })
  await sendInTwo(t, service, id, { path: '/x', headers: withSession, body: '{"a":1}' }, async () => {
    t.equal((await service.inject({ method: 'PATCH', url: `/v1/sessions/${sessionId}`, headers, payload: { defaults: { rpcProvider: 'triton' } } })).statusCode, 200)
  })
  t.strictSame(JSON.parse(received.at(-1)!.body), { chain: 'near', privacyLevel: 'shielded', rpcProvider: 'triton', a: 1 })
})

t.test('a parameter of a path may be long', async t => {
  const { send } = await start(t, { openapi: writeDocument(t, { paths: { '/accounts/{id}': { get: { parameters: [{ in: 'query', name: 'chain' }] } } } }) })
  for (const length of [10, 101, 4000]) {
    const path = `/accounts/${'a'.repeat(length)}`
    t.equal((await send('GET', path)).url, `${path}?chain=near`, `${length}`)
  }
})
