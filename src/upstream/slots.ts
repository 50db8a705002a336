/**
 * The slots of one key: what makes it certain that no window at the provider holds too many calls.
 *
 *        sent ────────── answered ──────── + window
 *         └──────── occupied ────────────────┘
 *
 * The provider counts when calls arrive; known here is when they are sent and answered. A slot is occupied from the
 * sending until a window after the answer, and nothing is sent while all are. Take any window [a, a + W] there, and the
 * call of it that was sent last, at s: s ≤ a + W. Every other one arrived at a or later, so it was answered at
 * a ≥ s − W or later, so it occupied a slot at s. So there are never more than slots.
 *
 * A call without an answer may arrive as long as its time-out after its sending; one whose connection has ended may not
 * arrive later than that. A process that is stopped (not its clock) between the turn and the writing of its bytes, for longer
 * than the time-out, sends what it had begun when it goes on: nothing here can know of that. `marginMs` is for providers that count in whole ms; `drift` for clocks that run at another pace.
 */
const marginMs = 5
const drift = 0.001

export interface Sent {
  readonly sentAt: number
}

export interface Slots {
  used(now: number): number
  /** The earliest that one may be free, if all are occupied. */
  freeAt(now: number): number
  send(now: number): Sent
  /** `arrived`: it has, or never will; `lost`: it may be on its way. */
  end(sent: Sent, how: 'arrived' | 'lost', now: number): void
}

export interface SlotTimes {
  readonly windowMs: number
  readonly timeoutMs: number
}

/** For how long after the sending of its last call a key may have a slot occupied. */
export function settleMsOf({ windowMs, timeoutMs }: SlotTimes): number {
  return Math.ceil(timeoutMs + holdMsOf(windowMs))
}

/** From the end of a call until its slot is free. */
export function holdMsOf(windowMs: number): number {
  return windowMs * (1 + drift) + marginMs
}

/** `heldAtStart`: so many are occupied for a window, as if by somebody before us. */
export function createSlots(times: SlotTimes, now: number, heldAtStart: number): Slots {
  const holdMs = holdMsOf(times.windowMs)
  /** In order of sending. */
  const inFlight = new Set<Sent>()
  /** When slots of ended calls are free, in order; those before `first` are. */
  let releases = Array.from({ length: heldAtStart }, () => now + holdMs)
  let first = 0

  const releaseAt = (at: number): void => {
    let place = releases.length
    // Nearly always the last.
    while (place > first && (releases[place - 1] ?? 0) > at) place--
    releases.splice(place, 0, at)
  }

  const lose = (sent: Sent): void => {
    inFlight.delete(sent)
    releaseAt(sent.sentAt + times.timeoutMs + holdMs)
  }

  const settle = (at: number): void => {
    for (const sent of inFlight) {
      // Whoever sent it has not said how it ended; it has.
      if (sent.sentAt + times.timeoutMs > at) break
      lose(sent)
    }
    while ((releases[first] ?? Infinity) <= at) first++
    if (first > 1_000 && first * 2 > releases.length) {
      releases = releases.slice(first)
      first = 0
    }
  }

  return {
    used(at) {
      settle(at)
      return inFlight.size + releases.length - first
    },
    freeAt(at) {
      settle(at)
      // One that ended now would be free a hold later.
      const [oldest] = inFlight
      const ending = oldest ? Math.min(at, oldest.sentAt + times.timeoutMs) + holdMs : Infinity
      return Math.min(releases[first] ?? Infinity, ending)
    },
    send(at) {
      const sent = { sentAt: at }
      inFlight.add(sent)
      return sent
    },
    end(sent, how, at) {
      settle(at)
      if (!inFlight.has(sent)) return
      if (how === 'lost') return lose(sent)
      inFlight.delete(sent)
      releaseAt(at + holdMs)
    },
  }
}
