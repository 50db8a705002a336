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
 * there is no queue, and nothing to be won by refusing. While refusing, the queue is what those who came will take of the
 * loop, at what one takes on average (`turns.ts`): known at once, and not only after the turn.
 *
 * Low ones do not wait for that: a line of 20 ms, for the loop or for readers, is longer than any of them stands in. What
 * comes in the 100 ms until a stage is as much as is let in for seconds after, and would be the latest of all. That low
 * ones are refused so for 100 ms is an overload, too.
 *
 * Refusing helps where a request costs much more than its refusal (20 µs, nearly all of it Bun's and the kernel's); what
 * the cache has costs no more, and is refused only for its priority and a late turn.
 *
 * Invariants: in stage 0 and 1 nothing but low ones in a long line is refused, and a request costs 30 ns; what a write made old is
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
import { createTurns, type Turn } from './turns.ts'

export { createMemory, createStolen, threadCpuMs } from './machine.ts'
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
  /** That the event loop has worked so far, and that it was kept from working by others on this machine. */
  readonly cpuMs: () => number
  readonly stolenMs: () => number
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
  /** False: nothing is refused, and nobody need ask. Looked at after `begin`. */
  readonly isShedding: boolean
  /** TTLs are so much longer where something stale may be served, and feeds so much slower: 1, 2 or 4. */
  readonly factor: number
  readonly stage: Stage
  /** A request has come; one was answered, whatever with. `now`: `clock.tick()`. */
  begin(now: number): void
  end(now: number): void
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

/** Between two looks at the loop; more often while a turn's length decides who is let in. */
const beatMs = 10
const beatSheddingMs = 2

/**
 * Where nothing comes for a second, and nothing rises: each beat wakes the process, which costs 0.1 ms and more, a
 * hundred a second 2 % of a core that has nothing to do.
 */
const beatRestingMs = 50
const restAfterMs = 1_000

/** While nothing is ever held back, for whoever asks how it is. */
const beatIdleMs = 1_000

/** Reading it takes 10 µs, and it does not change faster. */
const memoryEveryMs = 1_000

const factors = [1, 2, 4, 4] as const

/** As `turnLimitsMs` says, ten times what is usual. */
const lowLineMsMax = 20

/**
 * So long a turn must have been. What those in line will take is an estimate, and too high where the loop works for
 * something else.
 */
const lineTurnMsMin = 10

/** A look takes 10 µs. */
const lineLookEveryMs = 1

/**
 * Of the last request of a turn. 20 ms: whoever asks waits for some 40, ten times what is usual. 250 ms while refusing:
 * even refusals are more than can be done.
 */
const turnLimitsMs = [20, 40, 250] as const

/** Of a timer, whatever makes it late. */
const loopLimitsMs = [50, Infinity, 1_000] as const
const readsLimitsMs = [50, 150, Infinity] as const
const writesLimitsMs = [250, 1_000, Infinity] as const

/** Of what the loop can do. Beyond it whoever comes waits, and ever longer. */
const fullDemand = 0.8

/** What is taken at 95 of 100 may be ended by the kernel with the next large answer. */
const memoryLimits = [0.8, 0.88, 0.95] as const

/** The room for the last ones is for those who come back. Beyond all of it, each is refused anyway. */
const connectionLimits = [0.9, Infinity, Infinity] as const

/** Any at all. */
const lineLimits = [1, 1, Infinity] as const

/** Of a limit, what is calm again. Memory that is given back shows late, and in part. */
const release = { wait: 0.5, share: 0.97 } as const

