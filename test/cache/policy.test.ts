/** What every eviction policy must keep to, against a model; and what is S3-FIFO's own. */
import { describe, expect, test } from 'bun:test'
import { createGhosts } from '../../src/cache/ghosts.ts'
import { createS3Fifo } from '../../src/cache/policy-s3fifo.ts'
import type { Bounds, CreatePolicy, Policy } from '../../src/cache/policy.ts'
import { createLru } from '../bench/policies/lru.ts'
import { createSieve } from '../bench/policies/sieve.ts'
import { createTinyLfu } from '../bench/policies/tiny-lfu.ts'
import { createRandom, type Random } from '../lib/random.ts'

const policies: [name: string, create: CreatePolicy][] = [
  ['S3-FIFO', createS3Fifo],
  ['LRU', createLru],
  ['SIEVE', createSieve],
  ['W-TinyLFU', createTinyLfu],
]

interface Value {
  readonly version: number
  readonly bytes: number
}

/** Does at random what callers do, and checks after each step all that can be seen from outside. */
function exercise(create: CreatePolicy, bounds: Bounds, random: Random, steps: number): void {
  const policy: Policy<Value> = create(bounds)
  // What was set last and not deleted: the policy holds a part of it.
  const model = new Map<string, Value>()
  let [added, removed] = [0, 0]

  for (let step = 0; step < steps; step++) {
    // Few hot ones, many cold ones.
    const key = `k${Math.floor(60 * random.next() ** 3)}`
    const isKept = [...policy.keys()].includes(key)
    switch (random.below(5)) {
      case 0:
        expect(policy.delete(key)).toBe(isKept)
        if (isKept) removed++
        model.delete(key)
        break
      case 1:
      case 2: {
        const bytes = 1 + random.below(random.below(10) === 0 ? 80 : 20)
        const isTooLarge = bytes > Math.min(bounds.entryBytesMax, bounds.bytesMax)
        policy.set(key, { version: step, bytes }, bytes)
        if (isTooLarge) model.delete(key)
        else model.set(key, { version: step, bytes })
        if (isTooLarge && isKept) removed++
        if (!isTooLarge && !isKept) added++
        break
      }
      default:
        expect(policy.get(key)).toEqual(isKept ? model.get(key) : undefined)
    }
    const keys = [...policy.keys()]
    expect(policy.size).toBe(keys.length)
    expect(new Set(keys).size).toBe(keys.length)
    expect(policy.bytes).toBe(keys.reduce((sum, one) => sum + (model.get(one)?.bytes ?? NaN), 0))
    expect(policy.size).toBeLessThanOrEqual(bounds.entriesMax)
    expect(policy.bytes).toBeLessThanOrEqual(bounds.bytesMax)
    expect(policy.evictions).toBe(added - removed - policy.size)
  }
}

describe.each(policies)('%s', (_name, create) => {
  const boundsOf: [what: string, bounds: Bounds][] = [
    ['entries', { entriesMax: 20, bytesMax: 10_000, entryBytesMax: 60 }],
    ['bytes', { entriesMax: 1000, bytesMax: 200, entryBytesMax: 60 }],
    ['both', { entriesMax: 12, bytesMax: 150, entryBytesMax: 1000 }],
    ['one entry', { entriesMax: 1, bytesMax: 40, entryBytesMax: 30 }],
    ['bytes for one', { entriesMax: 10, bytesMax: 20, entryBytesMax: 20 }],
  ]
  test.each(boundsOf)('keeps to its bounds and tells no old value: %s', (_what, bounds) => {
    for (let seed = 1; seed <= 4; seed++) exercise(create, bounds, createRandom(seed), 400)
  })

  test('keeps everything while there is room', () => {
    const policy = create<number>({ entriesMax: 100, bytesMax: 1000, entryBytesMax: 10 })
    for (let n = 0; n < 100; n++) policy.set(`k${n}`, n, 10)
    for (let n = 0; n < 100; n++) expect(policy.get(`k${n}`)).toBe(n)
    expect(policy.evictions).toBe(0)
  })

  test('replacing a value counts its bytes once, and a smaller one gives room back', () => {
    const policy = create<number>({ entriesMax: 10, bytesMax: 100, entryBytesMax: 100 })
    for (let n = 0; n < 50; n++) policy.set('k', n, 10 + n)
    expect([policy.bytes, policy.size, policy.evictions]).toEqual([59, 1, 0])
    policy.set('k', 50, 5)
    expect([policy.bytes, policy.get('k')]).toEqual([5, 50])
  })

  test('what is too large is not kept, and neither is what it was to replace', () => {
    const policy = create<number>({ entriesMax: 10, bytesMax: 100, entryBytesMax: 50 })
    policy.set('k', 1, 50)
    policy.set('other', 2, 50)
    policy.set('k', 3, 51)
    expect(policy.get('k')).toBeUndefined()
    expect(policy.get('other')).toBe(2)
    expect([policy.size, policy.bytes, policy.evictions]).toEqual([1, 50, 0])
  })

  test('keys() names the hot ones first', () => {
    const policy = create<number>({ entriesMax: 100, bytesMax: 1000, entryBytesMax: 10 })
    for (let n = 0; n < 100; n++) policy.set(`k${n}`, n, 1)
    for (let round = 0; round < 3; round++) {
      for (const hot of ['k10', 'k50', 'k90']) policy.get(hot)
    }
    expect([...policy.keys()].slice(0, 3).toSorted()).toEqual(['k10', 'k50', 'k90'])
  })
})

