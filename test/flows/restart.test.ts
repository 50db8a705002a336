/** A restart as operators do it: SIGTERM, and the same command again. At 15,000 clients: restart.bench.ts. */
import { describe, expect, test } from 'bun:test'
import { restart } from './restart.ts'

const size = 300
const withinMs = 20_000

describe('after SIGTERM and a start on the same port', () => {
  test('everybody is back with all of a durable topic, exactly', async () => {
    const { exitCode, recovered, told, lost, problems, acknowledged, codes } = await restart({
      ...{ size, withinMs },
      persist: true,
      obedientShare: 0.5,
      publishEveryMs: 20,
    })
    expect({ exitCode, recovered, told, lost, problems, codes: [...codes] }).toEqual({
      exitCode: 0,
      recovered: size,
      told: 0,
      lost: [],
      problems: [],
      codes: [[3001, size]],
    })
    expect(acknowledged).toBeGreaterThan(5)
  })

  test('everybody is told of a topic that is kept in memory only', async () => {
    const { exitCode, recovered, told, lost, problems } = await restart({
      ...{ size, withinMs },
      persist: false,
      obedientShare: 0.5,
      publishEveryMs: 20,
    })
    expect({ exitCode, recovered, told, lost, problems }).toEqual({
      exitCode: 0,
      recovered: 0,
      told: size,
      lost: [],
      problems: [],
    })
  })

  test('a storm of clients that wait for nothing is let in by the bucket', async () => {
    const perSecond = 100
    const burst = 20
    const { recovered, lost, problems, backMs } = await restart({
      ...{ size, withinMs },
      command: [
        process.execPath,
        `${import.meta.dir}/restart-node.ts`,
        ...[String(perSecond), String(burst)],
      ],
      persist: true,
      obedientShare: 0,
      publishEveryMs: 20,
    })
    expect({ recovered, lost, problems, back: backMs.length }).toEqual({
      recovered: size,
      lost: [],
      problems: [],
      back: size,
    })
    // Counted from before the bucket was there, and in this process's time: a busy machine is only later.
    for (const [n, ms] of backMs.entries()) {
      expect(n + 1).toBeLessThanOrEqual(burst + (perSecond * ms) / 1_000)
    }
  })
})
