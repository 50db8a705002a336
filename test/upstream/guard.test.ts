/** Where a call may not go, in every spelling (server-side request forgery). */
import { describe, expect, test } from 'bun:test'
import { isPublicAddress } from '../../src/upstream/upstream.ts'
import { faultOf } from '../harness.ts'
import { openUpstream, rawServer, wire } from './setup.ts'

const secret = () => rawServer((socket) => void socket.write(wire('200 OK', {}, 'secret')))

describe('refused, and nothing is connected to', () => {
  const spellings: Readonly<Record<string, (port: number) => string>> = {
    'plain loopback': (port) => `http://127.0.0.1:${port}/`,
    'another loopback': (port) => `http://127.3.2.1:${port}/`,
    decimal: (port) => `http://2130706433:${port}/`,
    octal: (port) => `http://0177.0.0.1:${port}/`,
    hex: (port) => `http://0x7f000001:${port}/`,
    'hex with dots': (port) => `http://0x7f.0x0.0x0.0x1:${port}/`,
    'short form': (port) => `http://127.1:${port}/`,
    'digits of other alphabets': (port) => `http://①②⑦.⓪.⓪.①:${port}/`,
    'a trailing dot': (port) => `http://127.0.0.1.:${port}/`,
    '0.0.0.0': (port) => `http://0.0.0.0:${port}/`,
    'nothing but 0': (port) => `http://0:${port}/`,
    'IPv6 loopback': (port) => `http://[::1]:${port}/`,
    'IPv6 unspecified': (port) => `http://[::]:${port}/`,
    'IPv4 mapped': (port) => `http://[::ffff:127.0.0.1]:${port}/`,
    'IPv4 mapped, in hex': (port) => `http://[0:0:0:0:0:ffff:7f00:1]:${port}/`,
    'IPv4 compatible': (port) => `http://[::127.0.0.1]:${port}/`,
    NAT64: (port) => `http://[64:ff9b::7f00:1]:${port}/`,
    'NAT64 of a network of its own': (port) => `http://[64:ff9b:1::808:808]:${port}/`,
    '6to4': (port) => `http://[2002:7f00:1::]:${port}/`,
    Teredo: (port) => `http://[2001:0:7f00:1::]:${port}/`,
    'unique local': (port) => `http://[fd00::1]:${port}/`,
    'link-local of IPv6': (port) => `http://[fe80::1]:${port}/`,
    'multicast of IPv6': (port) => `http://[ff02::1]:${port}/`,
    'link-local: the metadata service': () => 'http://169.254.169.254/latest/meta-data/',
    'metadata in decimal': () => 'http://2852039166/',
    'a private network': () => 'http://10.0.0.1/',
    'another private network': () => 'http://192.168.1.1/',
    'a third private network': () => 'http://172.31.255.255/',
    'a provider’s own network': () => 'http://100.64.0.1/',
    multicast: () => 'http://224.0.0.1/',
    broadcast: () => 'http://255.255.255.255/',
    'userinfo before a private address': (port) => `http://api.example.com@127.0.0.1:${port}/`,
    'userinfo before a public one': () => 'http://ann:pw@198.41.0.4/',
  }

  test.each(Object.entries(spellings))('%s', async (_, url) => {
    await using server = await secret()
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.fetch(url(server.port)))
    expect([fault.code, server.connections]).toEqual(['denied', 0])
  })

  test.each(['localhost', 'localhost.', 'LOCALHOST', 'a.localhost'])(
    'the name %s',
    async (host) => {
      await using server = await secret()
      await using upstream = openUpstream({ lookup: () => Promise.resolve(['127.0.0.1']) })
      const fault = await faultOf(() => upstream.fetch(`http://${host}:${server.port}/`))
      expect([fault.code, server.connections]).toEqual(['denied', 0])
    },
  )

  test('localhost by the resolver of this machine', async () => {
    await using server = await secret()
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.fetch(`http://localhost:${server.port}/`))
    expect([fault.code, server.connections]).toEqual(['denied', 0])
  })

  test('a name with one private address among public ones', async () => {
    await using upstream = openUpstream({
      lookup: () => Promise.resolve(['198.41.0.4', '10.0.0.1', '2001:500:2::c']),
    })
    expect((await faultOf(() => upstream.fetch('http://api.example.com/'))).code).toBe('denied')
  })

  test.each([
    'file:///etc/passwd',
    'data:text/plain,hi',
    'ftp://198.41.0.4/',
    'blob:x',
    '//x',
    'x',
  ])('what is no http: %s', async (url) => {
    await using upstream = openUpstream()
    expect((await faultOf(() => upstream.ask(url))).code).toBe('invalid')
  })
})

/** A guard that takes one loopback address for public. */
const taking = (address: string) => ({ isPublic: (one: string) => one === address })

