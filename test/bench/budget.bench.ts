/**
 * The flow of feeds at full size: 10,000 subscribers of 2,000 keys that come and go, at two nodes with wrong clocks, one
 * of which is killed, over a provider that bans on the 51st call of any second. Calls a second, as they arrived there.
 * `SUBSCRIBERS=1000 KEYS=200 BATCH=2 FOR_MS=10000` makes it smaller.
 */
import { runFeedFlow, takeOverMs } from '../flows/feed-flow.ts'
import { requireService } from '../services.ts'

const of = (name: string, absent: number): number => Number(process.env[name] ?? absent)

const flow = {
  subscribers: of('SUBSCRIBERS', 10_000),
  keys: of('KEYS', 2_000),
  batch: of('BATCH', 20),
  churnPerSecond: of('CHURN', 20),
  forMs: of('FOR_MS', 20_000),
}

const barMax = 50

export async function run(): Promise<void> {
  if (!requireService('sqld') || !requireService('redis-server')) return
  const { subscribers, keys, batch, churnPerSecond } = flow
  console.log(
    `\n${subscribers} subscribers of ${keys} keys, ${churnPerSecond} keys a second come and go, ${batch} keys a call`,
  )
  const report = await runFeedFlow(flow)
  console.log('calls that arrived in each second (allowed in any: 50)')
  for (const [second, count] of report.perSecond.entries()) {
    const bar = '█'.repeat(Math.min(barMax, count))
    console.log(`${String(second).padStart(4)} s ${String(count).padStart(3)} ${bar}`)
  }
  console.table({
    bans: report.bans,
    'busiest second': report.busiest,
    'a key is asked for within, ms': Math.round(report.boundMs),
    'longest wait of a watched key, ms': Math.round(report.longestMs),
    'later than that': report.late.length,
    'most calls that one has waited': `${report.calls.most} of ${report.calls.bound}`,
    'node killed: as often as before after, ms': Math.round(report.backMs),
    'stated, ms': takeOverMs,
    'cores of the nodes': report.cores.map((cores) => cores.toFixed(2)).join(', '),
    'publications heard': report.publications,
    'have not heard the last': report.deaf,
  })
  for (const line of report.late.slice(0, 5)) console.log(line)
}

if (import.meta.main) await run()
