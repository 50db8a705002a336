/**
 * An overload: visitors at three times what the server can do, for 30 s, and what becomes of them with and without load
 * shedding. The server has one core, its visitors the other; they do not wait for each other's answers (open-load.ts).
 *
 *   3 of 10 requests are of high priority (two reads by id, one create), 4 normal (lists), 3 low (a report).
 *
 * `SECONDS=10` makes the long part shorter; `LOG=1` shows the server's lines.
 */
import { tempFolder } from '../harness.ts'
import { testApiKey } from '../server.ts'
import { openLoad, type LoadReport, type Tally, type Visitors } from './open-load.ts'
import { categories, notesCount, owners } from './notes.ts'
import { startServer, type StartedServer } from './start.ts'

const overloadMs = Number(process.env['SECONDS'] ?? 30) * 1_000
const restMs = 10_000
const calmSMax = 20

/** More than are ever under way while answers take 50 ms: who waits is to wait at the server. */
const connections = 1_500

const kinds = ['high', 'normal', 'low'] as const

const visitors: readonly Visitors[] = [
  { kind: 'high', share: 0.2, path: '/api/notes/{}', paths: notesCount },
  {
    ...{ kind: 'high', share: 0.1, method: 'POST', path: '/api/orders', paths: 1 },
    body: { note: 1, text: 'two of them, please, and wrapped' },
  },
  {
    ...{ kind: 'normal', share: 0.4, paths: owners },
    path: `/api/lists?limit=20&owner=user{}&category=category{${categories}}`,
  },
  {
    ...{ kind: 'low', share: 0.3, paths: owners },
    path: `/api/report/user{}/category{${categories}}`,
  },
]

export async function run(): Promise<void> {
  using folder = tempFolder()
  const server = await startServer(['overload.server.ts', folder.path])
  const { port } = server
  try {
    await setMode(server, 'normal')
    await openLoad({ port, visitors, forMs: 3_000, connections: 64 })
    const peak = await openLoad({ port, visitors, forMs: 6_000, connections: 64 })
    const capacity = all(peak, 'good') / peak.seconds
    const openAt = (share: number, forMs: number) =>
      openLoad({ port, visitors, forMs, connections, rate: capacity * share })
    await setMode(server, 'auto')
    // What 64 at a time were is over before it is usual.
    for (let s = 0; s < calmSMax && (await status(server)) !== 'normal'; s++) await Bun.sleep(1_000)
    const usual = await openAt(0.5, restMs)
    const overload = await openAt(3, overloadMs)
    const stage = await status(server)
    const after = await openAt(0.5, restMs)
    const rest = await status(server)
    await setMode(server, 'normal')
    const unprotected = await openAt(3, Math.min(overloadMs, 10_000))

    const row = (phase: string, report: LoadReport) =>
      kinds.map((kind) => ({ phase, kind, ...line(report, kind) }))
    console.log(`capacity: ${Math.round(capacity)} requests a second, by 64 who wait for answers`)
    console.table([
      ...row('64 who wait', peak),
      ...row('half of it', usual),
      ...row('three times', overload),
      ...row('half, after', after),
      ...row('three times, no shedding', unprotected),
    ])
    if (process.env['LOG'] !== undefined) {
      const seconds = overload.bySecond.map((second) =>
        Object.fromEntries(
          kinds.flatMap((kind) => [
            [`${kind} answered`, second[kind]?.good ?? 0],
            [`${kind} p99 ms`, second[kind]?.p99Ms ?? 0],
          ]),
        ),
      )
      console.table(seconds)
    }
    const share = rate(overload, 'high') / rate(peak, 'high')
    const slower = worstP99(overload) / worstP99(usual)
    console.log(
      `high priority: ${percent(share)} of its peak; p99 of what was admitted: ${slower.toFixed(1)} times the usual` +
        ` (${worstP99(overload)} of ${worstP99(usual)} ms); recovered after ${recoveredAfterS(after, usual)} s;` +
        ` stage then ${stage}, at the end ${rest}; the load was late itself by ${overload.ownLateMs} ms`,
    )
  } finally {
    await server.stop()
  }
}

function line({ total, seconds }: LoadReport, kind: string) {
  const { good = 0, refused = 0, failed = 0, p50Ms = 0, p99Ms = 0 } = total[kind] ?? {}
  const each = (count: number) => Math.round(count / seconds)
  return {
    'answered/s': each(good),
    'refused/s': each(refused),
    'given up/s': each(failed),
    'p50 ms': p50Ms,
    'p99 ms': p99Ms,
  }
}

function all({ total }: LoadReport, what: keyof Tally): number {
  return Object.values(total).reduce((sum, one) => sum + one[what], 0)
}

function rate({ total, seconds }: LoadReport, kind: string): number {
  return (total[kind]?.good ?? 0) / seconds
}

/** Of the kinds that still get something: what a visitor of any of them meets. */
function worstP99({ total }: LoadReport): number {
  return Math.max(
    ...kinds.map((kind) => ((total[kind]?.good ?? 0) > 100 ? total[kind]?.p99Ms : 0) ?? 0),
  )
}

/** The first second from which on nobody is refused, and no second is twice as slow as was usual. */
function recoveredAfterS({ bySecond }: LoadReport, usual: LoadReport): number {
  const limitMs = 2 * worstP99(usual)
  const isBad = (second: LoadReport['total']): boolean =>
    kinds.some((kind) => {
      const one = second[kind]
      return one !== undefined && (one.refused + one.failed > 0 || one.p99Ms > limitMs)
    })
  return bySecond.findLastIndex(isBad) + 1
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}

async function setMode({ port }: StartedServer, mode: string): Promise<void> {
  await fetch(`http://127.0.0.1:${port}/api/admin/mode`, {
    method: 'POST',
    headers: { 'x-api-key': testApiKey, 'content-type': 'application/json' },
    body: JSON.stringify({ mode }),
  })
}

async function status({ port }: StartedServer): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${port}/api/admin/mode`, {
    headers: { 'x-api-key': testApiKey },
  })
  return ((await answer.json()) as { stage: string }).stage
}
