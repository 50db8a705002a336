/**
 * `JEPSEN_SEED=7 JEPSEN_MS=60000 bun test test/flows/jepsen.test.ts`
 * runs one again, or for longer; `JEPSEN_ONLY='primary|every link'` breaks only these.
 */
import { expect, test } from 'bun:test'
import { requireService } from '../services.ts'
import { runJepsen } from './jepsen.ts'
import { isSupported, shapes } from './shapes.ts'

const seed = Number(process.env['JEPSEN_SEED'] ?? Date.now() % 1_000_000)
const ms = Number(process.env['JEPSEN_MS'] ?? 8_000)
const only = new RegExp(process.env['JEPSEN_ONLY'] ?? '')
const testMsMax = ms + 120_000

const shown = 20

for (const shape of shapes) {
  const needsSqld = shape !== 'file'
  const isRun = isSupported(shape) && !(needsSqld && !requireService('sqld'))
  test.skipIf(!isRun)(
    `${shape}: whatever breaks, what was answered holds (seed ${seed})`,
    async () => {
      const { problems, summary, dump } = await runJepsen({ shape, seed, ms, only })
      console.log(`jepsen ${summary}${dump ? `; see ${dump}` : ''}`)
      expect(problems.slice(0, shown)).toEqual([])
    },
    testMsMax,
  )
}
