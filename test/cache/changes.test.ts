import { describe, expect, test } from 'bun:test'
import { createChanges, type Change } from '../../src/cache/changes.ts'
import { createHot } from '../../src/cache/hot.ts'
import { createTestClock } from '../clock.ts'

const change = (key: string, text = ''): Change => ({ op: 'update', key, row: [key, text] })

describe('the last changes of a group', () => {
  const isK = ({ key }: Change) => key === 'k'

  test('are looked at back to where the answer was good, and no further', () => {
    const changes = createChanges(['posts', 'users'])
    changes.note(1, ['posts', 'posts:k'], change('k'))
    changes.note(2, ['posts', 'posts:a'], change('a'))
    changes.note(3, ['users', 'users:k'], change('k'))
    expect(changes.any('posts', 0, isK)).toBe(true)
    expect(changes.any('posts', 1, isK)).toBe(false)
    expect(changes.any('users', 2, isK)).toBe(true)
    expect(changes.since('posts', 0)?.map(({ key }) => key)).toEqual(['k', 'a'])
    expect(changes.any('unheard of', 9, isK)).toBe(true)
    expect(changes.since('unheard of', 9)).toBeUndefined()
  })

  test('that cannot say what they changed may have changed anything', () => {
    const changes = createChanges(['posts'])
    changes.note(1, ['posts'], { op: 'update', key: '', row: [] })
    changes.note(2, ['posts'], undefined)
    expect(changes.any('posts', 1, isK)).toBe(true)
    expect(changes.any('posts', 0, isK)).toBe(true)
    expect(changes.since('posts', 1)).toBeUndefined()
    expect(changes.any('posts', 2, isK)).toBe(false)
  })

  test('too many, or too large ones, are forgotten; whoever would need them takes it for changed', () => {
    const many = createChanges(['posts'])
    for (let seq = 1; seq <= 10_000; seq++) many.note(seq, ['posts'], change('a'))
    expect(many.any('posts', 9_000, isK)).toBe(false)
    expect(many.any('posts', 7_000, isK)).toBe(true)
    const large = createChanges(['posts'])
    for (let seq = 1; seq <= 100; seq++)
      large.note(seq, ['posts'], change('a', 'x'.repeat(2 ** 19)))
    expect(large.any('posts', 95, isK)).toBe(false)
    expect(large.any('posts', 50, isK)).toBe(true)
  })

  test('after a hole in the log nothing before it is known', () => {
    const changes = createChanges(['posts'])
    changes.note(1, ['posts'], change('a'))
    changes.raise(7)
    expect(changes.any('posts', 6, isK)).toBe(true)
    expect(changes.any('posts', 7, isK)).toBe(false)
  })
})

describe('what is hot', () => {
  const setUp = () => {
    const clock = createTestClock()
    const loads: string[] = []
    const bad = new Set<string>()
    const hot = createHot<{ readonly name: string; readonly hits: number }>({
      clock,
      isGood: ({ name }) => !bad.has(name),
      reload: ({ name }) => Promise.resolve(void loads.push(name)),
    })
    return { clock, loads, bad, hot }
  }
  const settled = () => new Promise<void>((resolve) => void setImmediate(resolve))

  test('and became invalid is loaded once, most asked first', async () => {
    const { clock, loads, bad, hot } = setUp()
    const entries = ['a', 'b', 'c'].map((name, hits) => ({ name, hits }))
    for (const entry of entries) hot.add(entry)
    bad.add('a').add('c')
    hot.look()
    hot.look()
    expect(loads).toEqual([])
    clock.advance(20)
    await settled()
    expect(loads).toEqual(['c', 'a'])
    hot.look()
    clock.advance(20)
    await settled()
    expect(loads).toEqual(['c', 'a'])
    expect(entries.length).toBe(3)
  })

  test('is not loaded any more once stopped', async () => {
    const { clock, loads, bad, hot } = setUp()
    const entry = { name: 'a', hits: 1 }
    hot.add(entry)
    bad.add('a')
    hot.look()
    hot.stop()
    clock.advance(100)
    await settled()
    expect([entry.name, loads]).toEqual(['a', []])
  })
})
