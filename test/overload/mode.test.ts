import { describe, expect, test } from 'bun:test'
import { limitBytes } from '../../src/overload/machine.ts'
import { modes } from '../../src/overload/overload.ts'
import { setUp } from './node.ts'

describe('by hand', () => {
  test('a mode is the least stage; normal is none, whatever happens', async () => {
    const { overload, turns } = setUp()
    const stages: unknown[] = []
    for (const mode of modes) {
      await overload.set(mode)
      const { stage, why } = overload.status()
      stages.push([mode, stage, why, overload.isShedding, overload.factor])
    }
    expect(stages).toEqual([
      ['auto', 'normal', 'calm', false, 1],
      ['normal', 'normal', 'calm', false, 1],
      ['saving', 'saving', 'mode', false, 2],
      ['emergency', 'refusing', 'mode', true, 4],
      ['closed', 'closed', 'mode', true, 4],
    ])
    await overload.set('saving')
    turns(60, 300)
    expect(overload.status()).toMatchObject({ stage: 'refusing', why: 'requests', mode: 'saving' })
    await overload.set('normal')
    turns(60, 300)
    expect(overload.stage).toBe(0)
    await overload.set('auto')
    expect(overload.stage).toBe(2)
  })

  test('an emergency has low ones off as long as it lasts', async () => {
    const { overload, turns, clock } = setUp()
    await overload.set('emergency', 60_000)
    turns(0, 59_000)
    expect(overload.admits('low', 'loop', clock.tick())).toBe(false)
    expect(overload.admits('normal', 'loop', clock.tick())).toBe(true)
    turns(0, 2_000)
    expect(overload.status()).toMatchObject({ mode: 'auto', stage: 'normal' })
  })

  test('it is announced, and obeyed where it is heard; the latest counts', async () => {
    const one = setUp()
    const other = setUp()
    await one.overload.set('emergency')
    one.clock.advance(1)
    await one.overload.set('saving', 60_000)
    const [first, second] = one.told
    other.overload.hear(second)
    other.overload.hear(first)
    expect(other.overload.status()).toMatchObject({ mode: 'saving', stage: 'saving' })
    for (const broken of [undefined, null, 'x', { mode: 'x', atMs: 1e15 }, { mode: 'closed' }]) {
      other.overload.hear(broken)
    }
    expect(other.overload.status().mode).toBe('saving')
    // What was over before a restart is not begun again.
    const restarted = setUp()
    restarted.clock.advance(120_000)
    restarted.overload.hear(second)
    expect(restarted.overload.status().mode).toBe('auto')
  })

  test('who answers a node whose clock is ahead has the last word', async () => {
    const ahead = setUp()
    const behind = setUp()
    ahead.clock.advance(300_000)
    await ahead.overload.set('emergency')
    behind.overload.hear(ahead.told[0])
    expect(behind.overload.stage).toBe(2)
    await behind.overload.set('auto')
    ahead.overload.hear(behind.told[0])
    expect(ahead.overload.status()).toMatchObject({ mode: 'auto', stage: 'normal' })
    // Also when what it said itself was for a time that is over there.
    await ahead.overload.set('closed', 60_000)
    behind.overload.hear(ahead.told[1])
    ahead.turns(0, 61_000)
    expect(ahead.overload.stage).toBeLessThan(3)
    await behind.overload.set('emergency')
    ahead.overload.hear(behind.told[1])
    expect(ahead.overload.status().mode).toBe('emergency')
  })

  test('it holds here also where nobody can be told', async () => {
    const { overload, log, told } = setUp()
    told.push = () => {
      throw new Error('no disk')
    }
    await overload.set('closed')
    expect(overload.stage).toBe(3)
    expect(log.lines.map(({ event }) => event)).toContain('overload.mode_not_told')
  })
})

describe('the memory that there is', () => {
  test.each([
    ['no group', {}, Infinity],
    [
      'version 2, a limit further up',
      {
        '/proc/self/cgroup': '0::/a/b\n',
        '/sys/fs/cgroup/a/b/memory.max': 'max\n',
        '/sys/fs/cgroup/a/memory.max': '1073741824\n',
      },
      2 ** 30,
    ],
    [
      'version 2 in a container',
      { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.max': '536870912\n' },
      2 ** 29,
    ],
    [
      'version 1',
      {
        '/proc/self/cgroup': '5:cpu,cpuacct:/x\n4:memory:/docker/x\n0::/\n',
        '/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes': '268435456\n',
        '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
      },
      2 ** 28,
    ],
  ])('%s', (_, files: Record<string, string>, bytes) => {
    expect(limitBytes((path) => files[path])).toBe(bytes)
  })
})