describe('S3-FIFO', () => {
  const bounds = { entriesMax: 100, bytesMax: 1e6, entryBytesMax: 1e6 }
  const scan = (policy: Policy<number>, name: string, keys: number): void => {
    for (let n = 0; n < keys; n++) policy.set(`${name}${n}`, n, 1)
  }
  const askTwice = (policy: Policy<number>, key: string): void => {
    policy.set(key, 0, 1)
    policy.get(key)
    policy.get(key)
  }

  test('a crawler pushes out nothing that was asked for twice', () => {
    const policy = createS3Fifo<number>(bounds)
    for (let n = 0; n < 80; n++) askTwice(policy, `hot${n}`)
    scan(policy, 'crawled', 10_000)
    const kept = Array.from({ length: 80 }, (_, n) => policy.get(`hot${n}`) !== undefined)
    expect(kept.filter(Boolean).length).toBe(80)
  })

  test('a crawler of large pages pushes out nothing either', () => {
    const policy = createS3Fifo<number>({ entriesMax: 1000, bytesMax: 10_000, entryBytesMax: 1000 })
    for (let n = 0; n < 80; n++) {
      policy.set(`hot${n}`, n, 100)
      policy.get(`hot${n}`)
      policy.get(`hot${n}`)
    }
    for (let n = 0; n < 1000; n++) policy.set(`crawled${n}`, n, 1000)
    const kept = Array.from({ length: 80 }, (_, n) => policy.get(`hot${n}`) !== undefined)
    expect(kept.filter(Boolean).length).toBe(80)
  })

  test('when all are hot, one leaves all the same, and newcomers still have to show themselves', () => {
    const policy = createS3Fifo<number>({ ...bounds, entriesMax: 1000 })
    for (let n = 0; n < 1000; n++) askTwice(policy, `hot${n}`)
    for (let n = 0; n < 1000; n++) {
      policy.set(`new${n}`, n, 1)
      expect(policy.size).toBe(1000)
      for (let hot = 0; n % 100 === 0 && hot < 1000; hot++) policy.get(`hot${hot}`)
    }
    const hot = [...policy.keys()].filter((key) => key.startsWith('hot')).length
    expect(hot).toBeGreaterThanOrEqual(850)
  })

  test('what was hot leaves when it is asked for no more', () => {
    const policy = createS3Fifo<number>(bounds)
    for (let n = 0; n < 90; n++) askTwice(policy, `old${n}`)
    for (let n = 0; n < 1000; n++) askTwice(policy, `new${n}`)
    expect([...policy.keys()].filter((key) => key.startsWith('old'))).toEqual([])
  })

  test('one who comes back soon after leaving stays, a crawler or not', () => {
    const policy = createS3Fifo<number>(bounds)
    policy.set('again', 0, 1)
    scan(policy, 'first', 120)
    expect(policy.get('again')).toBeUndefined()
    policy.set('again', 1, 1)
    scan(policy, 'second', 1000)
    expect(policy.get('again')).toBe(1)
  })

  test('a hot answer that is invalidated and loaded again is as safe as before', () => {
    const policy = createS3Fifo<number>(bounds)
    askTwice(policy, 'hot')
    scan(policy, 'first', 1000)
    policy.delete('hot')
    policy.set('hot', 2, 1)
    scan(policy, 'second', 1000)
    expect(policy.get('hot')).toBe(2)
  })

  test('a cold answer that is invalidated is not taken for a hot one', () => {
    const policy = createS3Fifo<number>(bounds)
    policy.set('cold', 1, 1)
    policy.delete('cold')
    policy.set('cold', 2, 1)
    scan(policy, 'crawled', 1000)
    expect(policy.get('cold')).toBeUndefined()
  })
})

describe('ghosts', () => {
  test('the last ones are known, each once', () => {
    const ghosts = createGhosts(3, 1)
    for (const key of ['a', 'b', 'c', 'd']) ghosts.add(key)
    expect(['a', 'b', 'b', 'c', 'd'].map((key) => ghosts.take(key, 100))).toEqual([
      ...[false, true, false, true, true],
    ])
  })

  test('a key added again is as young as its last time', () => {
    const ghosts = createGhosts(3, 1)
    for (const key of ['a', 'b', 'a', 'c', 'd']) ghosts.add(key)
    expect(['a', 'b', 'c', 'd'].map((key) => ghosts.take(key, 100))).toEqual([
      ...[true, false, true, true],
    ])
  })

  test('fewer may be wanted than are known', () => {
    const ghosts = createGhosts(10, 1)
    for (const key of ['a', 'b', 'c']) ghosts.add(key)
    expect([ghosts.take('a', 2), ghosts.take('b', 2)]).toEqual([false, true])
  })

  test('none at all', () => {
    const ghosts = createGhosts(0, 1)
    ghosts.add('a')
    expect(ghosts.take('a', 1)).toBe(false)
  })
})
