/**
 * What the turns of the event loop say: how long the queue was that they took in, and what a request takes of them.
 *
 *   beat ─► answers that are ready ─► all that has come since the last turn ─► beat
 *           └────────── waits: from here … ──────────────── … to here ──────┘
 *
 * A beat comes after the turn. Time before the first request of a turn is not counted: whoever comes after a pause has
 * waited, but there is no queue. Nor is time in which the machine let others run: it is not won back by refusing anybody,
 * and who refuses for that would leave the little that he is given unused.
 */

/** A second of them. */
const turnsMax = 100

/** What is left of the sums after a turn of the usual length: half of a second's after 0.7 s. */
const memoryOfCosts = 0.99
const usualTurnMs = 10

/** What is said in ms elsewhere is for requests of up to 2 ms; where they take longer, waits are longer, up to so often. */
const usualCostMs = 2
const grainMax = 4

/** Of fewer, most of the work is for something else. */
const answeredMin = 10

/** Before anybody is refused there may be any number of them; then the wait is as long as it is, and soon over. */
const owedMsMax = 50

export interface TurnsDeps {
  /** Of this thread, so far: that it worked, and that it could have worked and another did. */
  readonly cpuMs: () => number
  readonly stolenMs: () => number
}

export interface Turn {
  /** Of its last request, at least. */
  readonly waitMs: number
  /** Of the beat, for whatever reason of our own. */
  readonly lateMs: number
}

export interface Turns {
  /** A request has come; one was answered. */
  begin(now: number): void
  end(now: number): void
  /** One that has come is refused: it takes next to nothing. */
  refuse(): void
  /** What those who came before the last one will take of the loop. */
  backlogMs(): number
  /** Of a second of the loop, what all who come would take, also those who are refused: above 1 it is more than can be done. */
  demand(): number
  /** So far. */
  turn(now: number): Turn
  /** How often it beats from now on. */
  pace(everyMs: number): void
  /** The turn is over, if it was one: none is shorter than `leastMs`. */
  beat(now: number, leastMs: number): Turn | undefined
  readonly beatAt: number
  /** The last two that were over, the later one first. */
  readonly last: readonly [Turn, Turn]
  /** In the last second, but for the worst. */
  worst(): Turn
  /** 1, or how much longer waits are usual here. */
  readonly grain: number
}

const none: Turn = { waitMs: 0, lateMs: 0 }

export function createTurns({ cpuMs, stolenMs }: TurnsDeps, startedAt: number): Turns {
  let turns: Turn[] = []
  let beatAt = startedAt
  let everyMs = Infinity
  let turnAt = startedAt
  /** When requests came and were answered since the last beat, first and last; -1: none. */
  let firstAt = -1
  let lastAt = -1
  let stolenAtMs = stolenMs()
  let cpuAtMs = cpuMs()
  let workedMs = 0
  let answered = 0
  let begun = 0
  let ownMs = 0
  let costMs = 0
  let grain = 1
  /** Work of those who have come. It gets less in time that is ours, also while they wait for something else. */
  let owedMs = 0

  const mark = (now: number): void => {
    if (firstAt < 0) firstAt = now
    lastAt = now
  }

  const turnTo = (now: number, requestAt: number, stolen: number): Turn => ({
    waitMs: firstAt < 0 ? 0 : Math.max(0, requestAt - Math.max(firstAt, beatAt + everyMs) - stolen),
    lateMs: Math.max(0, now - beatAt - everyMs - stolen),
  })

  const learnCost = (): void => {
    const nowMs = cpuMs()
    // Also where it beats less often.
    const kept = everyMs > usualTurnMs ? memoryOfCosts ** (everyMs / usualTurnMs) : memoryOfCosts
    workedMs = workedMs * kept + nowMs - cpuAtMs
    answered *= kept
    begun *= kept
    ownMs *= kept
    cpuAtMs = nowMs
    costMs = workedMs / Math.max(answered, answeredMin)
    grain = Math.min(grainMax, Math.max(1, costMs / usualCostMs))
  }

  return {
    begin(now) {
      begun++
      owedMs = Math.min(owedMs + costMs, owedMsMax)
      mark(now)
    },
    end(now) {
      answered++
      mark(now)
    },
    refuse() {
      answered--
      owedMs = Math.max(0, owedMs - costMs)
    },
    backlogMs: () => owedMs - costMs,
    demand: () => (ownMs > 0 ? (costMs * begun) / ownMs : 0),
    turn: (now) => turnTo(now, now, stolenMs() - stolenAtMs),
    pace: (ms) => void (everyMs = ms),
    beat(now, leastMs) {
      const stolen = stolenMs() - stolenAtMs
      const turn = turnTo(now, lastAt, stolen)
      const own = Math.max(0, now - beatAt - stolen)
      ownMs += own
      owedMs = Math.max(0, owedMs - own)
      stolenAtMs += stolen
      beatAt = now
      firstAt = -1
      if (now - turnAt < leastMs) return undefined
      turnAt = now
      turns.push(turn)
      if (turns.length > turnsMax) turns = turns.slice(-turnsMax / 2)
      learnCost()
      return turn
    },
    get beatAt() {
      return beatAt
    },
    get last() {
      const last: readonly [Turn, Turn] = [turns.at(-1) ?? none, turns.at(-2) ?? none]
      return last
    },
    worst() {
      const second = (values: readonly number[]) => values.toSorted((a, b) => b - a)[1] ?? 0
      return {
        waitMs: second(turns.map((turn) => turn.waitMs)),
        lateMs: second(turns.map((turn) => turn.lateMs)),
      }
    },
    get grain() {
      return grain
    },
  }
}
