/**
 * Overload: what is given up, and in which order, when more is asked than can be done; so that the rest is done in time.
 *
 *   turns of the loop, waits for the store, ─► stage ─┬─ 1 saving    what may be stale is served longer, feeds slow down
 *   memory, connections                    ▲          ├─ 2 refusing  low priorities first, each by how long it would wait
 *                              mode, by hand ┘         └─ 3 closed    no new sockets and streams; the open ones go on
 *
 * One event loop has its queue in the kernel, where nobody can count it. It shows in turns: what has come is taken in one,
 * and a timer comes after it. So a request has waited as long as its turn has been answering others, and the last of a
 * turn says how long the queue was. A timer may be late for other reasons, as on a machine that has no time for us: then
 * there is no queue, and nothing to be won by refusing.
 *
 * Refusing helps where a request costs much more than its refusal (20 µs, nearly all of it Bun's and the kernel's); what
 * the cache has costs no more, and is refused only for its priority and a late turn.
 *
 * Invariants: in stage 0 and 1 nothing is refused, and a request costs one look at `isShedding`; what a write made old is
 * not served in any stage; health, metrics and administration are always answered; a stage takes 100 ms to come and 3 s
 * to go. By hand: a mode is the least stage, or none at all (`normal`); it is told to all nodes, and survives a restart.
 *
 * Limits: a queue in front of this process (a proxy's, a client's own) cannot be seen from here. Commands on open sockets
 * are not refused: they have limits of their own.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { Priority } from './declare.ts'
import { createShares, type Queue } from './shares.ts'
import { createStages, stageNames, type Signal, type Stage } from './stages.ts'

export { createMemory } from './memory.ts'
export type { Queue } from './shares.ts'

/** `auto`: as the signals say. `normal`: nothing is ever held back. Others: at least that stage, `emergency` the second. */
export const modes = ['auto', 'normal', 'saving', 'emergency', 'closed'] as const
export type Mode = (typeof modes)[number]

const least: Record<Mode, Stage> = { auto: 0, normal: 0, saving: 1, emergency: 2, closed: 3 }

export interface OverloadDeps {
  readonly clock: Clock
  readonly log: Log
  /** Of whoever comes now, in ms, until a thread of the store reads for him, or the writer takes his write. */
  readonly readsWaitMs: () => number
  readonly writesWaitMs: () => number
  /** Of what may be used at most: 0 to 1. */
  readonly memoryShare: () => number
  readonly connectionShare: () => number
  /** Told to all nodes and remembered; a failure is logged, and the mode is kept here all the same. */
  readonly announce?: (said: Said) => Promise<void>
}

/** A mode that somebody set. */
export interface Said {
  readonly mode: Mode
  /** Ms since 1970. */
  readonly atMs: number
  /** Then it is `auto` again. */
  readonly untilMs?: number | undefined
}

export interface OverloadStatus extends Said {
  readonly stage: (typeof stageNames)[number]
  /** What led to the stage: a signal, `calm` or `mode`. */
  readonly why: string
  readonly forMs: number
  readonly signals: Readonly<Record<string, number>>
  readonly refused: Readonly<Record<Priority | 'connection', number>>
}

export interface Overload {
  /** False: nothing is refused, and nobody need ask. */
  readonly isShedding: boolean
  /** TTLs are so much longer where something stale may be served, and feeds so much slower: 1, 2 or 4. */
  readonly factor: number
  readonly stage: Stage
  /** A request was answered. `now`: `clock.tick()`. */
  note(now: number): void
  /** `now`: `clock.tick()`. While `isShedding`. */
  admits(kind: Priority | 'connection', queue: Queue, now: number): boolean
  /** Whether whoever waits for it may have something read. */
  mayLoad(priority: Priority | undefined): boolean
  set(mode: Mode, forMs?: number): Promise<void>
  /** What was said on another node, or before a restart. */
  hear(said: unknown): void
  status(): OverloadStatus
  start(): void
  stop(): void
}

/** Between two looks at the loop; more often while its lateness decides who is let in. */
const beatMs = 10
const beatSheddingMs = 2

