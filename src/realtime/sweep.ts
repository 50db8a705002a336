/**
 * One clock for everybody who is connected: no timer per connection. Members sit in as many buckets as
 * there are seconds between two pings, and each second is the turn of some:
 *
 *   second t:  ping bucket t mod 25 · ask for the pong of bucket (t − 8) mod 25 · check every fifth bucket
 *
 * so pings of 100,000 connections leave evenly, 4,000 a second, and a stall of the event loop delays
 * deadlines instead of letting them fall together.
 */
import { assert } from '../lib/assert.ts'
import type { Cancel, Clock } from '../lib/clock.ts'

/** Between two pings. Centrifugo's default; proxies cut at 30 to 60 s of silence. */
export const pingSeconds = 25

/** For the pong. Centrifugo's default. */
const pongSeconds = 8

/** The same for whoever was pinged out of turn; a second less some jitter of the timer. */
export const pongMs = pongSeconds * 1_000 - 500

/** Between two checks of the same member. */
const checkSeconds = 5

/** The member's place, kept in the member: leaving costs no search. */
export interface Swept {
  bucket: number
  slot: number
  /** Each 25 s. */
  beat(): void
  /** 8 s after `beat`. */
  late(): void
  /** Each 5 s: deadlines and buffers. May remove the member, and only this one. */
  check(): void
}

export interface Sweep<Member extends Swept> {
  readonly size: number
  add(member: Member): void
  remove(member: Member): void
  forEach(visit: (member: Member) => void): void
  start(): void
  stop(): void
}

export function createSweep<Member extends Swept>(
  clock: Clock,
  onSecond: () => void,
): Sweep<Member> {
  const buckets: Member[][] = Array.from({ length: pingSeconds }, () => [])
  let size = 0
  let next = 0
  let second = 0
  let cancel: Cancel | undefined

  // Backwards: a member that leaves is replaced by the last one, which had its turn.
  const visitBucket = (index: number, visit: (member: Member) => void): void => {
    const bucket = buckets[index]
    assert(bucket, () => `bucket ${index}`)
    for (let slot = bucket.length - 1; slot >= 0; slot -= 1) {
      const member = bucket[slot]
      if (member) visit(member)
    }
  }

  const turn = (): void => {
    second += 1
    visitBucket(second % pingSeconds, (member) => member.beat())
    visitBucket((second + pingSeconds - pongSeconds) % pingSeconds, (member) => member.late())
    for (let index = second % checkSeconds; index < pingSeconds; index += checkSeconds) {
      visitBucket(index, (member) => member.check())
    }
    onSecond()
  }

  return {
    get size() {
      return size
    },
    add(member) {
      next = (next + 1) % pingSeconds
      const bucket = buckets[next]
      assert(bucket, () => `bucket ${next}`)
      member.bucket = next
      member.slot = bucket.push(member) - 1
      size += 1
    },
    remove(member) {
      const bucket = buckets[member.bucket]
      assert(bucket?.[member.slot] === member, () => 'a member leaves that is not in its place')
      const last = bucket.pop()
      if (last && last !== member) {
        bucket[member.slot] = last
        last.slot = member.slot
      }
      member.bucket = -1
      size -= 1
    },
    forEach(visit) {
      for (let index = 0; index < pingSeconds; index += 1) visitBucket(index, visit)
    },
    start() {
      cancel ??= clock.every(1_000, turn)
    },
    stop() {
      cancel?.()
      cancel = undefined
    },
  }
}
