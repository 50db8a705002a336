/** The provider of tests bans who asks too often, and fails as told. */
import { expect, test } from 'bun:test'
import { startFakeUpstream, type FakePrice, type UpstreamFault } from './upstream.ts'

test('50 in any second pass, the 51st bans its key, and nobody else', async () => {
  await using upstream = startFakeUpstream({ headers: 'draft' })
  const call = (key: string) =>
    fetch(`${upstream.url}/price/v3?ids=a,b`, { headers: { 'x-api-key': key } })
  // One after another, so that it is known which one is the 51st.
  const statuses: number[] = []
  for (let count = 0; count < 52; count++) statuses.push((await call('k1')).status)
  if (upstream.busiest() > 50) {
    expect(statuses.slice(-2)).toEqual([429, 429])
    expect(upstream.bans).toBe(1)
  }
  const other = await call('k2')
  expect(other.headers.get('ratelimit')).toBe('"default";r=49;t=1')
  const prices = (await other.json()) as Record<string, FakePrice>
  expect(Object.keys(prices)).toEqual(['a', 'b'])
  expect(upstream.arrivals).toHaveLength(53)
  expect(upstream.perSecond().reduce((sum, calls) => sum + calls, 0)).toBe(53)
})

test('prices are told, changed and forgotten', async () => {
  await using upstream = startFakeUpstream({ changeMs: 0, etag: true })
  const ask = async () => (await (await fetch(`${upstream.url}/price/v3?ids=a`)).json()) as object
  const before = upstream.price('a')
  expect(await ask()).toMatchObject({ a: { usdPrice: before } })
  upstream.set('a', 7)
  expect(await ask()).toMatchObject({ a: { usdPrice: 7 } })
  upstream.set('a', undefined)
  const gone = await fetch(`${upstream.url}/price/v3?ids=a`)
  expect(await gone.json()).toEqual({})
  const etag = gone.headers.get('etag') ?? ''
  const again = await fetch(gone.url, { headers: { 'if-none-match': etag } })
  expect(again.status).toBe(304)
})

const faults: [fault: UpstreamFault, outcome: string][] = [
  [{ kind: 'status', status: 503 }, '503'],
  [{ kind: 'limited', retryAfter: '7' }, '429 7'],
  [{ kind: 'limited' }, '429'],
  [{ kind: 'truncated' }, 'ECONNRESET'],
  [{ kind: 'silent' }, 'TimeoutError'],
  [{ kind: 'slow', ms: 10_000 }, 'TimeoutError'],
  [{ kind: 'not json' }, 'text/html'],
  [{ kind: 'huge', bytes: 3_000_000 }, '3000000 bytes'],
  [{ kind: 'flapping', calls: 1, fault: { kind: 'status', status: 500 } }, '500'],
]

test.each(faults)('it fails as told: %j', async (fault, outcome) => {
  await using upstream = startFakeUpstream()
  upstream.fault = fault
  expect(await outcomeOf(`${upstream.url}/price/v3?ids=a`)).toBe(outcome)
  if (fault.kind === 'flapping') {
    expect(await outcomeOf(`${upstream.url}/price/v3?ids=a`)).toBe('ok')
  }
})

test('it redirects in circles, speaks no TLS, goes down and comes up', async () => {
  await using upstream = startFakeUpstream()
  upstream.fault = { kind: 'redirect' }
  const once = await fetch(upstream.url, { redirect: 'manual' })
  expect(once.headers.get('location')).toBe(`${upstream.url}/`)
  upstream.fault = undefined
  expect(await outcomeOf(`${upstream.tlsUrl}/price/v3?ids=a`)).toBe('EPROTO')
  await upstream.down()
  expect(await outcomeOf(`${upstream.url}/price/v3?ids=a`)).toBe('ECONNREFUSED')
  upstream.up()
  expect(await outcomeOf(`${upstream.url}/price/v3?ids=a`)).toBe('ok')
})

async function outcomeOf(url: string): Promise<string> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(500) })
    const body = await response.arrayBuffer()
    if (response.status === 429) {
      return `429 ${response.headers.get('retry-after') ?? ''}`.trim()
    }
    if (response.status !== 200) return String(response.status)
    const type = response.headers.get('content-type')
    if (type !== 'application/json') return String(type)
    return body.byteLength > 10_000 ? `${body.byteLength} bytes` : 'ok'
  } catch (thrown) {
    const { name, code } = thrown as Error & { code?: unknown }
    return typeof code === 'string' ? code : name
  }
}
