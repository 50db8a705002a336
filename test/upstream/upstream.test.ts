/** Calls that share, wait, are tried again, are led on, and are kept. */
import { describe, expect, test } from 'bun:test'
import { createSharesAlone, type Shares } from '../../src/store/store.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createTestLog, faultOf, until } from '../harness.ts'
import { startFakeUpstream } from '../lib/upstream.ts'
import { createBudgets, createUpstream, type BudgetPlan } from '../../src/upstream/upstream.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { openUpstream, rawServer, wire } from './setup.ts'

/** Answers when it is let. */
async function gate() {
  const waiting: (() => void)[] = []
  const server = await rawServer((socket, _, nth) => {
    waiting.push(() => void socket.write(wire('200 OK', { etag: `"${nth}"` }, `answer ${nth}`)))
  })
  return { server, open: () => waiting.shift()?.(), waiting }
}

describe('equal GETs', () => {
  test('under way are one call, and an answer of their own for each', async () => {
    const { server, open, waiting } = await gate()
    await using _ = server
    await using upstream = openUpstream()
    const asked = Array.from({ length: 1_000 }, () => upstream.ask(server.url))
    await until(() => waiting.length === 1, 'it is asked')
    open()
    const answers = await Promise.all(asked)
    expect(new Set(answers).size).toBe(1_000)
    answers[0]?.headers.set('etag', 'other')
    const texts = await Promise.all(answers.map((one) => one.text()))
    expect([new Set(texts), answers[1]?.headers.get('etag')]).toEqual([
      new Set(['answer 0']),
      '"0"',
    ])
    expect([server.requests.length, upstream.stats().coalesced]).toEqual([1, 999])
  })

  test('are not equal with other headers, other bounds, or another method', async () => {
    const { server, open, waiting } = await gate()
    await using _ = server
    await using upstream = openUpstream()
    const asked = [
      upstream.ask(server.url),
      upstream.ask(`${server.url}/?a`),
      upstream.ask(server.url, { headers: { accept: 'a/b' } }),
      upstream.ask(server.url, { bytesMax: 10_000 }),
      upstream.ask(server.url, { method: 'DELETE' }),
      upstream.ask(server.url, { method: 'DELETE' }),
    ]
    await until(() => waiting.length === 6, 'each is asked')
    while (waiting.length > 0) open()
    await Promise.all(asked)
  })

  test('one who leaves does not end it for the others; the last one does', async () => {
    const { server, open, waiting } = await gate()
    await using _ = server
    await using upstream = openUpstream()
    const [first, second, third] = [
      new AbortController(),
      new AbortController(),
      new AbortController(),
    ]
    const ask = ({ signal }: AbortController) => upstream.ask(server.url, { signal })
    const [one, two] = [ask(first), ask(second)]
    await until(() => waiting.length === 1, 'it is asked')
    first.abort(new Error('enough'))
    await expect(one).rejects.toThrow('enough')
    open()
    expect(await (await two).text()).toBe('answer 0')

    const last = ask(third)
    await until(() => waiting.length === 1, 'it is asked')
    third.abort(new Error('enough'))
    await expect(last).rejects.toThrow('enough')
    await until(() => upstream.stats().inFlight === 0, 'nobody waits')
  })

  test('who comes when all have left begins anew', async () => {
    const { server, open, waiting } = await gate()
    await using _ = server
    await using upstream = openUpstream()
    const abort = new AbortController()
    const left = upstream.ask(server.url, { signal: abort.signal })
    await until(() => waiting.length === 1, 'it is asked')
    abort.abort(new Error('enough'))
    await expect(left).rejects.toThrow('enough')
    const next = upstream.ask(server.url)
    await until(() => waiting.length === 2, 'it is asked again')
    open()
    open()
    expect(await (await next).text()).toBe('answer 1')
  })
})

test('connections are kept', async () => {
  await using server = await rawServer((socket) => void socket.write(wire('200 OK', {}, 'ok')))
  await using upstream = openUpstream()
  for (let n = 0; n < 5; n++) await (await upstream.ask(`${server.url}/${n}`)).text()
  expect([server.requests.length, server.connections]).toEqual([5, 1])
})

