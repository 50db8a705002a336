/**
 * Visitors who do not wait for each other: requests are due at random times at a given rate, whether or not the last ones
 * are answered. In a process of its own, on core 1 where that can be had.
 *
 *   due ─► a connection is free? sent : waits in line ─► answered, `ms` since it was due; after 10 s: given up
 */
import type { HttpRequest } from './load.ts'
import { requestBytes } from './load.ts'

export interface Visitors extends HttpRequest {
  /** What is counted together. */
  readonly kind: string
  /** Of all requests. `{}` in the path is a number below `paths`. */
  readonly share: number
  readonly paths: number
}

export interface OpenLoad {
  readonly port: number
  /** Requests a second; absent: as many as are answered, with so many under way as there are connections. */
  readonly rate?: number
  readonly forMs: number
  readonly connections: number
  readonly visitors: readonly Visitors[]
}

/** Of one kind, in one second or in all. */
export interface Tally {
  readonly good: number
  readonly refused: number
  readonly failed: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface LoadReport {
  readonly seconds: number
  readonly total: Readonly<Record<string, Tally>>
  readonly bySecond: readonly Readonly<Record<string, Tally>>[]
  /** How late it was itself: the 99th of a hundred sends. */
  readonly ownLateMs: number
}

/** Who has no answer by then has gone. */
const patienceMs = 10_000

export async function openLoad(load: OpenLoad): Promise<LoadReport> {
  const taskset = Bun.which('taskset') === null ? [] : ['taskset', '-c', '1']
  const child = Bun.spawn([...taskset, process.execPath, import.meta.path, JSON.stringify(load)], {
    stdout: 'pipe',
    stderr: 'inherit',
  })
  const text = await new Response(child.stdout).text()
  if ((await child.exited) !== 0) throw new Error('the load did not end well')
  return JSON.parse(text) as LoadReport
}

interface Due {
  readonly visitors: Visitors
  readonly at: number
}

interface Counts {
  good: number[]
  refused: number
  failed: number
}

type Client = Bun.Socket<{ now: Due | undefined; left: number; status: string }>

async function run({ port, rate, forMs, connections, visitors }: OpenLoad): Promise<LoadReport> {
  const seconds: Record<string, Counts>[] = []
  const idle: Client[] = []
  const line: Due[] = []
  const lates: number[] = []
  let head = 0
  let isOver = false
  let startedAt = 0

  const count = (due: Due): Counts => {
    const second = Math.floor((due.at - startedAt) / 1_000)
    const counts = (seconds[second] ??= {})
    return (counts[due.visitors.kind] ??= { good: [], refused: 0, failed: 0 })
  }
  const pick = (): Visitors => {
    let left = Math.random()
    for (const one of visitors) if ((left -= one.share) < 0) return one
    return visitors[0] as Visitors
  }
  const bytesOf = ({ path, paths, ...rest }: Visitors): Uint8Array =>
    requestBytes(port, {
      ...rest,
      path: path.replace(/\{(\d*)\}/g, (_, max: string) =>
        String(Math.floor(Math.random() * (max === '' ? paths : Number(max)))),
      ),
    })
  const send = (socket: Client, due: Due): void => {
    socket.data.now = due
    socket.write(bytesOf(due.visitors))
  }
  const next = (socket: Client): void => {
    if (rate === undefined && !isOver) {
      return send(socket, { visitors: pick(), at: performance.now() })
    }
    for (let due = line[head]; due; due = line[head]) {
      head++
      if (performance.now() - due.at < patienceMs) return send(socket, due)
      count(due).failed++
    }
    idle.push(socket)
  }
  const answered = (socket: Client): void => {
    const { now: due, status } = socket.data
    socket.data.now = undefined
    if (due) {
      const counts = count(due)
      if (status.startsWith('2')) counts.good.push(performance.now() - due.at)
      else if (status === '503') counts.refused++
      else counts.failed++
    }
    next(socket)
  }
  const open = () =>
    Bun.connect<Client['data']>({
      hostname: '127.0.0.1',
      port,
      data: { now: undefined, left: 0, status: '' },
      socket: {
        data(socket, chunk) {
          const { data } = socket
          if (data.left === 0) {
            const at = chunk.indexOf('\r\n\r\n')
            const text = chunk.toString('latin1', 0, at)
            data.status = text.slice(9, 12)
            const length = /content-length: (\d+)/i.exec(text)?.[1]
            // All answers here have a length, and their heads come whole.
            data.left = at + 4 + Number(length ?? 0)
          }
          data.left -= chunk.length
          if (data.left <= 0) {
            data.left = 0
            answered(socket)
          }
        },
        close(socket) {
          if (socket.data.now) count(socket.data.now).failed++
          socket.data.now = undefined
        },
      },
    })

  const sockets = await Promise.all(Array.from({ length: connections }, open))
  startedAt = performance.now()
  if (rate === undefined) for (const socket of sockets) next(socket)
  else {
    idle.push(...sockets)
    let dueAt = startedAt
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const now = performance.now()
        while (dueAt < now && dueAt - startedAt < forMs) {
          const due = { visitors: pick(), at: dueAt }
          if (Math.random() < 0.01) lates.push(now - dueAt)
          dueAt += (-Math.log(1 - Math.random()) / rate) * 1_000
          const socket = idle.pop()
          if (socket) send(socket, due)
          else line.push(due)
        }
        if (now - startedAt < forMs) return
        clearInterval(timer)
        resolve()
      }, 1)
    })
  }
  await Bun.sleep(Math.max(0, startedAt + forMs - performance.now()))
  isOver = true
  const deadline = performance.now() + patienceMs
  const isDone = () => head >= line.length && sockets.every(({ data }) => !data.now)
  while (!isDone() && performance.now() < deadline) await Bun.sleep(20)
  for (const due of line.slice(head)) count(due).failed++
  for (const socket of sockets) socket.terminate()

  const bySecond = seconds.slice(0, Math.ceil(forMs / 1_000)).map((one) => talliesOf([one]))
  return {
    seconds: forMs / 1_000,
    total: talliesOf(seconds),
    bySecond,
    ownLateMs: quantileOf(lates, 0.99),
  }
}

function talliesOf(all: readonly Record<string, Counts>[]): Record<string, Tally> {
  const kinds = new Set(all.flatMap((one) => Object.keys(one ?? {})))
  return Object.fromEntries(
    [...kinds].map((kind) => {
      const counts = all.flatMap((one) => one?.[kind] ?? [])
      const good = counts.flatMap((one) => one.good)
      const sum = (of: (one: Counts) => number) => counts.reduce((n, one) => n + of(one), 0)
      return [
        kind,
        {
          good: good.length,
          refused: sum((one) => one.refused),
          failed: sum((one) => one.failed),
          p50Ms: quantileOf(good, 0.5),
          p99Ms: quantileOf(good, 0.99),
        },
      ]
    }),
  )
}

function quantileOf(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).toSorted()
  return Math.round((sorted[Math.floor(sorted.length * share)] ?? 0) * 10) / 10
}

if (import.meta.main) {
  console.log(JSON.stringify(await run(JSON.parse(process.argv[2] ?? '') as OpenLoad)))
  process.exit()
}
