import t, { type Test } from 'tap'
import type { ServiceOptions } from '../../src/service.js'
import { failure } from '../helpers.js'
import { exchange, startGateway, startUpstream, writeDocument } from './helpers.js'

const [form, json, xml] = ['application/x-www-form-urlencoded', 'application/json', 'application/xml']
const quote = { type: 'object', properties: { chain: {}, privacyLevel: {}, amount: {} } }
const takes = (...mediaTypes: string[]) => ({ requestBody: { content: Object.fromEntries(mediaTypes.map(mediaType => [mediaType, { schema: quote }])) } })

/** A way to send a body of a type to an operation, and to see what the upstream got of it, or why it did not. */
async function start (t: Test, paths: object, options: Partial<ServiceOptions> = {}) {
  const { url, received } = await startUpstream(t)
  const gateway = await startGateway(t, { url, bodyLimit: 100_000, openapi: writeDocument(t, { paths }) }, options)
  const send = async (method: string, path: string, body?: string | Buffer, type?: string, more: Record<string, string> = {}) => {
    const before = received.length
    const response = await exchange(gateway.port, { method, path, headers: { ...gateway.withSession, ...(type !== undefined && { 'content-type': type }), ...more }, ...(body !== undefined && { body }) })
    if (received.length === before) return { status: response.status, body: response.json() }
    const got = received.at(-1)!
    return [got.body, got.headers['content-type'], response.headers['x-session-applied']]
  }
  return { ...gateway, send, received }
}

const invalid = (field: string, reason: string, where = 'body') => failure(400, 'VALIDATION_ERROR', `The ${where} is not valid: ${field} ${reason}`, [{ field, reason }])
const unsupported = (message: string) => failure(415, 'UNSUPPORTED_MEDIA_TYPE', message)

t.test('a form that the document has is given what it leaves out', async t => {
  const { send } = await start(t, {
    '/form': { post: takes(form) },
    '/both': { post: takes(json, form) },
    '/any': { post: takes('*/*') },
    '/delete': { delete: takes(form) }
  })
  const all = 'chain, privacyLevel'
  for (const path of ['/form', '/both', '/any']) {
    t.strictSame(await send('POST', path, 'amount=1&memo=%20+a&ü', form), ['amount=1&memo=%20+a&ü&chain=near&privacyLevel=shielded', form, all])
    t.strictSame(await send('POST', path, 'chain=&x=2', 'Application/X-WWW-Form-Urlencoded; charset=utf-8'), ['chain=&x=2&privacyLevel=shielded', 'Application/X-WWW-Form-Urlencoded; charset=utf-8', 'privacyLevel'], 'what was sent wins')
    t.strictSame(await send('POST', path, 'privacyLevel=a&ch%61in=b', form, { 'transfer-encoding': 'chunked' }), ['privacyLevel=a&ch%61in=b', form, undefined])
    t.strictSame(await send('POST', path, undefined, form), ['chain=near&privacyLevel=shielded', form, all], 'a request without a body, of the type that it says')
  }
  t.strictSame(await send('POST', '/form'), ['chain=near&privacyLevel=shielded', form, all], 'or of the one that the operation takes')
  t.strictSame(await send('DELETE', '/delete'), ['chain=near&privacyLevel=shielded', form, all])
  t.strictSame(await send('POST', '/both'), ['{"chain":"near","privacyLevel":"shielded"}', json, all], 'JSON first')
  t.strictSame(await send('POST', '/both', '{}', json), ['{"chain":"near","privacyLevel":"shielded"}', json, all])
})

t.test('a form that cannot be filled in, or not for all servers, is refused', async t => {
  const { send, received } = await start(t, { '/form': { post: takes(form) }, '/both': { post: takes(json, form) } })
  for (const [type, body] of [[`${form}; charset=iso-8859-1`, 'a=%E9'], [`${form};charset="utf-16"`, 'a=1'], [form, Buffer.from('a=\xe9', 'latin1')]] as const) {
    t.strictSame(await send('POST', '/form', body, type), unsupported('The session\'s defaults are filled into forms in UTF-8, and this one is in another encoding. Send it in UTF-8, or send no X-Session-Id.'))
  }
  for (const name of ['chain[]', '%20chain', '?chain', 'x;chain']) {
    const field = decodeURIComponent(name.replace(/^.*;/, ''))
    t.strictSame(await send('POST', '/form', `a=1&${name}=sui`, form), invalid(field, 'is chain to some servers and not to others; send it as chain, or send no X-Session-Id'))
  }
  t.strictSame(await send('POST', '/form', `a=1${'&a=1'.repeat(998)}`, form), invalid('body', 'has 1001 parameters, with those that the session adds, and of more than 1000 servers leave out some; send fewer, or send no X-Session-Id'))
  for (const body of ['{"amount":5}', ' \n[{}]']) {
    t.strictSame(await send('POST', '/both', body, form), unsupported('The body begins as JSON does, and its Content-Type says that it is a form. Send JSON with Content-Type: application/json, a form with %7B or %5B at its beginning, or no X-Session-Id.'))
  }
  t.strictSame(await send('POST', '/form', 'a=1', form, { 'content-encoding': 'gzip' }), unsupported('The session\'s defaults cannot be filled into a body with Content-Encoding gzip. Send it without, or send no X-Session-Id.'))
  t.strictSame(await send('POST', '/form', '{}', json), unsupported('The session\'s defaults go into the form that this operation takes, and the body is application/json, which its document does not have. Send it with Content-Type: application/x-www-form-urlencoded, or send no X-Session-Id.'))
  t.match(await send('POST', '/form', 'a='.padEnd(100_001, 'x'), form), { status: 413 })
  t.equal(received.length, 0)
})

