/**
 * Readers that stand still (SIGSTOP) beside others that hear 1,000 publications a second: how late the others hear
 * each, with and without, in turns; what the server's memory does; and when those that stand still are ended.
 * `bun paused.bench.ts hold <port>` is the process that is stopped.
 */
import { until } from '../harness.ts'
import { openAudience } from './audience.ts'
import { rounded } from './load.ts'
import { startPeer, type Peer } from './peer.ts'
import { handshake, protocols, topicName } from './wire.ts'

const listeners = 20
const paused = 50

/** One publication at a time, so often. */
const everyMs = 1
const phaseMs = 20_000
const phases = 6

/** A loop that is held up for long publishes late, not at once. */
const lateMax = 20

interface Phase {
  readonly delays: number[]
  readonly rssMb: number
  readonly endedAfterMs: number | undefined
}

async function measure(): Promise<void> {
  const peer = await startPeer('belfry')
  try {
    const sentAt: number[] = []
    let heard: number[] = []
    for (let n = 0; n < listeners; n += 1)
      await listen(peer.port, (offset, at) => heard.push(at - (sentAt[offset] ?? at)))
    await until(async () => (await peer.subscribers()) === listeners, 'all listen')

    const publishFor = async (forMs: number, each: () => void): Promise<void> => {
      const startedAt = performance.now()
      let due = 0
      for (let now = 0; now < forMs; now = performance.now() - startedAt) {
        due = Math.max(due, Math.floor(now / everyMs) - lateMax)
        for (; due < now / everyMs; due += 1) {
          sentAt[sentAt.length || 1] = performance.now()
          void peer.publish(1)
        }
        each()
        await Bun.sleep(everyMs)
      }
    }
    await publishFor(phaseMs / 4, () => {})

    const found: Record<'alone' | 'beside', Phase[]> = { alone: [], beside: [] }
    for (let n = 0; n < phases; n += 1) {
      const kind = n % 2 === 0 ? 'alone' : 'beside'
      const held = kind === 'beside' ? await hold(peer) : undefined
      heard = []
      const startedAt = performance.now()
      let endedAfterMs: number | undefined
      let askedAt = startedAt
      await publishFor(phaseMs, () => {
        if (!held || endedAfterMs !== undefined || performance.now() - askedAt < 200) return
        askedAt = performance.now()
        void peer.subscribers().then((count) => {
          if (count === listeners) endedAfterMs ??= performance.now() - startedAt
        })
      })
      const delays = heard
      held?.kill('SIGKILL')
      await until(async () => (await peer.subscribers()) === listeners, 'those are gone')
      found[kind].push({ delays, rssMb: (await peer.rssBytes()) / 2 ** 20, endedAfterMs })
    }
    print(found)
  } finally {
    peer.stop()
  }
}

async function hold(peer: Peer): Promise<Bun.Subprocess> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const child = Bun.spawn([process.execPath, import.meta.path, 'hold', String(peer.port)], {
    stdio: ['ignore', 'inherit', 'inherit'],
    ipc: () => resolve(),
  })
  await promise
  child.kill('SIGSTOP')
  return child
}

/** Tells the offset of each publication as it comes, and answers pings. */
async function listen(port: number, onHeard: (offset: number, at: number) => void): Promise<void> {
  const { steps, ping, pong } = protocols.belfry
  let step = 0
  let text = ''
  const hear = (socket: Bun.Socket, chunk: Buffer): void => {
    const at = performance.now()
    if (chunk.includes(ping)) socket.write(pong)
    text += chunk.toString('latin1')
    for (let next = steps[step]; next; next = steps[step]) {
      if (!text.includes(next.until)) return
      text = ''
      step += 1
      if ('say' in next) socket.write(next.say)
    }
    const found = [...text.matchAll(/"offset":(\d+)\}\}\}/g)]
    for (const [, offset] of found) onHeard(Number(offset), at)
    const last = found.at(-1)
    if (last) text = text.slice(last.index + last[0].length)
  }
  await Bun.connect({
    hostname: '127.0.0.1',
    port,
    socket: { open: (socket) => void socket.write(handshake(port)), data: hear, error: () => {} },
  })
}

function print(found: Readonly<Record<string, readonly Phase[]>>): void {
  const at = (sorted: Float64Array, share: number) =>
    rounded(sorted[Math.floor(sorted.length * share)] ?? 0)
  console.log(
    `\n${listeners} that hear ${1_000 / everyMs}/s, alone and beside ${paused} that stand still; delays in ms, ${topicName}`,
  )
  const rows = Object.entries(found).map(([name, all]) => {
    const sorted = Float64Array.from(all.flatMap(({ delays }) => delays)).sort()
    const ended = all.flatMap(({ endedAfterMs }) =>
      endedAfterMs === undefined ? [] : [rounded(endedAfterMs / 1_000)],
    )
    return [
      name,
      {
        deliveries: sorted.length,
        p50: at(sorted, 0.5),
        p99: at(sorted, 0.99),
        'p99 of each': all
          .map(({ delays }) => at(Float64Array.from(delays).sort(), 0.99))
          .join(' '),
        MB: all.map(({ rssMb }) => Math.round(rssMb)).join(' '),
        'ended after s': ended.join(' '),
      },
    ] as const
  })
  console.table(Object.fromEntries(rows))
}

export const run = measure

if (import.meta.main) {
  if (process.argv[2] === 'hold') {
    const peer = {
      name: 'belfry',
      port: Number(process.argv[3]),
      protocol: protocols.belfry,
      subscribers: () => Promise.resolve(paused),
    } as const
    await openAudience(peer, paused)
    process.send?.('held')
    process.on('disconnect', () => process.exit())
  } else await run()
}
