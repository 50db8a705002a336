import { describe, expect, test } from 'bun:test'
import type { CollectionPlan } from '../../src/collections/collections.ts'
import { until } from '../harness.ts'
import { keyed, prices, setUp } from './setup.ts'

const fcas = { path: 'fcas' } as CollectionPlan

describe('feeds', () => {
  test('rows go into their collections, in one write', async () => {
    const { feeds, upserts } = setUp({
      into: [prices, fcas],
      load: ({ env }) => ({ prices: [{ a: env['UPSTREAM'] }], fcas: [{ b: 1 }] }),
    })
    await feeds.tick('f')
    expect(upserts).toEqual([
      [
        { plan: prices, rows: [{ a: 'x' }] },
        { plan: fcas, rows: [{ b: 1 }] },
      ],
    ])
  })

  test('a value is published when it differs from the last one', async () => {
    let value = 1
    const { feeds, published } = setUp({ publish: 'stats', load: () => ({ value }) })
    await feeds.tick('f')
    await feeds.tick('f')
    value = 2
    await feeds.tick('f')
    expect(published).toEqual([
      ['stats', { value: 1 }],
      ['stats', { value: 2 }],
    ])
  })

  test('ticks from start to start, and never beside itself', async () => {
    const pending: PromiseWithResolvers<null>[] = []
    const load = () => {
      const one = Promise.withResolvers<null>()
      pending.push(one)
      return one.promise
    }
    const { clock, feeds } = setUp({ load, timeoutMs: 60_000 })
    feeds.start()
    expect(pending.length).toBe(1)
    clock.advance(5_000)
    expect(pending.length).toBe(1)
    pending[0]?.resolve(null)
    await until(() => {
      clock.advance(0)
      return pending.length === 2
    }, 'the late tick starts at once')
    pending[1]?.resolve(null)
    await Bun.sleep(0)
    clock.advance(999)
    expect(pending.length).toBe(2)
    clock.advance(1)
    expect(pending.length).toBe(3)
    await feeds.stop()
  })

  test('a failing tick is logged once a while, and the next one comes all the same', async () => {
    let calls = 0
    const { clock, log, feeds } = setUp({
      load: () => {
        calls++
        throw new Error('upstream is down')
      },
    })
    feeds.start()
    await until(() => {
      clock.advance(1_000)
      return calls > 20
    }, 'it goes on')
    expect(log.lines.filter(({ event }) => event === 'feed.failed').length).toBe(1)
    await feeds.stop()
  })

  test('a load that hangs is given up, and told so by its signal', async () => {
    let reason: unknown
    const { clock, feeds } = setUp({
      load: ({ signal }) =>
        new Promise(() => signal.addEventListener('abort', () => (reason = signal.reason))),
    })
    const tick = feeds.tick('f')
    clock.advance(500)
    await expect(tick).rejects.toThrow('feed f took over 500 ms')
    expect(String(reason)).toContain('took over')
  })

  test('an every that is too short, or no duration, in this environment stops the start', () => {
    for (const every of ['0.001ms', '10ms', 'soon']) {
      expect(() => setUp({ every: () => every as never })).toThrow('the app file has one problem')
    }
    const cron = { cron: '@hourly' }
    expect(() => setUp({ keyed, every: () => cron })).toThrow('the app file has one problem')
    expect(() => setUp({ every: () => cron })).not.toThrow()
  })

  test('in an overload ticks are further apart', async () => {
    let [ticks, factor] = [0, 4]
    const load = () => void ticks++
    const { clock, feeds } = setUp({ load }, { slowdown: () => factor })
    feeds.start()
    await Bun.sleep(0)
    clock.advance(3_999)
    expect(ticks).toBe(1)
    factor = 1
    clock.advance(1)
    expect(ticks).toBe(2)
    await Bun.sleep(0)
    clock.advance(1_000)
    expect(ticks).toBe(3)
    await feeds.stop()
  })

  test('what is no array of rows is refused by name', async () => {
    const { feeds } = setUp({ into: [prices], isSingle: true, load: () => ({ rows: [] }) })
    await expect(feeds.tick('f')).rejects.toThrow('feed f gave no array of rows for prices')
  })
})
