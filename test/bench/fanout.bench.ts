/**
 * Fan-out of 128-byte JSON to S subscribers of one topic: this room behind its own doors, raw `Bun.serve`
 * publish of the same frames, and what others made. One publication outstanding, and sixteen published
 * in a tick; then how long a publication takes to each of its subscribers.
 *
 * All of them are up at the same time with all of their subscribers, and take turns of half a second, so
 * that what else the machine does hits all alike. `PEERS=raw,belfry SIZES=1000 ROUNDS=10` narrows it.
 */
import { rounded } from './load.ts'
import { availablePeers, peerNames, type PeerName } from './peer.ts'
import { delayStepMs, startStand, type Slice, type Stand } from './stand.ts'

const sizes = (process.env['SIZES'] ?? '1000,5000,15000').split(',').map(Number)
const ticks = [1, 16] as const

/** Of what is compared closely; the others take part in the first ones only. */
const rounds = Number(process.env['ROUNDS'] ?? 6)
const roundsOfOthers = Math.min(rounds, 2)
const close: ReadonlySet<PeerName> = new Set(['raw', 'belfry', 'belfry-sse'])

const sliceMs = 500

/**
 * Before it counts. A child that just took its connections in is still compiling and collecting;
 * measured without this, a thousand subscribers showed that and not the fan-out (0.78 of raw, and 1.03 in
 * the steady state).
 */
const warmUpMs = 2_500
const warmUpMsOfOthers = 1_000

/** Publications whose delays are taken: fewer to many. */
const delayedOf = (size: number): number => Math.min(20, Math.max(5, Math.round(60_000 / size)))

/** Deliveries before a publication are over by then. */
const restMs = 30

interface Figures {
  readonly name: PeerName
  /** One for each of `ticks`, of all rounds. */
  readonly sums: Slice[]
  blockMs: number | undefined
  delays: readonly number[]
}

const nothing: Slice = { deliveries: 0, cpuSeconds: 0, seconds: 0 }
const plus = (a: Slice, b: Slice): Slice => ({
  deliveries: a.deliveries + b.deliveries,
  cpuSeconds: a.cpuSeconds + b.cpuSeconds,
  seconds: a.seconds + b.seconds,
})

async function measure(stands: readonly Stand[], size: number): Promise<Figures[]> {
  for (const stand of stands) {
    await stand.open(size)
    await stand.slice(16, close.has(stand.name) ? warmUpMs : warmUpMsOfOthers)
  }
  const all = stands.map(({ name }): Figures => ({
    name,
    sums: ticks.map(() => nothing),
    blockMs: undefined,
    delays: [],
  }))
  for (let round = 0; round < rounds; round += 1) {
    for (const [tick, perTick] of ticks.entries()) {
      for (const [at, stand] of stands.entries()) {
        const figures = all[at]
        if (!figures || (round >= roundsOfOthers && !close.has(stand.name))) continue
        const slice = await stand.slice(perTick, sliceMs)
        figures.sums[tick] = plus(figures.sums[tick] ?? nothing, slice)
      }
    }
  }
  for (const [at, stand] of stands.entries()) {
    const figures = all[at]
    if (!figures) continue
    figures.delays = await stand.delays(delayedOf(size), restMs)
    figures.blockMs = await stand.block(16)
  }
  return all
}

/** The delay, in ms, that `share` of the deliveries are below. */
function delayAt(counts: readonly number[], share: number): number {
  const total = counts.reduce((a, b) => a + b, 0)
  let below = 0
  const step = counts.findIndex((count) => (below += count) >= total * share)
  return rounded(step * delayStepMs)
}

const perCpuSecond = ({ deliveries, cpuSeconds }: Slice): number => deliveries / cpuSeconds
const perSecond = ({ deliveries, seconds }: Slice): number => deliveries / seconds
const thousands = (value: number): number => rounded(value / 1_000)
const share = (value: number): number => Math.round(value * 100) / 100

function print(size: number, all: readonly Figures[]): void {
  const raw = all.find(({ name }) => name === 'raw')
  console.log(
    `\nfan-out to ${size} subscribers, thousand deliveries a server-CPU-second; delays of one at a time`,
  )
  const table = all.map(({ name, sums, delays, blockMs }) => {
    const row: Record<string, string | number> = {}
    for (const [tick, perTick] of ticks.entries()) {
      const own = sums[tick] ?? nothing
      const bound = raw?.sums[tick]
      row[`·${perTick}`] = thousands(perCpuSecond(own))
      row[`·${perTick} of raw`] = bound ? share(perCpuSecond(own) / perCpuSecond(bound)) : ''
      row[`·${perTick} wall`] = thousands(perSecond(own))
    }
    row['p50 ms'] = delayAt(delays, 0.5)
    row['p99 ms'] = delayAt(delays, 0.99)
    row['block ms'] = blockMs ? Math.round(blockMs) : ''
    return [name, row] as const
  })
  console.table(Object.fromEntries(table))
}

const wanted = (process.env['PEERS']?.split(',') ?? peerNames) as readonly PeerName[]

export async function run(): Promise<void> {
  const names = await availablePeers(wanted)
  for (const size of sizes) {
    const stands = names.map(startStand)
    try {
      print(size, await measure(stands, size))
    } finally {
      await Promise.all(stands.map((stand) => stand.stop()))
    }
  }
}

if (import.meta.main) await run()
