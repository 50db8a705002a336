/** The flow of feeds, small: what it promises is in `feed-flow.ts`; at full size it is `bench/budget.bench.ts`. */
import { expect, test } from 'bun:test'
import { requireService } from '../services.ts'
import { runFeedFlow, takeOverMs } from './feed-flow.ts'

const isRun = requireService('sqld') !== undefined && requireService('redis-server') !== undefined

test.skipIf(!isRun)(
  '1,000 subscribers of 200 keys at two nodes, one of which is killed: no ban, and every key in its time',
  async () => {
    const flow = { subscribers: 1_000, keys: 200, batch: 2, churnPerSecond: 5, forMs: 7_000 }
    const report = await runFeedFlow(flow)
    if (process.env['SHOW']) console.log({ ...report, perSecond: report.perSecond.join(' ') })
    expect(report.bans).toBe(0)
    expect(report.busiest).toBeLessThanOrEqual(50)
    expect(report.calls.most).toBeLessThanOrEqual(report.calls.bound)
    expect(report.deaf).toBe(0)
    // A machine that is busy with other things brings nobody back in time: that, and how long keys wait in ms, is the bench's.
    expect(report.backMs).toBeLessThanOrEqual(2 * takeOverMs)
  },
  120_000,
)