export function createOverload(deps: OverloadDeps, initial: Mode = 'auto'): Overload {
  const { clock, log } = deps
  const turns = createTurns(deps, clock.tick())
  const stages = createStages()
  const shares = createShares()
  let said: Said = { mode: initial, atMs: 0 }
  let stage: Stage = 0
  let why = 'calm'
  let since = clock.tick()
  let isShedding = false
  let refusedConnections = 0
  let cancel: Cancel | undefined
  /** Whoever comes then makes this look before the turn is over. */
  let ripeAt = Infinity
  /** When somebody came, or something rose. */
  let busyAt = clock.tick()
  let isResting = false
  /** Longer than low ones stand in, in this turn or the last one. */
  let isLineLong = false
  /** In this turn: at its longest, and how many were refused for it. */
  let lineMs = 0
  let lineRefused = 0
  let lineLookAt = -Infinity
  let memoryAt = -Infinity
  let memory = 0

  /** `standing`: what is bad of one turn alone keeps no stage. */
  const signalsOf = (turn: Turn, standing = turn): readonly Signal[] => {
    const scale = Math.sqrt(turns.grain)
    const requests = signal('requests', turn.waitMs / scale, turnLimitsMs, release.wait)
    const loop = signal('loop', turn.lateMs, loopLimitsMs, release.wait)
    return [
      { ...requests, standing: standing.waitMs / scale },
      { ...loop, standing: standing.lateMs },
      signal('reads', deps.readsWaitMs(), readsLimitsMs, release.wait),
      signal('writes', deps.writesWaitMs(), writesLimitsMs, release.wait),
      signal('memory', memory, memoryLimits, release.share),
      signal('connections', deps.connectionShare(), connectionLimits, release.share),
      signal('line', lineRefused, lineLimits, release.wait),
    ]
  }

  const valuesAt = (now: number): Record<string, number> => {
    const values = signalsOf(worseOf(turns.worst(), turns.turn(now))).map(({ name, value }) => [
      units[name as keyof typeof units],
      Math.round(value * 1_000) / 1_000,
    ])
    return Object.fromEntries(values) as Record<string, number>
  }

  /** The stage that is: the signals', or the one by hand. */
  const settle = (now: number): void => {
    const floor = least[said.mode]
    const next = said.mode === 'normal' ? 0 : (Math.max(stages.stage, floor) as Stage)
    if (next === stage) return
    const reason = stages.stage >= floor && said.mode !== 'normal' ? stages.why : 'mode'
    const names = { stage: stageNames[next], was: stageNames[stage], why: reason }
    log[next > stage ? 'warn' : 'info']('overload.stage', { ...names, ...valuesAt(now) })
    if (next >= 2) shares.hurt(now)
    stage = next
    why = reason
    since = now
    const wasShedding = isShedding
    isShedding = stage >= 2
    if (cancel && isShedding !== wasShedding) start()
  }

  const lookAtLine = (turn: Turn): void => {
    const isTurnLong = turn.waitMs >= lineTurnMsMin * Math.sqrt(turns.grain)
    isLineLong = said.mode !== 'normal' && isTurnLong && lineMs > lowLineMsMax
  }

  const lookAtLineEarly = (now: number): void => {
    lineLookAt = now + lineLookEveryMs
    if (said.mode !== 'normal' && !isShedding && !isLineLong) lookAtLine(turns.turn(now))
  }

  const beat = (): void => {
    const now = clock.tick()
    const before = turns.beatAt
    const turn = turns.beat(now, beatMs)
    if (!turn) return
    lookAtLine(turn)
    if (said.mode !== 'normal' && deps.readsWaitMs() > lowLineMsMax) isLineLong = true
    if (now - memoryAt >= memoryEveryMs) {
      memoryAt = now
      memory = deps.memoryShare()
    }
    if (said.untilMs !== undefined && clock.now() >= said.untilMs) {
      log.info('overload.mode', { mode: 'auto', was: said.mode })
      said = { mode: 'auto', atMs: said.atMs }
      start()
    }
    const isStrained = shares.look(now, turns.demand() >= fullDemand)
    stages.look(signalsOf(turn, betterOf(...turns.last)), { now, since: before, isStrained })
    if ((stages.stage >= 2 && stages.isHeld) || least[said.mode] >= 2) shares.hurt(now)
    settle(now)
    lineMs = lineRefused = 0
    ripeAt = stages.stage < 2 ? stages.ripeAt : Infinity
    if (stages.stage > 0 || ripeAt < Infinity) busyAt = now
    const rests = now - busyAt >= restAfterMs
    if (rests === isResting) return
    isResting = rests
    start()
  }

  const wake = (): void => {
    isResting = false
    start()
  }

  /** In the second long turn, which may be over too late: each of those who come in it would be let in. */
  const lookEarly = (now: number): void => {
    const turn = turns.turn(now)
    const isLate = turn.waitMs >= turnLimitsMs[0] * Math.sqrt(turns.grain)
    // A turn that has just begun says nothing yet: what is rising is neither confirmed by it nor over.
    if (isLate) {
      const signals = signalsOf(worseOf(turn, turns.last[0]))
      stages.look(signals, { now, since: turns.beatAt, isStrained: false })
      settle(now)
    }
    ripeAt = stages.stage < 2 ? now + beatMs : Infinity
  }

  const apply = (next: Said): void => {
    if (next.mode !== said.mode) log.warn('overload.mode', { ...next, was: said.mode })
    const wasIdle = said.mode === 'normal'
    said = next
    isLineLong = false
    if (cancel && wasIdle !== (next.mode === 'normal')) start()
    settle(clock.tick())
  }

  const start = (): void => {
    cancel?.()
    const everyMs = paceMs()
    turns.pace(everyMs)
    cancel = clock.every(everyMs, beat)
  }

  const paceMs = (): number => {
    if (said.mode === 'normal') return beatIdleMs
    if (isShedding) return beatSheddingMs
    return isResting ? beatRestingMs : beatMs
  }

  return {
    get isShedding() {
      return isShedding || isLineLong
    },
    get factor() {
      return factors[stage]
    },
    get stage() {
      return stage
    },
    begin(now) {
      busyAt = now
      if (isResting) wake()
      turns.begin(now)
      if (now >= ripeAt) lookEarly(now)
      lineMs = Math.max(lineMs, turns.backlogMs() / turns.grain)
      if (lineMs > lowLineMsMax && now >= lineLookAt) lookAtLineEarly(now)
    },
    end: turns.end,
    admits(kind, queue, now) {
      if (kind === 'connection') {
        if (stage < 3) return true
        refusedConnections++
        return false
      }
      if (!isShedding) {
        if (kind !== 'low' || !isLineLong) return true
        lineRefused++
      }
      // By hand there need not be a queue.
      const queueMs = stages.stage >= 2 ? turns.backlogMs() / turns.grain : 0
      const waitMs = isShedding ? queueMs : Infinity
      const isIn =
        shares.admits(kind, waitMs, now) &&
        (queue !== 'writes' || shares.awaits(kind, queue, deps.writesWaitMs()))
      if (!isIn) turns.refuse()
      return isIn
    },
    mayLoad(priority = 'high') {
      if (!isShedding || shares.awaits(priority, 'reads', deps.readsWaitMs())) return true
      turns.refuse()
      return false
    },
    async set(mode, forMs) {
      const now = clock.now()
      // Later than what was said last, also by a node whose clock is ahead.
      const atMs = Math.max(now, said.atMs + 1)
      const next = { mode, atMs, ...(forMs === undefined ? {} : { untilMs: now + forMs }) }
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
      turns.beat(clock.tick(), 0)
      start()
      settle(clock.tick())
    },
    stop() {
      cancel?.()
      cancel = undefined
    },
  }
}

function worseOf(one: Turn, other: Turn): Turn {
  return {
    waitMs: Math.max(one.waitMs, other.waitMs),
    lateMs: Math.max(one.lateMs, other.lateMs),
  }
}

function betterOf(one: Turn, other: Turn): Turn {
  return {
    waitMs: Math.min(one.waitMs, other.waitMs),
    lateMs: Math.min(one.lateMs, other.lateMs),
  }
}

const units = {
  requests: 'requestsWaitMs',
  loop: 'loopLateMs',
  reads: 'readsWaitMs',
  writes: 'writesWaitMs',
  memory: 'memoryShare',
  connections: 'connectionShare',
  line: 'lineRefused',
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
