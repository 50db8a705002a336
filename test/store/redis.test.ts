import { describe, expect, test } from 'bun:test'
import { createBreaker } from '../../src/lib/breaker.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { breakerOptions, scriptOf } from '../../src/store/redis.ts'
import { describeFailure } from '../../src/store/redis-link.ts'
import { openRedis } from '../cache/redis.ts'
import { createTestClock } from '../clock.ts'
import { faultOf, until } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { freePort, requireService, startRedis } from '../services.ts'

describe('the breaker', () => {
  const closed = () => {
    const clock = createTestClock()
    const breaker = createBreaker({ clock }, breakerOptions)
    breaker.close()
    return { clock, breaker }
  }

  test('is open until a probe was answered, which may be at once', () => {
    const breaker = createBreaker({ clock: createTestClock() }, breakerOptions)
    expect([breaker.isClosed, breaker.isProbeDue, breaker.opened]).toEqual([false, true, 0])
    breaker.close()
    expect([breaker.isClosed, breaker.isProbeDue, breaker.opened]).toEqual([true, false, 0])
  })

  test('one time-out opens it for a second', () => {
    const { clock, breaker } = closed()
    breaker.trip()
    clock.advance(999)
    expect([breaker.isClosed, breaker.isProbeDue]).toEqual([false, false])
    clock.advance(1)
    expect([breaker.isClosed, breaker.isProbeDue]).toEqual([false, true])
  })

  test('five failures in a row open it, four and a success do not', () => {
    const { breaker } = closed()
    const fails = (count: number): boolean[] => Array.from({ length: count }, () => breaker.fail())
    expect(fails(4)).toEqual([false, false, false, false])
    breaker.succeed()
    expect(fails(5)).toEqual([false, false, false, false, true])
    expect([breaker.isClosed, breaker.isProbeDue, breaker.opened]).toEqual([false, false, 1])
  })

  test('a lost connection does not shorten the window of a time-out', () => {
    const { clock, breaker } = closed()
    breaker.trip()
    breaker.doubt()
    expect([breaker.isProbeDue, breaker.opened]).toEqual([false, 1])
    clock.advance(1_000)
    expect(breaker.isProbeDue).toBe(true)
  })
})

test('what is said of a failure has no password in it, one line, and an end', () => {
  const target = { host: 'a', port: 1, password: 'hunter2' }
  const error = new Error(`ERR unknown command 'AUTH', with args: 'hunter2'\n${'x'.repeat(999)}`)
  expect(describeFailure(error, target)).toBe("ERR unknown command 'AUTH', with args: '***'")
  expect(describeFailure(new Error('x'.repeat(999)), target).length).toBe(200)
  expect(describeFailure('odd', { host: 'a', port: 1 })).toBe('odd')
})

/** Takes connections and never says a word. */
function listenSilently(port: number) {
  const counts = { taken: 0, left: 0 }
  const listener = Bun.listen({
    hostname: '127.0.0.1',
    port,
    socket: {
      open: () => void counts.taken++,
      close: () => void counts.left++,
      data: () => undefined,
    },
  })
  return Object.assign(counts, { port: listener.port, stop: () => listener.stop(true) })
}

