import t from 'tap'
import { requestHeaders, responseHeaders } from '../../src/gateway/headers.js'

const ofConnection = ['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings', 'expect']

t.test('what holds for one connection goes no further, in either direction', async t => {
  const origin = { id: 'r', ip: '192.0.2.1', ips: ['192.0.2.1'], protocol: 'http' as const, host: 'h', principal: null }
  const headers = Object.fromEntries([...ofConnection, 'x-own'].map(name => [name, 'x']))
  t.strictSame(requestHeaders({})(origin, headers), { 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'http', 'x-forwarded-host': 'h', 'x-request-id': 'r', 'x-own': 'x' })
  t.strictSame(responseHeaders(headers, false, undefined), { 'x-own': 'x', vary: 'X-API-Key, Authorization' })
  t.strictSame(responseHeaders({ connection: 'close,X-Hop , x-other', 'x-hop': 'x', 'x-other': 'x', 'x-own': 'x' }, false, undefined), { 'x-own': 'x', vary: 'X-API-Key, Authorization' }, 'nor what the connection says that it is')
})