describe('tried again', () => {
  const failing = (times: number, status: string, headers = {}) =>
    rawServer(
      (socket, _, nth) =>
        void socket.write(nth < times ? wire(status, headers, 'no') : wire('200 OK', {}, 'yes')),
    )

  test.each(['500 X', '502 X', '503 X', '504 X', '429 X'])('after %s', async (status) => {
    await using server = await failing(2, status)
    await using upstream = openUpstream({ random: () => 0 })
    expect(await (await upstream.ask(server.url)).text()).toBe('yes')
    expect([server.requests.length, upstream.stats().retries]).toEqual([3, 2])
  })

  test('but not for ever: then the answer is what it was', async () => {
    await using server = await failing(9, '503 X')
    await using upstream = openUpstream({ random: () => 0 })
    const response = await upstream.ask(server.url)
    expect([response.status, await response.text(), server.requests.length]).toEqual([503, 'no', 3])
  })

  test.each(['400 X', '401 X', '404 X', '501 X'])('not after %s', async (status) => {
    await using server = await failing(2, status)
    await using upstream = openUpstream()
    expect((await upstream.ask(server.url)).ok).toBe(false)
    expect(server.requests.length).toBe(1)
  })

  test('not what may not be made twice', async () => {
    await using server = await failing(2, '503 X')
    await using upstream = openUpstream()
    const response = await upstream.ask(server.url, { method: 'POST', body: '' })
    expect([response.status, server.requests.length]).toEqual([503, 1])
  })

  test('no sooner than Retry-After says', async () => {
    const clock = createTestClock()
    await using server = await failing(1, '429 X', { 'retry-after': '3' })
    await using upstream = openUpstream({ clock })
    const answer = upstream.ask(server.url)
    await until(() => upstream.stats().retries === 1, 'it waits')
    clock.advance(2_999)
    expect(server.requests.length).toBe(1)
    clock.advance(1)
    expect(await (await answer).text()).toBe('yes')
  })

  test('Retry-After is a time by the clock of who says so', async () => {
    const headers = {
      date: 'Thu, 01 Jan 2037 00:00:00 GMT',
      'retry-after': 'Thu, 01 Jan 2037 00:00:00 GMT',
    }
    await using server = await failing(1, '503 X', headers)
    await using upstream = openUpstream({ random: () => 0 })
    expect(await (await upstream.ask(server.url)).text()).toBe('yes')
  })

  test('not when Retry-After says much later, or later than the deadline', async () => {
    await using server = await failing(9, '429 X', { 'retry-after': '60' })
    await using upstream = openUpstream()
    expect((await upstream.ask(server.url)).headers.get('retry-after')).toBe('60')
    await using other = await failing(9, '429 X', { 'retry-after': '5' })
    expect((await upstream.ask(other.url, { deadlineMs: 4_000 })).status).toBe(429)
    expect([server.requests.length, other.requests.length]).toEqual([1, 1])
  })

  test('after a connection that was cut', async () => {
    await using server = await rawServer((socket, _, nth) => {
      if (nth === 0) socket.destroy()
      else socket.write(wire('200 OK', {}, 'yes'))
    })
    await using upstream = openUpstream()
    expect(await (await upstream.ask(server.url)).text()).toBe('yes')
  })
})