describe.skipIf(!requireService('redis-server'))('a connection to Redis', () => {
  test('bytes, claims, deletes', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { redis } = opened
    const value = new Uint8Array([0, 255, 13, 10, 128])
    expect(await redis.get('a')).toBeUndefined()
    expect(await redis.set('a', value, 10_000)).toBe('kept')
    expect(new Uint8Array((await redis.get('a')) ?? [])).toEqual(value)
    await redis.delete('a')
    expect(await redis.get('a')).toBeUndefined()
    expect([await redis.claim('b', 10_000), await redis.claim('b', 10_000)]).toEqual([true, false])
    expect(redis.stats()).toMatchObject({ pending: 0, pendingBytes: 0, failures: 0, connects: 1 })
  })

  test('a script runs as one step, in order, known or not; its error is a fault', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { redis } = opened
    const add = scriptOf(`return {redis.call('RPUSH', KEYS[1], ARGV[1]), 'é' .. ARGV[1]}`)
    const first = await Promise.all([1, 2, 3].map((n) => redis.script(add, ['list'], [n])))
    expect(first).toEqual([
      [1, 'é1'],
      [2, 'é2'],
      [3, 'é3'],
    ])
    const admin = new Bun.RedisClient(server.url)
    await admin.send('SCRIPT', ['FLUSH'])
    await Promise.all(['4', '5'].map((n) => redis.script(add, ['list'], [n])))
    expect(await admin.send('LRANGE', ['list', '0', '-1'])).toEqual(['1', '2', '3', '4', '5'])
    admin.close()
    const wrong = scriptOf(`return redis.call('GET', KEYS[1])`)
    expect((await faultOf(() => redis.script(wrong, ['list'], []))).code).toBe('unavailable')
    expect(redis.isUp).toBeTrue()
  })

  test('user, password and database of the URL are used, and a wrong password is not logged', async () => {
    await using server = await startRedis()
    const admin = new Bun.RedisClient(server.url)
    await admin.send('ACL', ['SETUSER', 'me', 'on', '>p@:ss', '~*', '&*', '+@all'])
    await admin.send('CONFIG', ['SET', 'requirepass', 'other'])
    const at = `127.0.0.1:${server.port}`
    {
      await using mine = await openRedis(`redis://me:p%40%3Ass@${at}/3`)
      await mine.redis.set('a', new Uint8Array([1]), 10_000)
      await using again = await openRedis(`redis://:other@${at}/3`)
      expect((await again.redis.get('a'))?.length).toBe(1)
      await using elsewhere = await openRedis(`redis://:other@${at}/4`)
      expect(await elsewhere.redis.get('a')).toBeUndefined()
    }
    await using wrong = await openRedis(`redis://me:hunter2@${at}`, { isUp: false })
    await using noDatabase = await openRedis(`redis://:other@${at}/9999`, { isUp: false })
    await until(() => wrong.log.lines.length > 0 && noDatabase.log.lines.length > 0, 'it is told')
    expect([wrong.redis.isUp, noDatabase.redis.isUp]).toEqual([false, false])
    expect(wrong.log.lines[0]).toMatchObject({
      level: 'warn',
      event: 'redis.away',
      fields: { cause: expect.stringContaining('WRONGPASS') },
    })
    expect(JSON.stringify(wrong.log.lines)).not.toContain('hunter2')
    expect(noDatabase.log.lines[0]?.fields['cause']).toContain('out of range')
    admin.close()
  })

  test('what is too much at once is refused at once, and the rest is answered', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port, { commandMs: 100 })
    const { redis } = opened
    server.pause()
    const sizes = Array.from({ length: 10_050 }, (_, index) => redis.get(`k${index}`))
    expect(redis.stats()).toMatchObject({ pending: 10_000, skipped: 50 })
    const ends = await Promise.allSettled(sizes)
    expect(ends.every(({ status }) => status === 'rejected')).toBe(true)
    server.resume()
    await until(() => redis.isUp, 'it is up again')
    const large = new Uint8Array(20 * 1024 * 1024)
    const [first, second] = await Promise.allSettled([
      redis.set('a', large, 1_000),
      redis.set('b', large, 1_000),
    ])
    expect(second).toMatchObject({ reason: { message: 'too much is on its way to redis' } })
    expect(first.status === 'fulfilled' || redis.stats().timeouts > 10_000).toBe(true)
    expect(redis.stats()).toMatchObject({ pending: 0, pendingBytes: 0 })
  })

  test('a look that is late by our own fault is followed by another, and only one', async () => {
    let now = 0
    const timers: (() => void)[] = []
    const clock: Clock = {
      ...createTestClock(),
      tick: () => now,
      after(_, run) {
        timers.push(run)
        return () => undefined
      },
    }
    const lookAt = (ms: number): void => {
      now = ms
      timers.pop()?.()
    }
    await using server = await startRedis()
    await using opened = await openRedis(server.port, { clock, commandMs: 100 })
    const { redis } = opened

    server.pause()
    const first = redis.get('a')
    lookAt(250)
    expect(redis.stats()).toMatchObject({ pending: 1, isUp: true })
    server.resume()
    expect(await first).toBeUndefined()

    server.pause()
    lookAt(300)
    const second = redis.get('a')
    lookAt(500)
    expect(redis.stats()).toMatchObject({ pending: 1, isUp: true })
    lookAt(900)
    expect(await faultOf(() => second)).toMatchObject({ code: 'timeout' })
    expect(redis.stats()).toMatchObject({ timeouts: 1, pending: 0, isUp: false })
  })

  test('who takes the connection and never says a word is left, and tried again', async () => {
    const silent = listenSilently(0)
    await using opened = await openRedis(silent.port, { isUp: false })
    await until(() => silent.taken === 2, 'it has been tried again')
    expect(silent.left).toBe(1)
    expect(opened.redis.stats()).toMatchObject({ connects: 0, commands: 0, isUp: false })
    silent.stop()
  })

  test('errors about keys: five in a row open the breaker, a probe closes it', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { redis } = opened
    const admin = new Bun.RedisClient(server.url)
    await admin.send('LPUSH', ['list', 'a'])
    for (let i = 0; i < 5; i++) {
      expect((await faultOf(() => redis.get('list'))).message).toContain('WRONGTYPE')
    }
    expect(await faultOf(() => redis.get('a'))).toMatchObject({ message: 'redis is away' })
    await until(() => redis.isUp, 'it is up again')
    expect(await redis.get('a')).toBeUndefined()
    admin.close()
  })

  test('a replica that refuses writes is left for whoever is primary now', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { redis } = opened
    const admin = new Bun.RedisClient(server.url)
    await admin.send('REPLICAOF', ['127.0.0.1', '1'])
    expect(await redis.set('a', new Uint8Array(1), 1_000)).toBe('refused')
    await admin.send('REPLICAOF', ['NO', 'ONE'])
    await until(() => redis.stats().connects === 2 && redis.isUp, 'a new connection')
    expect(await redis.set('a', new Uint8Array(1), 1_000)).toBe('kept')
    admin.close()
  })

  describe('stop', () => {
    /** As in src/store/redis-link.ts: it stops waiting for sockets to close. Here it would never. */
    const stopMs = 500
    const after: Clock['after'] = (ms, run) =>
      ms === stopMs ? () => undefined : systemClock.after(ms, run)
    const stopped = async (server: number | string): Promise<void> => {
      const opened = await openRedis(server, { isUp: false, clock: { ...systemClock, after } })
      await opened.redis.stop()
      expect(opened.redis.isUp).toBe(false)
      expect(await faultOf(() => opened.redis.get('a'))).toMatchObject({ code: 'unavailable' })
      await opened.redis.stop()
    }

    test('while it connects, to nobody, to a silent one, when up: soon, and for good', async () => {
      await using server = await startRedis()
      await using link = await startProxy({ target: server.port })
      await stopped(server.port)
      await stopped(await freePort())
      link.halfOpen()
      await stopped(link.port)
      await using up = await openRedis(server.port)
      const asked = up.redis.get('a').catch(() => 'given up')
      await up.redis.stop()
      expect(await asked).toBeOneOf([undefined, 'given up'])
    })

    test('while it waits to try again: it does not', async () => {
      const clock = createTestClock()
      const port = await freePort()
      const opened = await openRedis(port, { isUp: false, clock })
      await until(() => opened.log.lines.length > 0, 'it has tried')
      await opened.redis.stop()
      const silent = listenSilently(port)
      clock.advance(60_000)
      await Bun.sleep(50)
      expect(silent.taken).toBe(0)
      silent.stop()
    })
  })
})

