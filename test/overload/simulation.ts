/**
 * One event loop and the threads behind it, in a time of their own: visitors who do not wait for each other, and the real
 * `overload.ts` at the gate. Deterministic, and thirty seconds take a moment.
 *
 *   arrivals ─► kernel's queue ─► [ turn: answers that are ready, then all that has come ] ─► readers ─► next turn: answer
 */
import type { Priority } from '../../src/overload/declare.ts'
import { createRandom } from '../lib/random.ts'
import { setUp } from './node.ts'

export interface Work {
  /** Of the loop until it is handed on, and until it is answered. */
  readonly takeMs: number
  readonly answerMs: number
  /** Of a reader. */
  readonly readMs: number
  /** Of all requests. */
  readonly share: number
}

export interface Machine {
  readonly kinds: Readonly<Record<Priority, Work>>
  readonly readers: number
  readonly refuseMs: number
  /** After so long at work others have the processor for so long. */
  readonly others?: { readonly afterMs: number; readonly forMs: number }
  /** Nobody asks whether there is an overload. */
  readonly isUnprotected?: boolean
}

export interface Phase {
  /** Of what the machine can do. */
  readonly load: number
  readonly seconds: number
}

export interface Outcome {
  readonly good: number
  readonly refused: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface PhaseOutcome {
  readonly kinds: Readonly<Record<Priority, Outcome>>
  readonly p99Ms: number
  /** When it was last refused anything or slow, from its beginning. */
  readonly troubledUntilMs: number
  readonly stage: number
}

const priorities = ['high', 'normal', 'low'] as const

/** Requests a second. */
export function capacityOf({ kinds, readers, others }: Machine): number {
  const sum = (of: (work: Work) => number) =>
    priorities.reduce((all, kind) => all + of(kinds[kind]) * kinds[kind].share, 0)
  const slower = others ? (others.afterMs + others.forMs) / others.afterMs : 1
  const loopMs = slower * sum(({ takeMs, answerMs }) => takeMs + answerMs)
  return 1_000 / Math.max(loopMs, sum(({ readMs }) => readMs) / readers)
}

interface Request {
  readonly kind: Priority
  readonly at: number
  readonly phase: number
}

/** Does what it is given in turn. */
class Reader {
  freeAt = 0
  #jobs: { readonly request: Request; readonly doneAt: number }[] = []
  #head = 0

  give(request: Request, doneAt: number): void {
    this.freeAt = doneAt
    this.#jobs.push({ request, doneAt })
  }

  get nextAt(): number {
    return this.#jobs[this.#head]?.doneAt ?? Infinity
  }

  done(upTo: number): Request[] {
    const from = this.#head
    while (this.nextAt <= upTo) this.#head++
    return this.#jobs.slice(from, this.#head).map(({ request }) => request)
  }
}

export function simulate(machine: Machine, phases: readonly Phase[], seed = 1): PhaseOutcome[] {
  const { next: random } = createRandom(seed)
  const { overload, clock, signals, beat, beatEveryMs } = setUp()
  const capacity = capacityOf(machine)
  const readers = Array.from({ length: machine.readers }, () => new Reader())
  const latencies = phases.map(
    () => ({ high: [], normal: [], low: [] }) as Record<Priority, number[]>,
  )
  const refused = phases.map(() => ({ high: 0, normal: 0, low: 0 }))
  const troubled = phases.map(() => 0)
  const stages = phases.map(() => 0)
  const starts: number[] = []
  const endsAt = phases.reduce((at, { seconds }) => (starts.push(at), at + seconds * 1_000), 0)

  const draw = (): Priority => {
    let left = random()
    return priorities.find((kind) => (left -= machine.kinds[kind].share) < 0) ?? 'low'
  }
  const phaseAt = (at: number): number => starts.findLastIndex((start) => start <= at)
  const after = (at: number): Request | undefined => {
    const phase = phaseAt(at)
    const rate = (capacity * (phases[phase]?.load ?? 0)) / 1_000
    const next = at - Math.log(1 - random()) / rate
    return next < endsAt ? { kind: draw(), at: next, phase: phaseAt(next) } : undefined
  }

  let now = 0
  let beatAt = 0
  let coming = after(0)
  let untilOthersMs = machine.others?.afterMs ?? Infinity
  const work = (ms: number): void => {
    signals.cpuMs += ms
    untilOthersMs -= ms
    if (machine.others && untilOthersMs <= 0) {
      signals.stolenMs += machine.others.forMs
      pass(machine.others.forMs)
      untilOthersMs = machine.others.afterMs
    }
    pass(ms)
  }
  const pass = (ms: number): void => {
    now += ms
    clock.advance(now - clock.tick())
    signals.readsMs = Math.max(0, Math.min(...readers.map(({ freeAt }) => freeAt)) - now)
  }
  const beatIfDue = (): void => {
    if (now - beatAt < beatEveryMs()) return
    beatAt = now
    if (!machine.isUnprotected) beat()
    const phase = phaseAt(now)
    stages[phase] = Math.max(stages[phase] ?? 0, overload.stage)
  }
  const trouble = ({ phase, at }: Request): void => {
    troubled[phase] = at - (starts[phase] ?? 0)
  }
  const refuse = (request: Request): void => {
    work(machine.refuseMs)
    overload.end(now)
    const counts = refused[request.phase]
    if (counts) counts[request.kind]++
    trouble(request)
  }
  const take = (request: Request): void => {
    const { takeMs, readMs } = machine.kinds[request.kind]
    overload.begin(now)
    if (overload.isShedding && !overload.admits(request.kind, 'loop', now)) return refuse(request)
    work(takeMs)
    if (!overload.mayLoad(request.kind)) return refuse(request)
    const free = readers.reduce((best, one) => (one.freeAt < best.freeAt ? one : best))
    free.give(request, Math.max(now, free.freeAt) + readMs)
  }

  while (now < endsAt) {
    const turnAt = now
    const ready = readers.flatMap((one) => one.done(turnAt))
    for (const request of ready) {
      work(machine.kinds[request.kind].answerMs)
      const ms = now - request.at
      latencies[request.phase]?.[request.kind].push(ms)
      if (ms > 100) trouble(request)
      overload.end(now)
    }
    let taken = 0
    for (; coming && coming.at <= turnAt; coming = after(coming.at)) {
      take(coming)
      taken++
    }
    beatIfDue()
    if (ready.length + taken > 0) continue
    const next = Math.min(
      coming?.at ?? endsAt,
      beatAt + beatEveryMs(),
      ...readers.map(({ nextAt }) => nextAt),
    )
    pass(Math.max(0.001, next - now))
    beatIfDue()
  }

  return phases.map((_, phase) => {
    const of = latencies[phase] ?? { high: [], normal: [], low: [] }
    const kinds = Object.fromEntries(
      priorities.map((kind) => {
        const good = of[kind]
        const count = refused[phase]?.[kind] ?? 0
        return [
          kind,
          { good: good.length, refused: count, p50Ms: at(good, 0.5), p99Ms: at(good, 0.99) },
        ]
      }),
    ) as Record<Priority, Outcome>
    return {
      kinds,
      p99Ms: at([...of.high, ...of.normal, ...of.low], 0.99),
      troubledUntilMs: troubled[phase] ?? 0,
      stage: stages[phase] ?? 0,
    }
  })
}

function at(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).toSorted()
  return sorted[Math.floor(sorted.length * share)] ?? 0
}
