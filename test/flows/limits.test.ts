/** Several processes, one Redis, wall clocks up to ten minutes apart; Redis is killed, comes back empty, and is never believed. */
import { expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { until } from '../harness.ts'
import { mostInAnyWindow } from '../limits/log.ts'
import type { Let } from '../limits/node-fixture.ts'
import { requireService, startRedis } from '../services.ts'

const quota = 20
const windowMs = 400

/** Between Redis' clock and a node's, which reads it in whole milliseconds. */
const jitterUs = 3_000

function startNode(port: number, skewMs: number) {
  const child = Bun.spawn(
    [
      ...[process.execPath, resolve(import.meta.dir, '../limits/node-fixture.ts')],
      ...[port, quota, windowMs, skewMs].map(String),
    ],
    { stdin: 'pipe', stdout: 'pipe', stderr: 'inherit' },
  )
  const let_: Let[] = []
  const read = (async () => {
    let rest = ''
    for await (const chunk of child.stdout) {
      const lines = (rest + new TextDecoder().decode(chunk)).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) let_.push(JSON.parse(line) as Let)
    }
  })()
  return {
    passed: let_,
    async stop() {
      await child.stdin.end()
      await Promise.all([child.exited, read])
    },
  }
}

const skewsMs = [-300_000, 300_000, 0, -120_000]

test.skipIf(!requireService('redis-server')).each([2, 3, 4])(
  'through %i nodes never more than the quota in any window while Redis answers, and through one never at all',
  async (processes) => {
    await using redis = await startRedis()
    const nodes = skewsMs.slice(0, processes).map((skewMs) => startNode(redis.port, skewMs))
    const count = (by: Let['by']): number =>
      nodes.reduce((sum, { passed }) => sum + passed.filter((one) => one.by === by).length, 0)
    try {
      await until(() => count('redis') > 6 * quota, 'six windows through Redis')
      const aloneBefore = count('alone')
      await redis.kill()
      await until(() => count('alone') > aloneBefore + 4 * quota, 'nodes go on by themselves')
      const killedAt = Math.max(
        ...nodes.flatMap(({ passed }) =>
          passed.filter(({ by }) => by === 'redis').map(({ at }) => at),
        ),
      )
      const countBefore = count('redis')
      await redis.restart()
      await until(() => count('redis') > countBefore + 6 * quota, 'Redis decides again')
      await Promise.all(nodes.map((node) => node.stop()))

      const all = nodes.flatMap(({ passed }) => passed)
      const byRedis = all.filter(({ by }) => by === 'redis').map(({ at }) => at)
      const lives = [byRedis.filter((at) => at <= killedAt), byRedis.filter((at) => at > killedAt)]
      for (const life of lives) {
        expect(life.length).toBeGreaterThan(5 * quota)
        expect(mostInAnyWindow(life, windowMs * 1000)).toBeWithin(quota / 2, quota + 1)
      }
      const windowUs = windowMs * 1000 - jitterUs
      for (const { passed } of nodes) {
        const times = passed.map(({ at }) => at)
        expect(mostInAnyWindow(times, windowUs)).toBeLessThanOrEqual(quota)
      }
      expect(
        mostInAnyWindow(
          all.map(({ at }) => at),
          windowUs,
        ),
      ).toBeLessThanOrEqual(processes * quota)
    } finally {
      await Promise.all(nodes.map((node) => node.stop()))
    }
  },
)