describe.skipIf(!requireService('redis-server'))('news over Redis', () => {
  const listen = (opened: Awaited<ReturnType<typeof openRedis>>, channel = 'log') => {
    const heard: string[] = []
    const counts = { ready: 0 }
    const end = opened.redis.subscribe(
      channel,
      (text) => void heard.push(text),
      () => void counts.ready++,
    )
    return { heard, counts, end }
  }

  test('what one publishes the others hear, each channel its own, until they end it', async () => {
    await using server = await startRedis()
    await using one = await openRedis(server.port)
    await using two = await openRedis(server.port)
    const [log, other] = [listen(two), listen(two, 'other')]
    await until(() => log.counts.ready === 1 && other.counts.ready === 1, 'both listen')
    one.redis.publish('log', '42 é')
    one.redis.publish('other', '1')
    await until(() => log.heard.length === 1 && other.heard.length === 1, 'both have heard')
    expect([log.heard, other.heard]).toEqual([['42 é'], ['1']])
    log.end()
    one.redis.publish('log', '43')
    one.redis.publish('other', '2')
    await until(() => other.heard.length === 2, 'the other goes on')
    expect(log.heard).toEqual(['42 é'])
  })

  test('after each gap `onReady` is called, once listening has begun: restarted, cut, swallowed', async () => {
    await using server = await startRedis()
    await using link = await startProxy({ target: server.port })
    await using one = await openRedis(server.port)
    await using two = await openRedis(link.port)
    const { heard, counts } = listen(two)
    await until(() => counts.ready === 1, 'listens')

    const isHeard = async (text: string): Promise<void> => {
      await until(() => one.redis.isUp, 'can be told')
      one.redis.publish('log', text)
      await until(() => heard.includes(text), `heard ${text}`, 1_000)
    }
    await isHeard('first')
    await server.restart()
    await until(() => counts.ready === 2, 'listens after a restart')
    await isHeard('restarted')
    link.cut()
    await until(() => !two.redis.stats().isListening, 'knows it hears nothing')
    link.resume()
    await until(() => counts.ready === 3, 'listens after a cut')
    await isHeard('cut')
    link.halfOpen()
    one.redis.publish('log', 'swallowed')
    await until(() => !two.redis.stats().isListening, 'knows it hears nothing')
    link.resume()
    await until(() => counts.ready === 4, 'listens after a hole')
    await isHeard('healed')
    expect(heard).toEqual(['first', 'restarted', 'cut', 'healed'])
  })

  test('who may not subscribe is deaf, says so, and still has its answers', async () => {
    await using server = await startRedis()
    const admin = new Bun.RedisClient(server.url)
    await admin.send('ACL', ['SETUSER', 'me', 'on', '>pw', '~*', '+@all', 'resetchannels'])
    await using opened = await openRedis(`redis://me:pw@127.0.0.1:${server.port}`)
    const { counts } = listen(opened)
    opened.redis.publish('log', '1')
    await until(() => opened.log.lines.some(({ event }) => event === 'redis.deaf'), 'it is told')
    expect([counts.ready, opened.redis.stats().isListening]).toEqual([0, false])
    expect(await opened.redis.set('a', new Uint8Array(1), 1_000)).toBe('kept')
    admin.close()
  })
})