t.test('into a form go values at its top only', async t => {
  const { send } = await start(t, {
    '/nested': { post: { requestBody: { content: { [form]: { schema: { properties: { chain: {}, options: { properties: { privacy: {} } } } } } } } } },
    '/flat': { post: takes(form) }
  }, { mapping: { privacyLevel: ['privacyLevel', 'options.privacy'] } })
  t.strictSame(await send('POST', '/nested', 'a=1', form), unsupported('The session\'s defaults cannot be filled into a form at options.privacy. Send JSON where the operation takes it, or send no X-Session-Id.'))
  t.strictSame(await send('POST', '/flat', 'a=1', form), ['a=1&chain=near&privacyLevel=shielded', form, 'chain, privacyLevel'])
})

t.test('a body of another type, for which the document has a place for a default, does not go without it', async t => {
  const { send, received } = await start(t, {
    '/both': { post: takes(json, xml) },
    '/xml': { post: takes(xml), delete: { ...takes(xml), parameters: [{ in: 'query', name: 'chain' }] } },
    '/foreign': { post: { requestBody: { content: { 'image/png': { schema: { $ref: 'common.yaml#/Binary' } } } } } },
    '/parts': { post: takes('multipart/form-data') },
    '/bytes': { post: { requestBody: { content: { ...takes(json).requestBody.content, 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } } } } },
    '/any': { post: takes('*/*') },
    '/other': { post: takes('application/*+json') }
  })
  t.strictSame(await send('POST', '/both', '<a/>', 'Application/XML; charset=utf-8'), unsupported('The session\'s defaults cannot be filled into a body that is application/xml. Send it with Content-Type: application/json, or send no X-Session-Id.'))
  t.strictSame(await send('POST', '/xml', '<a/>', xml), unsupported('The session\'s defaults cannot be filled into a body that is application/xml. Send no X-Session-Id.'))
  t.equal(received.length, 0)
  t.strictSame(await send('DELETE', '/xml'), ['', undefined, 'chain'], 'where none is sent, the query string is filled in as ever')
  t.strictSame(await send('POST', '/xml', '{}', json), ['{}', json, undefined])
  t.strictSame(await send('POST', '/foreign', 'x', 'image/png'), ['x', 'image/png', undefined], 'what another document says is not known')
  t.strictSame(await send('POST', '/parts', '--b--', 'multipart/form-data; boundary=b'), ['--b--', 'multipart/form-data; boundary=b', undefined], 'parts are left alone')
  t.strictSame(await send('POST', '/bytes', 'x', 'application/octet-stream'), ['x', 'application/octet-stream', undefined], 'what has no place for one streams through')
  t.strictSame(await send('POST', '/any', 'x', 'image/png'), ['x', 'image/png', undefined], 'so does what a range stands for')
  t.strictSame(await send('POST', '/other'), ['{"chain":"near","privacyLevel":"shielded"}', json, 'chain, privacyLevel'])
})

t.test('JSON that is no object, which some servers take for no body, is refused where one is described', async t => {
  const { send, received } = await start(t, {
    '/optional': { post: { requestBody: { content: { [json]: { schema: { anyOf: [quote, { type: 'null' }] } } } } } },
    '/key': { post: { requestBody: { content: { [json]: { schema: { properties: { rpcProvider: {} } } } } } } }
  })
  for (const body of ['null', '""', '"x"', '5', 'true']) {
    t.strictSame(await send('POST', '/optional', body, json), invalid('body', 'must be an object or a list, into which the session\'s defaults go; send one, or nothing, or send no X-Session-Id'))
  }
  t.equal(received.length, 0)
  t.strictSame(await send('POST', '/optional', '[]', json), ['[]', json, undefined], 'lists are left alone')
  t.strictSame(await send('POST', '/key', 'null', json), ['null', json, undefined], 'and so is all that the session has nothing for')
})

t.test('a body that is filled in names no other method', async t => {
  const { send, received } = await start(t, { '/x': { post: takes(json, form) } })
  const refused = invalid('_method', 'must be the method of the request, or be left out, where a session is named', 'request')
  t.strictSame(await send('POST', '/x', '{"_method":"DELETE"}', json), refused)
  for (const name of ['_method', '_method[]', '[_method]', '?_method', '+.method', 'a;_method']) t.strictSame(await send('POST', '/x', `a=1&${name}=delete`, form), refused, name)
  t.equal(received.length, 0)
  for (const [body, type] of [['{"_method":"post","chain":1,"privacyLevel":1}', json], ['{"_method":null,"chain":1,"privacyLevel":1}', json], ['_method=POST&chain&privacyLevel', form], ['{"_methods":"PUT","chain":1,"privacyLevel":1}', json]] as const) {
    t.strictSame(await send('POST', '/x', body, type), [body, type, undefined])
  }
})

t.test('what PHP takes for a default, whose name it writes in its own way, is refused', async t => {
  const parameters = [{ in: 'query', name: 'privacy_level' }]
  const { send } = await start(t, { '/x': { post: { requestBody: { content: { [form]: { schema: { properties: { privacy_level: {} } } } } } }, get: { parameters } } }, { mapping: { privacyLevel: 'privacy_level' } })
  for (const name of ['privacy.level', 'privacy level', ' privacy_level', 'privacy[level', 'privacy.level[]']) {
    const reason = 'is privacy_level to some servers and not to others; send it as privacy_level, or send no X-Session-Id'
    t.strictSame(await send('POST', '/x', `${encodeURIComponent(name)}=maximum`, form), invalid(name, reason))
    t.strictSame(await send('GET', `/x?${encodeURIComponent(name)}=maximum`), invalid(name, reason, 'request'))
  }
  t.strictSame(await send('POST', '/x', 'privacy.levels=1', form), ['privacy.levels=1&privacy_level=shielded', form, 'privacyLevel'])
})
