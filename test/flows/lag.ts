/**
 * How long an event loop was kept from turning, measured from inside it: a timer of 1 ms that notes
 * how late it comes. What the kernel gave to other processes meanwhile is not the loop's doing and
 * is taken off (`/proc/thread-self/schedstat`), so that a figure holds on a loaded machine.
 *
 *   in this process      const monitor = startLagMonitor()
 *   in a belfry process  await using server = await spawnWithLag({ args, cwd }); await server.lag()
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { spawnBelfry, type BelfryProcess, type SpawnOptions } from '../process.ts'
import { startProxy, type Proxy } from '../proxy.ts'

export interface Lag {
  /** The worst since the last reset, ms, waiting for a processor not counted. */
  readonly maxMs: number
  readonly p99Ms: number
  /** The worst as a clock on the wall saw it. */
  readonly wallMaxMs: number
  /** Turns of the timer: without any, nothing was measured. */
  readonly turns: number
}

export interface LagMonitor {
  /** Since the last time it was asked. */
  take(): Lag
  stop(): void
}

const everyMs = 1

export function startLagMonitor(): LagMonitor {
  const stolen = openStolen()
  let lags: number[] = []
  let wallMax = 0
  let turnAt = performance.now()
  let stolenMs = stolen.readMs()
  const turn = (): void => {
    const now = performance.now()
    const wall = now - turnAt - everyMs
    const stolenNow = stolen.readMs()
    lags.push(Math.max(0, wall - (stolenNow - stolenMs)))
    wallMax = Math.max(wallMax, wall)
    turnAt = now
    stolenMs = stolenNow
  }
  const timer = setInterval(turn, everyMs)
  return {
    take() {
      // The turn that is under way counts, too.
      turn()
      const sorted = lags.toSorted((a, b) => a - b)
      const lag = {
        maxMs: round(sorted.at(-1)),
        p99Ms: round(sorted[Math.floor(sorted.length * 0.99)]),
        wallMaxMs: round(wallMax),
        turns: sorted.length,
      }
      lags = []
      wallMax = 0
      // Sorting was ours.
      turnAt = performance.now()
      stolenMs = stolen.readMs()
      return lag
    },
    stop() {
      clearInterval(timer)
      stolen.close()
    },
  }
}

function round(ms = 0): number {
  return Math.round(ms * 100) / 100
}

/** How long this thread could have run and another ran instead. Always 0 where the kernel does not say. */
function openStolen(): { readMs(): number; close(): void } {
  const text = Buffer.alloc(64)
  let file: number
  try {
    file = openSync('/proc/thread-self/schedstat', 'r')
  } catch {
    return { readMs: () => 0, close: () => undefined }
  }
  return {
    readMs() {
      const length = readSync(file, text, 0, text.length, 0)
      return Number(text.toString('latin1', 0, length).split(' ')[1]) / 1e6
    },
    close: () => closeSync(file),
  }
}

export interface ProcessWithLag extends BelfryProcess {
  /** Of its event loop, since the last time it was asked. */
  lag(): Promise<Lag>
}

/** Belfry's own source, with a monitor loaded before it. Asked over a socket in `cwd`. */
export async function spawnWithLag(
  options: Omit<SpawnOptions, 'command'>,
): Promise<ProcessWithLag> {
  const socket = join(options.cwd, 'lag.sock')
  const preload = join(import.meta.dir, 'lag-preload.ts')
  const main = join(import.meta.dir, '../../src/main.ts')
  const server = await spawnBelfry({
    ...options,
    command: [process.execPath, 'run', '--preload', preload, main],
    env: { ...options.env, LAG_SOCKET: socket },
  })
  const lag = async (): Promise<Lag> => {
    const response = await fetch('http://lag/', { unix: socket, keepalive: false })
    return (await response.json()) as Lag
  }
  return { ...server, lag }
}

/** A link of 200 ms there and back to what listens on `port`: its `url` is for DATABASE_URL. */
export async function startSlowLink(port: number): Promise<Proxy> {
  return await startProxy({ target: port, delayMs: 100 })
}

/** What is wanted of every turn, and asked of 99 in 100. */
const lagMsMax = 20

/**
 * Of the worst turn: a processor that others want too may be away for longer than all we do, and its cache is
 * cold when it is back. A query, a copy or a sync on the loop would take seconds. The figure is printed.
 */
const worstMsMax = 500

/** Another's burst of work may fall on one measurement; what we do ourselves falls on every one. */
const attemptsMax = 3

/**
 * Fails unless 99 turns in 100 are less than 20 ms late, or than four times those of `baseline` (the like load
 * without what is measured, in the same process a moment before), and none is held for long. A machine
 * that cannot keep its timers without us is not held against us.
 */
export async function expectSmallLag(
  what: string,
  server: ProcessWithLag,
  run: { readonly baseline: () => Promise<void>; readonly measured: () => Promise<string> },
): Promise<void> {
  const failures: string[] = []
  while (failures.length < attemptsMax) {
    await server.lag()
    await run.baseline()
    const baseline = await server.lag()
    const detail = await run.measured()
    const lag = await server.lag()
    const line = `event loop lag, ${what} (${detail}): ${show(lag)}; without: ${show(baseline)}`
    console.log(line)
    const isSmooth = lag.p99Ms < Math.max(lagMsMax, 4 * baseline.p99Ms)
    const isNeverHeld = lag.maxMs < Math.max(worstMsMax, 4 * baseline.maxMs)
    if (lag.turns > 0 && isSmooth && isNeverHeld) return
    failures.push(line)
  }
  throw new Error(`each time the event loop was late:\n${failures.join('\n')}`)
}

function show({ maxMs, p99Ms, wallMaxMs, turns }: Lag): string {
  return `max ${maxMs} ms, p99 ${p99Ms} (${wallMaxMs} on the wall, ${turns} turns)`
}
