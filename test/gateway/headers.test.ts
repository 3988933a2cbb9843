import t from 'tap'
import { requestHeaders, responseHeaders } from '../../src/gateway/headers.js'

const nobody = { protocol: 'http' as const, principal: null }
const base = new URL('http://127.0.0.1:3000')

const ofConnection = ['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings', 'expect']

t.test('what holds for one connection goes no further, in either direction', async t => {
  const origin = { id: 'r', ip: '192.0.2.1', ips: ['192.0.2.1'], protocol: 'http' as const, host: 'h', principal: null }
  const headers = Object.fromEntries([...ofConnection, 'x-own'].map(name => [name, 'x']))
  t.strictSame(requestHeaders({})(origin, headers), { 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'http', 'x-forwarded-host': 'h', 'x-request-id': 'r', 'x-own': 'x' })
  t.strictSame(responseHeaders(headers, base, nobody, undefined), { 'x-own': 'x', vary: 'X-API-Key, Authorization' })
  t.strictSame(responseHeaders({ connection: 'close,X-Hop , x-other', 'x-hop': 'x', 'x-other': 'x', 'x-own': 'x' }, base, nobody, undefined), { 'x-own': 'x', vary: 'X-API-Key, Authorization' }, 'nor what the connection says that it is')
})

t.test('a Location that leads to the upstream leads to the gateway, and any other where it says', async t => {
  const location = (given: string, base = 'http://api.internal:8080', protocol: 'http' | 'https' = 'http') => responseHeaders({ location: given }, new URL(base), { protocol, principal: null }, undefined).location
  t.equal(location('http://api.internal:8080/quotes?chain=near#x'), '/quotes?chain=near#x')
  t.equal(location('HTTP://user@API.internal:8080/a%20b/\xc3\xa9'), '/a%20b/%c3%a9')
  for (const root of ['http://api.internal:8080', 'http://api.internal:8080/', 'http:///api.internal:8080', '//api.internal:8080/', '\\\\api.internal:8080']) t.equal(location(root), '/', root)
  t.equal(location('http://api.internal:8080?a=1'), '/?a=1')
  for (const path of ['//evil.example/x', '/\\evil.example/x', '/\t/evil.example/x', '\\\\evil.example/x']) t.equal(location(`http://api.internal:8080${path}`), '/.//evil.example/x', 'never to another host')
  for (const other of ['http://api.internal/x', 'http://api.internal:80801/x', 'http://example.com:8080/x', 'http://[/x', '/x', 'x', '?a=1', 'mailto:a@api.internal:8080', 'app://api.internal:8080/x']) t.equal(location(other), other)
  t.strictSame(responseHeaders({ location: ['a', 'b'] as unknown as string }, base, nobody, undefined).location, ['a', 'b'])

  t.equal(location('http://api.internal/x', 'https://api.internal'), '/x', 'of a server that does not know that it is asked by TLS')
  t.equal(location('https://api.internal:8080/x', undefined, 'https'), '/x', 'or that knows that the client is')
  t.equal(location('https://api.internal:8080/x'), 'https://api.internal:8080/x', 'or that wants the client to be, who would come back for ever')
})

t.test('of an upstream with a path, as far as the gateway leads there', async t => {
  const location = (given: string) => responseHeaders({ location: given }, new URL('http://api.internal:8080/caf%C3%A9/'), nobody, undefined).location
  for (const path of ['caf%C3%A9', 'caf%c3%a9', 'caf\xc3\xa9']) {
    t.equal(location(`http://api.internal:8080/${path}/quotes`), '/quotes')
    for (const root of [path, `${path}/`]) t.equal(location(`http://api.internal:8080/${root}?a=1`), '/?a=1')
  }
  t.equal(location('http://api.internal:8080/caf%C3%A9/\\evil.example'), '/.//evil.example')
  for (const path of ['caf%C3%A9s', '', 'v1/caf%C3%A9', 'caf%C3%A9/../admin']) t.equal(location(`http://api.internal:8080/${path}`), `http://api.internal:8080/${path}`, 'what the gateway does not lead to')
  t.equal(location('/caf%C3%A9/quotes'), '/caf%C3%A9/quotes')
})
