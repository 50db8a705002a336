/**
 * Coming and going in topics that declare `presence`: kept in `Presence`, and told to those subscribers
 * who asked for it (`join_leave`). N members who all ask make N² messages, so that is bounded twice:
 *
 *   join ─► pending of the topic ─► (turn is over, or as many × 0.1 ms later as hear it) ─► one frame each
 *
 * and by `observersMax`. Who is there can always be asked for (`presence`, `presence_stats`).
 */
import type { Clock } from '../lib/clock.ts'
import type { Sink } from './outbox.ts'
import type { Member, Presence } from './presence.ts'
import { attendancePush } from './protocol.ts'

/** Per topic and node. Who asks beyond it subscribes and is not told. */
const observersMax = 1_000

/** Between two flushes of a topic, per observer: telling them costs at most about a tenth of a core. */
const restMsPerObserver = 0.1

/** Shorter rests than a timer can keep are none. */
const restMsLeast = 1

interface Audience {
  readonly observers: Set<Sink<string>>
  /** Joined frames. */
  pending: string
  isWaiting: boolean
  /** `clock.tick()` before which nothing is sent. */
  restsUntil: number
}

export interface Attendance {
  readonly presence: Presence
  join(topic: string, member: Member): void
  leave(topic: string, member: Member): void
  /** Whether there was room. It may be told what had happened shortly before. */
  observe(topic: string, observer: Sink<string>): boolean
  unobserve(topic: string, observer: Sink<string>): void
}

export function createAttendance(clock: Clock, presence: Presence): Attendance {
  const audiences = new Map<string, Audience>()

  const flush = (audience: Audience): void => {
    const { observers, pending } = audience
    audience.pending = ''
    audience.isWaiting = false
    const restMs = observers.size * restMsPerObserver
    audience.restsUntil = restMs < restMsLeast ? 0 : clock.tick() + restMs
    if (pending === '') return
    for (const observer of observers) observer.push(pending)
  }

  const tell = (topic: string, event: 'join' | 'leave', info: string): void => {
    const audience = audiences.get(topic)
    if (!audience) return
    const frame = attendancePush(topic, event, info)
    audience.pending = audience.pending === '' ? frame : `${audience.pending}\n${frame}`
    if (audience.isWaiting) return
    audience.isWaiting = true
    const waitMs = audience.restsUntil - clock.tick()
    if (waitMs > 0) clock.after(waitMs, () => flush(audience))
    else clock.soon(() => flush(audience))
  }

  presence.hear(tell)

  return {
    presence,
    join(topic, member) {
      presence.add(topic, member)
      tell(topic, 'join', member.info)
    },
    leave(topic, member) {
      presence.remove(topic, member.client)
      tell(topic, 'leave', member.info)
    },
    observe(topic, observer) {
      let audience = audiences.get(topic)
      if (!audience) {
        audience = { observers: new Set(), pending: '', isWaiting: false, restsUntil: 0 }
        audiences.set(topic, audience)
      }
      if (audience.observers.size >= observersMax) return false
      audience.observers.add(observer)
      return true
    },
    unobserve(topic, observer) {
      const audience = audiences.get(topic)
      if (!audience?.observers.delete(observer)) return
      if (audience.observers.size === 0) audiences.delete(topic)
    },
  }
}