describe('redirects', () => {
  test('are followed, from a POST by a GET unless the status says that it stays one', async () => {
    await using server = await rawServer((socket, head) => {
      const [method, path] = head.split(' ')
      const to: Record<string, string> = { '/302': '302 X', '/303': '303 X', '/307': '307 X' }
      const status = to[path ?? '']
      const answer = status ? wire(status, { location: '/end' }) : wire('200 OK', {}, method)
      socket.write(answer)
    })
    await using upstream = openUpstream()
    const ask = async (path: string) =>
      await (await upstream.ask(server.url + path, { method: 'POST', body: '' })).text()
    expect([await ask('/302'), await ask('/303'), await ask('/307')]).toEqual([
      'GET',
      'GET',
      'POST',
    ])
  })

  test('at most five', async () => {
    await using server = await rawServer(
      (socket, _, nth) => void socket.write(wire('302 X', { location: `/${nth}` })),
    )
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.ask(server.url, { retries: 0 }))
    expect(fault.message).toBe(`127.0.0.1:${server.port} redirects more than 5 times`)
    expect(server.requests.length).toBe(6)
  })

  test('or none, if that is what is wanted', async () => {
    await using server = await rawServer(
      (socket) => void socket.write(wire('302 X', { location: '/x' })),
    )
    await using upstream = openUpstream()
    const response = await upstream.ask(server.url, { redirect: 'manual' })
    expect([response.status, response.headers.get('location')]).toEqual([302, '/x'])
  })
})

describe('what has a validator', () => {
  const provider = (headers: Record<string, string>) =>
    rawServer((socket, head) => {
      const isKnown = /if-none-match: "1"|if-modified-since: Mon/i.test(head)
      socket.write(isKnown ? wire('304 X', { 'x-new': '1' }) : wire('200 OK', headers, 'body'))
    })

  test.each([
    ['an ETag', { etag: '"1"' }],
    ['a date', { 'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT' }],
  ])('is asked for by %s, and 304 gives what is kept', async (_, headers) => {
    await using server = await provider(headers)
    await using upstream = openUpstream()
    for (let n = 0; n < 3; n++) {
      const response = await upstream.ask(server.url)
      expect([response.status, await response.text()]).toEqual([200, 'body'])
    }
    expect([server.requests.length, upstream.stats().notModified]).toEqual([3, 2])
  })

  test('and 304 gives what was kept when it was asked, whatever has come since', async () => {
    const held = Promise.withResolvers<void>()
    await using server = await rawServer((socket, _, nth) => {
      if (nth === 0) socket.write(wire('200 OK', { etag: '"1"' }, 'body'))
      else if (nth === 1) {
        void held.promise.then(() => socket.write(wire('304 X', {})))
      } else socket.write(wire('200 OK', {}, 'new, and without'))
    })
    await using upstream = openUpstream()
    const url = `${server.url}/x`
    await upstream.ask(url)
    const asking = upstream.ask(url)
    await until(() => server.requests.length === 2, 'it is asked')
    await upstream.ask(url, { bytesMax: 100 })
    held.resolve()
    const response = await asking
    expect([response.status, await response.text()]).toEqual([200, 'body'])
  })

  test('but for who says no-store, asks with other headers, or has conditions of his own', async () => {
    await using server = await provider({ etag: '"1"', 'cache-control': 'private, no-store' })
    await using upstream = openUpstream()
    for (let n = 0; n < 2; n++) await upstream.ask(server.url)
    await using kept = await provider({ etag: '"1"' })
    await upstream.ask(kept.url)
    await upstream.ask(kept.url, { headers: { accept: 'a/b' } })
    expect(upstream.stats().notModified).toBe(0)
    const own = await upstream.ask(kept.url, { headers: { 'if-none-match': '"1"' } })
    expect(own.status).toBe(304)
  })
})

