/**
 * How many signatures are looked at, in this process and from wherever they come: a token that is not known waits for
 * its turn.
 *
 *   token ─► its turn? ─────────────────────────► its signature ─ good ─► as if it had never been here
 *         ├► in line, one of each address in turn ─┘             ─ bad  ─► one of 1,000 a second
 *         └► forged ones hold the line up, and it is full ─► `overloaded`: come again in a second
 *
 * Only what turns out to be bad is bounded: a restart that brings everybody back with good tokens takes what the machine
 * can. So forged tokens from a million addresses cost a seventh of a core at most (140 µs each; of one address
 * `credentials` allows far fewer), and hold up whoever brings a new one for a second; what is known (`token-cache.ts`)
 * never comes here.
 */
import { Fault } from '../fault.ts'
import { Bucket } from '../lib/bucket.ts'
import type { Cancel, Clock } from '../lib/clock.ts'

export interface TurnLimits {
  /** In the long run. */
  readonly badPerSecond: number
  /** After a rest. */
  readonly badAtOnce: number
  /** At once: the threads that do it have enough to do, and whoever comes next is not behind all that came before. */
  readonly runningMax: number
  /** Of good ones: 10 MB of tokens as most are. */
  readonly waitingMax: number
  /** While bad ones hold the line up: as many as get their turn in a second. */
  readonly heldUpMax: number
  /** Of one address among these. */
  readonly heldUpOfAddressMax: number
}

export const turnLimits: TurnLimits = {
  badPerSecond: 1_000,
  badAtOnce: 1_000,
  runningMax: 64,
  waitingMax: 10_000,
  heldUpMax: 1_000,
  heldUpOfAddressMax: 100,
}

/** Between two looks at a line that waits for the next second. */
const stepMs = 10

const retryAfterMs = 1_000

export interface Turns {
  /** `check`, in its turn, says whether it was good. `from`: asked only if there is a line. Faults: `overloaded`. */
  run(from: () => string, check: () => Promise<boolean>): Promise<boolean>
  readonly waiting: number
  /** Sent away so far. */
  readonly refused: number
  /** Whoever waits is sent away. */
  stop(): void
}

interface Waiting {
  readonly goOn: () => void
  readonly leave: (fault: Fault) => void
}

export function createTurns(
  { clock }: { readonly clock: Clock },
  limits: TurnLimits = turnLimits,
): Turns {
  const { badPerSecond, badAtOnce, runningMax } = limits
  /** So many may still be bad; who has a turn is thought to be. */
  const spare = new Bucket(clock, { perSecond: badPerSecond, most: badAtOnce })
  /** By address; whose turn is next comes first. */
  const lines = new Map<string, Waiting[]>()
  let waiting = 0
  let running = 0
  let refused = 0
  let cancel: Cancel | undefined

  const begin = (): void => {
    running++
    spare.take()
  }

  /** One of the address whose turn it is, which is the last one then. */
  const next = (): Waiting | undefined => {
    for (const [address, line] of lines) {
      const first = line.shift()
      lines.delete(address)
      if (line.length > 0) lines.set(address, line)
      return first
    }
    return undefined
  }

  const serve = (): void => {
    spare.fill()
    while (waiting > 0 && running < runningMax && !spare.isEmpty) {
      waiting--
      begin()
      next()?.goOn()
    }
    if (waiting > 0) cancel ??= clock.every(stepMs, serve)
    else {
      cancel?.()
      cancel = undefined
    }
  }

  const isFull = (address: string): boolean => {
    if (waiting >= limits.waitingMax) return true
    if (!spare.isEmpty) return false
    const own = lines.get(address)?.length ?? 0
    return waiting >= limits.heldUpMax || own >= limits.heldUpOfAddressMax
  }

  const wait = async (address: string): Promise<void> => {
    if (isFull(address)) {
      refused++
      throw new Fault('overloaded', 'too many tokens are being verified', { retryAfterMs })
    }
    await new Promise<void>((goOn, leave) => {
      const line = lines.get(address)
      if (line) line.push({ goOn, leave })
      else lines.set(address, [{ goOn, leave }])
      waiting++
      serve()
    })
  }

  return {
    get waiting() {
      return waiting
    },
    get refused() {
      return refused
    },
    async run(from, check) {
      spare.fill()
      if (waiting === 0 && running < runningMax && !spare.isEmpty) begin()
      else await wait(from())
      let isGood = false
      try {
        isGood = await check()
        return isGood
      } finally {
        running--
        if (isGood) spare.giveBack()
        serve()
      }
    },
    stop() {
      cancel?.()
      cancel = undefined
      const fault = new Fault('unavailable', 'the server is stopping')
      for (const line of lines.values()) for (const { leave } of line) leave(fault)
      lines.clear()
      waiting = 0
    },
  }
}