/** Reading it takes 10 µs, and it does not change faster. */
const memoryEveryMs = 1_000

/** A second of looks; of these, the second worst is told. */
const latesMax = 100

const factors = [1, 2, 4, 4] as const

/**
 * Of the last request of a turn. 20 ms: whoever asks waits for some 40, ten times what is usual. 250 ms while refusing:
 * even refusals are more than can be done.
 */
const turnLimitsMs = [20, 40, 250] as const

/** Of a timer, whatever makes it late. */
const loopLimitsMs = [50, Infinity, 1_000] as const
const readsLimitsMs = [50, 150, Infinity] as const
const writesLimitsMs = [250, 1_000, Infinity] as const

/** What is taken at 95 of 100 may be ended by the kernel with the next large answer. */
const memoryLimits = [0.8, 0.88, 0.95] as const

/** The room for the last ones is for those who come back. Beyond all of it, each is refused anyway. */
const connectionLimits = [0.9, Infinity, Infinity] as const

/** Of a limit, what is calm again. Memory that is given back shows late, and in part. */
const release = { wait: 0.5, share: 0.97 } as const

export function createOverload(deps: OverloadDeps, initial: Mode = 'auto'): Overload {
  const { clock, log } = deps
  const stages = createStages()
  const shares = createShares()
  const lates = new Float64Array(latesMax)
  const waits = new Float64Array(latesMax)
  let looked = 0
  let said: Said = { mode: initial, atMs: 0 }
  let stage: Stage = 0
  let why = 'calm'
  let since = clock.tick()
  let isShedding = false
  let refusedConnections = 0

  let everyMs = beatMs
  let cancel: Cancel | undefined
  let beatAt = clock.tick()
  let lookedAt = beatAt
  /** Of the requests that were answered since the last beat, the first and the last; -1: none was. */
  let firstAt = -1
  let lastAt = -1
  let memoryAt = -Infinity
  let memory = 0

  const lateAt = (now: number): number => Math.max(0, now - beatAt - everyMs)

  /** Since a beat was due, how long others have been answered. */
  const waitAt = (now: number): number =>
    firstAt < 0 ? 0 : Math.max(0, now - Math.max(firstAt, beatAt + everyMs))

  const signalsAt = (waitMs: number, lateMs: number): readonly Signal[] => [
    signal('requests', waitMs, turnLimitsMs, release.wait),
    signal('loop', lateMs, loopLimitsMs, release.wait),
    signal('reads', deps.readsWaitMs(), readsLimitsMs, release.wait),
    signal('writes', deps.writesWaitMs(), writesLimitsMs, release.wait),
    signal('memory', memory, memoryLimits, release.share),
    signal('connections', deps.connectionShare(), connectionLimits, release.share),
  ]

  const beatEvery = (ms: number): void => {
    everyMs = ms
    cancel?.()
    cancel = clock.every(ms, beat)
  }

  /** The stage that is: the signals', or the one by hand. */
  const settle = (now: number): void => {
    const floor = least[said.mode]
    const next = said.mode === 'normal' ? 0 : (Math.max(stages.stage, floor) as Stage)
    isShedding = next >= 2
    const reason = stages.stage >= floor && said.mode !== 'normal' ? stages.why : 'mode'
    if (next === stage) return
    const fields = {
      stage: stageNames[next],
      was: stageNames[stage],
      why: reason,
      ...valuesAt(now),
    }
    log[next > stage ? 'warn' : 'info']('overload.stage', fields)
    if (next >= 2) shares.hurt(now)
    stage = next
    why = reason
    since = now
    if (cancel) beatEvery(isShedding ? beatSheddingMs : beatMs)
  }

  const beat = (): void => {
    const now = clock.tick()
    const lateMs = lateAt(now)
    const waitMs = waitAt(lastAt)
    const before = beatAt
    beatAt = now
    firstAt = -1
    shares.turn()
    if (now - lookedAt < beatMs) return
    const last = (looked + latesMax - 1) % latesMax
    const [lastLateMs = 0, lastWaitMs = 0] = [lates[last], waits[last]]
    lates[looked % latesMax] = lateMs
    waits[looked++ % latesMax] = waitMs
    if (now - memoryAt >= memoryEveryMs) {
      memoryAt = now
      memory = deps.memoryShare()
    }
    if (said.untilMs !== undefined && clock.now() >= said.untilMs) {
      log.info('overload.mode', { mode: 'auto', was: said.mode })
      said = { mode: 'auto', atMs: said.untilMs }
    }
    // What is one late turn alone keeps no stage: calm is looked for in the better of the last two.
    const standing = (ms: number, lastMs: number) =>
      stages.stage === 0 ? ms : Math.min(ms, lastMs)
    const signals = signalsAt(standing(waitMs, lastWaitMs), standing(lateMs, lastLateMs))
    const isStrained = shares.look(now)
    lookedAt = now
    stages.look(signals, { now, since: before, isStrained })
    if ((stages.stage >= 2 && stages.isHeld) || least[said.mode] >= 2) shares.hurt(now)
    settle(now)
  }

  const valuesAt = (now: number): Record<string, number> => {
    const worst = (of: Float64Array) => of.slice(0, looked).toSorted().at(-2) ?? 0
    const signals = signalsAt(
      Math.max(worst(waits), waitAt(now)),
      Math.max(worst(lates), lateAt(now)),
    )
    const values = signals.map(({ name, value }) => [
      units[name as keyof typeof units],
      Math.round(value * 1_000) / 1_000,
    ])
    return Object.fromEntries(values) as Record<string, number>
  }

  const apply = (next: Said): void => {
    if (next.mode !== said.mode) log.warn('overload.mode', { ...next, was: said.mode })
    said = next
    settle(clock.tick())
  }

  return {
    get isShedding() {
      return isShedding
    },
    get factor() {
      return factors[stage]
    },
    get stage() {
      return stage
    },
    note(now) {
      if (firstAt < 0) firstAt = now
      lastAt = now
    },
    admits(kind, queue, now) {
      if (kind === 'connection') {
        if (stage < 3) return true
        refusedConnections++
        return false
      }
      if (!shares.admits(kind, waitAt(now), now)) return false
      return queue !== 'writes' || shares.awaits(kind, queue, deps.writesWaitMs())
    },
    mayLoad(priority = 'high') {
      return !isShedding || shares.awaits(priority, 'reads', deps.readsWaitMs())
    },
    async set(mode, forMs) {
      const atMs = clock.now()
      const next = { mode, atMs, ...(forMs === undefined ? {} : { untilMs: atMs + forMs }) }
      apply(next)
      try {
        await deps.announce?.(next)
      } catch (error) {
        log.warn('overload.mode_not_told', { error })
      }
    },
    hear(value) {
      if (!isSaid(value) || value.atMs <= said.atMs) return
      if (value.untilMs === undefined || value.untilMs > clock.now()) apply(value)
    },
    status: () => ({
      ...said,
      stage: stageNames[stage],
      why,
      forMs: Math.round(clock.tick() - since),
      signals: valuesAt(clock.tick()),
      refused: { ...shares.refused, connection: refusedConnections },
    }),
    start() {
      beatAt = lookedAt = clock.tick()
      beatEvery(beatMs)
      settle(beatAt)
    },
    stop() {
      cancel?.()
      cancel = undefined
    },
  }
}

const units = {
  requests: 'requestsWaitMs',
  loop: 'loopLateMs',
  reads: 'readsWaitMs',
  writes: 'writesWaitMs',
  memory: 'memoryShare',
  connections: 'connectionShare',
} as const

function signal(
  name: keyof typeof units,
  value: number,
  limits: Signal['limits'],
  released: number,
): Signal {
  return { name, value, limits, release: released }
}

function isSaid(value: unknown): value is Said {
  const { mode, atMs, untilMs } = (value ?? {}) as Readonly<Record<string, unknown>>
  const isTimed = untilMs === undefined || typeof untilMs === 'number'
  return modes.includes(mode as Mode) && typeof atMs === 'number' && isTimed
}