describe('under a budget', () => {
  const plan: BudgetPlan = {
    name: 'b',
    rate: { quota: 2, windowMs: 1_000 },
    burst: 0,
    keys: () => 'k1',
    header: 'x-api-key',
    queueMax: 10,
    quota: undefined,
    timeoutMs: 60_000,
  }

  /** Time goes when it is told to. */
  function open(
    clock: TestClock,
    changed: Partial<BudgetPlan> = {},
    shares: Shares = createSharesAlone(),
  ) {
    const log = createTestLog()
    const plans = [{ ...plan, ...changed }]
    const budgets = createBudgets(
      {
        ...{ clock, log, env: {}, shares, isAlone: false },
        allowances: {
          now: () => Promise.resolve(0),
          draw: () => Promise.reject(new Error('none')),
        },
      },
      plans,
    )
    void budgets.start?.()
    const upstream = createUpstream({ clock, log, budgets, random: () => 0 }, plans)
    const ask = (url: string, init = {}) =>
      upstream.fetch(url, { budget: 'b', allowPrivate: true, timeoutMs: 60_000, ...init })
    return { budgets, upstream, ask }
  }

  /** Until it is true, and time goes on meanwhile. */
  const goOn = (clock: TestClock, isThere: () => boolean) =>
    until(() => {
      clock.advance(50)
      return isThere()
    }, 'it happens')

  test('each call has its key, each try and each hop a turn of its own', async () => {
    const clock = createTestClock()
    const times: number[] = []
    await using server = await rawServer((socket, _, nth) => {
      times.push(clock.tick())
      const answers = [
        wire('302 X', { location: '/next' }),
        wire('503 X', {}),
        wire('200 X', {}, 'ok'),
      ]
      socket.write(answers[nth] ?? wire('200 X', {}, 'ok'))
    })
    const { ask, budgets } = open(clock)
    let text: string | undefined
    void ask(server.url).then(async (response) => (text = await response.text()))
    await goOn(clock, () => text !== undefined)
    expect(server.requests.length).toBe(3)
    expect(server.requests.every((head) => /x-api-key: k1/i.test(head))).toBe(true)
    // In no second more than two.
    for (const [at, time] of times.entries()) {
      expect((times[at + 2] ?? Infinity) - time).toBeGreaterThanOrEqual(1_000)
    }
    expect(budgets.stats()[0]?.keys[0]?.calls).toBe(3)
    await budgets.stop()
  })

  test('equal GETs that wait are one call, and the most urgent of them tells when', async () => {
    const clock = createTestClock()
    const order: string[] = []
    await using server = await rawServer((socket, head) => {
      order.push(head.split(' ')[1] ?? '')
      socket.write(wire('200 X', {}, 'ok'))
    })
    const { ask, budgets, upstream } = open(clock, { rate: { quota: 1, windowMs: 1_000 } })
    const all = [ask(`${server.url}/first`)]
    await until(() => order.length === 1, 'the first is sent')
    all.push(ask(`${server.url}/low`, { priority: 'low' }), ask(`${server.url}/normal`))
    await until(() => budgets.stats()[0]?.waiting === 2, 'two wait')
    all.push(ask(`${server.url}/low`, { priority: 'high' }))
    await goOn(clock, () => order.length === 3)
    await Promise.all(all)
    expect(order).toEqual(['/first', '/low', '/normal'])
    expect(upstream.stats().coalesced).toBe(1)
    await budgets.stop()
  })

  test('who leaves gives its place in the queue to others', async () => {
    const clock = createTestClock()
    await using server = await rawServer((socket) => void socket.write(wire('200 X', {}, 'ok')))
    const { ask, budgets } = open(clock)
    await ask(`${server.url}/1`)
    const abort = new AbortController()
    const left = ask(`${server.url}/2`, { signal: abort.signal })
    await until(() => budgets.stats()[0]?.waiting === 1, 'it waits')
    abort.abort(new Error('enough'))
    await expect(left).rejects.toThrow('enough')
    await until(() => budgets.stats()[0]?.waiting === 0, 'it waits no more')
    expect(server.requests.length).toBe(1)
    await budgets.stop()
  })

  test('a key may go anywhere in the request, but not to another origin', async () => {
    await using other = await rawServer((socket) => void socket.write(wire('200 X', {}, 'ok')))
    await using server = await rawServer(
      (socket) => void socket.write(wire('302 X', { location: other.url })),
    )
    const header: BudgetPlan['header'] = (key, init) => {
      const headers = new Headers(init.headers)
      headers.set('x-signed', `${key}!`)
      return { ...init, headers }
    }
    const { ask, budgets } = open(createTestClock(), { header, burst: 10 })
    await ask(server.url)
    expect(server.requests[0]).toMatch(/x-signed: k1!/i)
    expect(other.requests[0]).not.toMatch(/k1/)
    await budgets.stop()
  })

  test('a breaker that is open costs no turn', async () => {
    const provider = startFakeUpstream({ limit: 1_000_000 })
    await using _ = provider
    provider.fault = { kind: 'status', status: 500 }
    const clock = createTestClock()
    const { ask, budgets, upstream } = open(clock, {
      rate: { quota: 1_000, windowMs: 1_000 },
      burst: 100,
    })
    const isOpen = () => upstream.stats().origins[0]?.isOpen === true
    for (let n = 0; n < 5 && !isOpen(); n++) {
      const answered = ask(`${provider.url}/${n}`, { retries: 0 })
      let isThere = false
      void answered.then(() => (isThere = true))
      await goOn(clock, () => isThere)
    }
    expect(isOpen()).toBe(true)
    const before = provider.arrivals.length
    const fault = await faultOf(() => ask(`${provider.url}/x`))
    expect([fault.code, provider.arrivals.length]).toEqual(['unavailable', before])
    expect(fault.retryAfterMs).toBeGreaterThan(0)
    expect(budgets.stats()[0]?.keys[0]?.calls).toBe(before)
    await budgets.stop()
  })

  test('while there are no turns, it waits as long as one waits for one, once', async () => {
    await using server = await rawServer((socket) => void socket.write(wire('200 X', {}, 'ok')))
    const clock = createTestClock()
    const none = {
      ...{ units: 0, restsUntil: 0, rest() {} },
      ...{ leave: () => Promise.resolve(), onChange() {} },
    }
    const { ask, budgets, upstream } = open(clock, {}, { join: () => none, stop() {} })
    const asked = faultOf(() => ask(server.url))
    await until(() => budgets.stats()[0]?.waiting === 1, 'it waits')
    clock.advance(30_000)
    expect((await asked).message).toBe('budget b: no turn within 30000 ms')
    expect([upstream.stats().retries, server.requests.length]).toEqual([0, 0])
    expect(upstream.stats().origins[0]?.failures).toBe(0)
    await budgets.stop()
  })

  test('a turn that was had before is the first call’s; dropped, it is nobody’s', async () => {
    await using server = await rawServer((socket) => void socket.write(wire('200 X', {}, 'ok')))
    const { budgets, upstream } = open(createTestClock(), { burst: 10 })
    const calls = () => budgets.stats()[0]?.keys[0]?.calls
    const turn = await upstream.turn('b', { priority: 'normal' })
    await upstream.fetch(server.url, { budget: 'b', allowPrivate: true }, turn)
    turn.drop()
    expect([calls(), server.requests.length]).toEqual([1, 1])
    const other = await upstream.turn('b', { priority: 'normal' })
    other.drop()
    await upstream.fetch(server.url, { budget: 'b', allowPrivate: true }, other)
    expect([calls(), server.requests.length]).toEqual([3, 2])
    await budgets.stop()
  })

  test('a turn that was held for longer than its call may take is not sent with', async () => {
    await using server = await rawServer((socket) => void socket.write(wire('200 X', {}, 'ok')))
    const clock = createTestClock()
    const { budgets, upstream } = open(clock, { burst: 10, timeoutMs: 5_000 })
    const turn = await upstream.turn('b', { priority: 'normal' })
    clock.advance(5_000)
    await upstream.fetch(server.url, { budget: 'b', allowPrivate: true }, turn)
    expect(server.requests).toHaveLength(1)
    expect(budgets.stats()[0]?.keys[0]?.calls).toBe(2)
    await budgets.stop()
  })
})

test('a stop ends what is under way, and nothing begins after it', async () => {
  const { server, waiting } = await gate()
  await using _ = server
  const upstream = openUpstream({ clock: systemClock })
  const asked = faultOf(() => upstream.ask(server.url))
  await until(() => waiting.length === 1, 'it is asked')
  await upstream.stop()
  expect((await asked).message).toBe('the server stops')
  expect((await faultOf(() => upstream.ask(server.url))).message).toBe('the server stops')
})
