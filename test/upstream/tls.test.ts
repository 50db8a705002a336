/** A connection goes to the checked address, and the certificate is that of the name all the same. */
import { expect, test } from 'bun:test'
import { faultOf } from '../harness.ts'
import { aTest, bTest, type Certificate } from './certificates.ts'
import { openUpstream, rawServer } from './setup.ts'

/** One address for two names: which certificate is shown depends on the SNI. Tells who asked, and from which port. */
function serve(certificates: readonly Certificate[]): Bun.Server<undefined> {
  return Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    tls: [...certificates],
    fetch: (request, server) =>
      Response.json({
        host: request.headers.get('host'),
        port: server.requestIP(request)?.port,
      }),
  })
}

const options = {
  lookup: () => Promise.resolve(['127.0.0.1']),
  isPublic: () => true,
  ca: aTest.cert + bTest.cert,
}

interface Seen {
  readonly host: string
  readonly port: number
}

test('name and SNI are kept, and so are connections, apart by name', async () => {
  const server = serve([aTest, bTest])
  await using upstream = openUpstream(options)
  const ask = async (name: string): Promise<Seen> => {
    const response = await upstream.fetch(`https://${name}:${server.port}/`)
    return (await response.json()) as Seen
  }
  const a = await ask('a.test')
  const b = await ask('b.test')
  const again = await ask('a.test')
  expect([a.host, b.host]).toEqual([`a.test:${server.port}`, `b.test:${server.port}`])
  expect([a.port === again.port, a.port === b.port]).toEqual([true, false])
  await server.stop(true)
})

test('a certificate of another name is refused', async () => {
  const server = serve([bTest])
  await using upstream = openUpstream(options)
  const fault = await faultOf(() => upstream.fetch(`https://a.test:${server.port}/`))
  expect([fault.code, fault.message]).toEqual([
    'unavailable',
    `a.test:${server.port} cannot be reached: ERR_TLS_CERT_ALTNAME_INVALID`,
  ])
  await server.stop(true)
})

test('a certificate that nobody trusts is refused', async () => {
  const server = serve([aTest])
  const { lookup, isPublic } = options
  await using upstream = openUpstream({ lookup, isPublic })
  const fault = await faultOf(() => upstream.fetch(`https://a.test:${server.port}/`))
  expect(fault.message).toContain('SELF_SIGNED')
  await server.stop(true)
})

test('somebody who speaks no TLS', async () => {
  await using server = await rawServer(() => {})
  await using upstream = openUpstream(options)
  const url = `https://a.test:${server.port}/`
  const fault = await faultOf(() => upstream.fetch(url, { timeoutMs: 200, retries: 0 }))
  expect(fault.code).toBe('timeout')
})