describe('redirects', () => {
  test('to a private address: refused, and nothing is connected to', async () => {
    await using inner = await secret()
    await using outer = await rawServer(
      (socket) => void socket.write(wire('302 Found', { location: `${inner.url}/admin` })),
      '127.0.0.2',
    )
    await using upstream = openUpstream(taking('127.0.0.2'))
    const fault = await faultOf(() => upstream.fetch(outer.url))
    expect([fault.code, outer.requests.length, inner.connections]).toEqual(['denied', 1, 0])
  })

  test('to a name that leads to a private address: the same', async () => {
    await using inner = await secret()
    await using outer = await rawServer(
      (socket, _, nth) =>
        void socket.write(wire('307 X', { location: `http://n${nth}.test:${inner.port}/` })),
      '127.0.0.2',
    )
    const lookup = () => Promise.resolve(['127.0.0.1'])
    await using upstream = openUpstream({ ...taking('127.0.0.2'), lookup })
    const fault = await faultOf(() => upstream.fetch(outer.url))
    expect([fault.code, inner.connections]).toEqual(['denied', 0])
  })

  test('of what the operator wrote: from a public address to no private one, from a private one to any', async () => {
    await using inner = await secret()
    const leading = (host: string) =>
      rawServer(
        (socket) => void socket.write(wire('302 Found', { location: `${inner.url}/admin` })),
        host,
      )
    await using outer = await leading('127.0.0.2')
    await using upstream = openUpstream(taking('127.0.0.2'))
    const fault = await faultOf(() => upstream.ask(outer.url))
    expect([fault.code, outer.requests.length, inner.connections]).toEqual(['denied', 1, 0])
    await using own = await leading('127.0.0.3')
    expect((await upstream.ask(own.url)).status).toBe(200)
    expect(inner.connections).toBe(1)
  })

  test.each(['file:///etc/passwd', 'javascript:1', 'http://'])(
    'to %s: not followed',
    async (to) => {
      await using server = await rawServer(
        (socket) => void socket.write(wire('302 Found', { location: to })),
      )
      await using upstream = openUpstream()
      const fault = await faultOf(() => upstream.ask(server.url, { retries: 0 }))
      expect(fault.message).toContain('redirects to what is no http(s) URL')
    },
  )

  test('secrets do not go along to another origin', async () => {
    await using other = await rawServer((socket) => void socket.write(wire('200 OK', {}, 'ok')))
    await using first = await rawServer(
      (socket) => void socket.write(wire('302 Found', { location: other.url })),
    )
    await using upstream = openUpstream()
    const headers = { authorization: 'Bearer t', cookie: 'c=1', 'x-api-key': 'k', accept: 'a/b' }
    const response = await upstream.ask(first.url, { headers })
    expect(await response.text()).toBe('ok')
    expect(first.requests[0]?.toLowerCase()).toContain('x-api-key: k')
    const seen = other.requests[0]?.toLowerCase() ?? ''
    expect(seen).toContain('accept: a/b')
    for (const name of ['authorization', 'cookie', 'x-api-key']) expect(seen).not.toContain(name)
  })
})

describe('one resolution', () => {
  test('a name that is rebound after the check is connected to where it was checked', async () => {
    await using checked = await rawServer(
      (socket) => void socket.write(wire('200 OK', {}, 'checked')),
      '127.0.0.2',
    )
    await using rebound = await secret()
    let lookups = 0
    const lookup = () => Promise.resolve([lookups++ === 0 ? '127.0.0.2' : '127.0.0.1'])
    await using upstream = openUpstream({ ...taking('127.0.0.2'), lookup })
    const url = `http://rebind.test:${checked.port}/`
    const response = await upstream.fetch(url)
    expect(await response.text()).toBe('checked')
    expect(lookups).toBe(1)
    expect(checked.requests[0]).toContain(`rebind.test:${checked.port}`)
    // And the next call looks again, and is refused.
    expect((await faultOf(() => upstream.fetch(url))).code).toBe('denied')
    expect(rebound.connections).toBe(0)
  })

  test('of several addresses another try takes another one', async () => {
    await using server = await rawServer(
      (socket) => void socket.write(wire('200 OK', {}, 'here')),
      '127.0.0.2',
    )
    // Nobody listens at the first.
    const lookup = () => Promise.resolve(['127.0.0.3', '127.0.0.2'])
    await using upstream = openUpstream({ lookup, isPublic: () => true })
    const response = await upstream.fetch(`http://two.test:${server.port}/`)
    expect(await response.text()).toBe('here')
  })

  test('a name that does not resolve', async () => {
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.fetch('http://nowhere.invalid/', { retries: 0 }))
    expect([fault.code, fault.message.startsWith('nowhere.invalid cannot be resolved')]).toEqual([
      'unavailable',
      true,
    ])
  })

  test('a name without any address', async () => {
    await using upstream = openUpstream({ lookup: () => Promise.resolve([]) })
    const fault = await faultOf(() => upstream.fetch('http://empty.test/', { retries: 0 }))
    expect(fault.message).toBe('empty.test has no address')
  })
})

test('what is public', () => {
  const open = ['8.8.8.8', '172.32.0.1', '100.63.0.1', '2606:4700::1111', '2001:4860:4860::8888']
  const clothed = ['::ffff:8.8.8.8', '64:ff9b::808:808']
  expect([...open, ...clothed].filter((one) => !isPublicAddress(one))).toEqual([])
  const closed = ['fe80::1%eth0', '100::1', '2001:db8::1', 'fec0::1', '3fff::1', '192.0.2.1', '']
  expect(closed.filter((one) => isPublicAddress(one))).toEqual([])
})
