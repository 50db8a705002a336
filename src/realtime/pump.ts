/**
 * Moves what was published to those who listen, in turns:
 *
 *   publish ─► Outbox.append ─► queue ─► (this turn is over) ─► one chunk to one shard of each outbox
 *                                 ▲                              in the queue, round after round, until
 *                                 └─── next turn goes on ─────── the turn's time is over
 *
 * So what is published within a turn of the event loop leaves in one write per listener, requests are
 * served between two slices of a large audience, and a small topic does not wait for a large one. Under
 * load, publications are let gather for as long as the last writes took, at most 10 ms; if nothing
 * gathers (a publisher that waits for its subscribers), seldom. Nothing runs while nothing is published.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import { Pace } from '../lib/pace.ts'

/** An outbox, as the pump sees it. */
export interface Pumped {
  /** Set by the pump alone. */
  isQueued: boolean
  /** Nothing waits. */
  readonly isEmpty: boolean
  /** Delivers some of what waits; to how many. */
  step(): number
}

/** A listener of several outboxes, which gathers what they push within a round. */
export interface Gathering {
  flush(): void
}

export interface Pump {
  /** More waits than memory should hold: publications come faster than they can be written. */
  readonly isFull: boolean
  /** Until there is room again, as far as one can tell. */
  readonly roomInMs: number
  /** `outbox` was given a frame of this length. */
  add(outbox: Pumped, length: number): void
  /** Frames of this length left their outbox. */
  forget(length: number): void
  /** `listener` has something to write once this round is over. */
  gather(listener: Gathering): void
  /** Works now, for at most so long; Infinity: to the end, on the way down. */
  flush(withinMs: number): void
  stop(): void
}

/**
 * Characters joined to one write. The engine copies what fits its cork buffer (16 KB) and writes it at
 * once; above that a write costs by its length, and nothing is gained by joining.
 */
export const chunkLengthMax = 16_000

export interface PumpLimits {
  /** Of work, until requests have their turn. A step in progress is finished: 5 ms more. */
  readonly turnMs: number
}

export const turnMsDefault = 8

/**
 * Listeners that are pushed something in one turn. A stream only takes the bytes then and writes them
 * when the turn is over, where no clock sees it: 10 ms of writes.
 */
const turnPushesMax = 1_000

/** Publications gather no longer than this, however long the last writes took. */
const gatherMsMax = 10

/** After waits in which nothing came, so many times at most publications leave without one. */
const hasteMax = 64

/** Listeners that gather until they are written to: about 5 ms of writes. */
const gatheredMax = 500

/** Characters in all outboxes: a second of 100,000 publications of 160 bytes. */
const waitingLengthMax = 16 * 1024 * 1024

/** Who comes back finds room for more than the one that was too much. */
const roomLength = waitingLengthMax / 16

/** A write, until it is known: 100 frames of 160 characters to 10,000 sockets in 100 ms. */
const msPerCharacterAtFirst = 0.006

export function createPump(clock: Clock, { turnMs }: PumpLimits): Pump {
  let queue: Pumped[] = []
  /** Outboxes of this round that had their step and still have something. */
  let again: Pumped[] = []
  let gathered: Gathering[] = []
  /** Of `queue` and `gathered`: those before it had their turn. */
  let queueAt = 0
  let gatheredAt = 0
  let waitingLength = 0
  let goneLength = 0
  const pace = new Pace(msPerCharacterAtFirst)
  let pushes = 0
  let state: 'idle' | 'scheduled' | 'running' = 'idle'
  let cancel: Cancel | undefined
  let isStopped = false
  let endedAt = -Infinity
  /** From the first write to the last, without what happened between the slices. */
  let costMs = 0
  let spentMs = 0
  /** While publications gather: did one come in a later turn than the first? */
  let isFirstTurn = false
  let hasGathered = false
  let gatheredLength = 0
  /** Times left without a wait, and how many it were. */
  let haste = 0
  let hasteLast = 0

  const stepNext = (): boolean => {
    const outbox = queue[queueAt]
    if (!outbox) return false
    queueAt += 1
    pushes += outbox.step()
    if (outbox.isEmpty) outbox.isQueued = false
    else again.push(outbox)
    return true
  }

  const flushNext = (): boolean => {
    const listener = gathered[gatheredAt]
    if (!listener) return false
    gatheredAt += 1
    listener.flush()
    return true
  }

  /** One step of the work; false when there is none. */
  const work = (): boolean => {
    const isFull = gathered.length >= gatheredMax
    if (!isFull && stepNext()) return true
    if (flushNext()) return true
    gathered = []
    gatheredAt = 0
    if (isFull && stepNext()) return true
    queue = again
    again = []
    queueAt = 0
    return stepNext()
  }

  const run = (withinMs: number, pushesMax = Infinity): void => {
    if (state === 'running') return
    cancel?.()
    cancel = undefined
    state = 'running'
    const startedAt = clock.tick()
    let isLeft = true
    pushes = 0
    try {
      do isLeft = work()
      while (isLeft && pushes < pushesMax && clock.tick() - startedAt < withinMs)
    } finally {
      const now = clock.tick()
      spentMs += now - startedAt
      if (isLeft) soon()
      else rest(now)
    }
  }

  const soon = (): void => {
    state = 'scheduled'
    clock.soon(turn)
  }

  const turn = (): void => {
    if (!isStopped && state !== 'idle') run(turnMs, turnPushesMax)
  }

  const rest = (now: number): void => {
    state = 'idle'
    endedAt = now
    costMs = spentMs
    pace.took(goneLength, spentMs)
    spentMs = 0
    goneLength = 0
  }

  const schedule = (): void => {
    const leftMs = endedAt + Math.min(gatherMsMax, costMs) - clock.tick()
    if (leftMs < 1) return soon()
    if (haste > 0) {
      haste -= 1
      return soon()
    }
    state = 'scheduled'
    cancel = clock.after(leftMs, gatherEnds)
    gatheredLength = 0
    hasGathered = false
    isFirstTurn = true
    clock.soon(() => (isFirstTurn = false))
  }

  /** Another one while publications gather. A full write gains nothing by waiting for more. */
  const more = (length: number): void => {
    if (!isFirstTurn) hasGathered = true
    gatheredLength += length
    if (gatheredLength < chunkLengthMax) return
    cancel?.()
    cancel = undefined
    soon()
  }

  const gatherEnds = (): void => {
    hasteLast = hasGathered ? 0 : Math.min(hasteMax, 2 * hasteLast + 1)
    haste = hasteLast
    turn()
  }

  return {
    get isFull() {
      return waitingLength > waitingLengthMax
    },
    add(outbox, length) {
      waitingLength += length
      if (!outbox.isQueued) {
        outbox.isQueued = true
        queue.push(outbox)
      }
      if (state === 'idle') schedule()
      else if (cancel) more(length)
    },
    get roomInMs() {
      return pace.waitMs(waitingLength - waitingLengthMax + roomLength)
    },
    forget(length) {
      waitingLength -= length
      goneLength += length
    },
    gather(listener) {
      gathered.push(listener)
      if (state === 'idle') soon()
    },
    flush: run,
    stop() {
      isStopped = true
      cancel?.()
    },
  }
}
