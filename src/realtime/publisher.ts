/**
 * What stands between whoever publishes and the hub, in one order:
 *
 *   client ─(rule)─► message ─► limit ─┤─► (through) the app's own route, which publishes as the app
 *   server API ─────► message ─────────┼─► encode ─► conflate ─► broker ─► hub
 *   live, feeds, the app's routes ─────┘
 *
 * Invariant: a topic's history and its subscribers have the same publications: what is refused or replaced
 * here has no offset.
 */
import { Fault, toFault, type FieldProblem } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import { createConflator, type ConflateLimits, type ConflatePlan } from './conflate.ts'
import type { Broker, Once } from './broker.ts'
import type { DurablePlan } from './durable.ts'
import type { Encoded, Hub, Match } from './hub.ts'
import type { Call, Called } from './peer.ts'
import { errors, type ProtocolError } from './protocol.ts'
import {
  createPublishLimiter,
  type Author,
  type MakeLimits,
  type PublishLimiter,
  type PublishLimitPlan,
} from './publish-limit.ts'
import type { Position } from './recovery.ts'
import { createRepeats } from './repeats.ts'

/** A declared topic as far as publishing is concerned. */
export interface PublishPlan {
  readonly message?: CheckMessage | undefined
  readonly limit?: PublishLimitPlan | undefined
  readonly conflate?: ConflatePlan | undefined
  /** Where clients' publications go instead. */
  readonly through?: ThroughPlan | undefined
  readonly persist?: DurablePlan | undefined
}

export interface ThroughPlan {
  readonly method: string
  /** With `{name}` for parameters of the topic. */
  readonly path: string
}

/** Whether data is what the topic's schema says, and if so without what that does not name. */
export type CheckMessage = (data: unknown) => CheckedMessage

export type CheckedMessage =
  | { readonly ok: true; readonly data: unknown }
  | { readonly ok: false; readonly fields: readonly FieldProblem[] }

export interface Publisher {
  /**
   * As the server: nothing is asked. What is not out yet, because it waits for its interval, its commit or Redis, is
   * answered with where the topic stands; if it is lost after all, the log says so. `once`: what every node
   * says by itself.
   * Faults: `not_found`, `invalid`, `too_large`, `too_many`, `unavailable`.
   */
  publish(topic: string, data: unknown, once?: Once): Position
  /** As the server API: the topic's `message` is asked; settles when the topic has it. Faults: the same. */
  submit(topic: string, data: unknown, options?: SubmitOptions): Promise<Position>
  /** One value to many topics, encoded once. Faults of the value are thrown, of a topic returned. */
  broadcast(
    topics: readonly string[],
    data: unknown,
    options?: SubmitOptions,
  ): Promise<(Position | Fault)[]>
  /** As a client that the topic's rule has let in. What is refused is returned. */
  publishAs(
    author: Author,
    match: Match,
    data: unknown,
  ): ProtocolError | undefined | Promise<ProtocolError | undefined>
  /** What waits for its interval goes now, and nothing waits any more. */
  drain(): void
}

export interface SubmitOptions {
  /** The same key again on the same topic, within five minutes: nothing, and the first one's position. */
  readonly key?: string | undefined
}

/** What waits for its interval. */
interface Held extends Encoded {
  readonly match: Match
  readonly once: Once | undefined
}

export interface PublisherDeps {
  readonly hub: Hub
  readonly broker: Broker
  readonly clock: Clock
  readonly log: Log
  readonly limits: MakeLimits
  /** The app's own doors. Absent: no topic goes through one. */
  readonly call?: ((call: Call) => Promise<Called>) | undefined
}

type Outcome = Position | Promise<Position>

export function createPublisher(deps: PublisherDeps, limits: ConflateLimits): Publisher {
  const { hub, broker, clock, log } = deps
  const limiters = new Map<PublishLimitPlan, PublishLimiter>()

  let isDraining = false
  let isLossReported = false
  const lost = (topic: string, error: unknown): void => {
    if (!isLossReported) log.error('realtime.publication-lost', { topic, error })
    isLossReported = true
  }

  /** With nobody there to be told. */
  const goAlone = ({ match, once, ...encoded }: Held): void => {
    try {
      const outcome = broker.publish(match, encoded, once)
      if (outcome instanceof Promise) watch(match, outcome)
    } catch (error) {
      lost(match.name, error)
    }
  }

  const watch = ({ name }: Match, outcome: Promise<Position>): void => {
    detach(
      outcome.then(() => (isLossReported = false)),
      (error) => lost(name, error),
    )
  }

  const conflator = createConflator<Held>({ clock, go: (_, held) => goAlone(held) }, limits)

  const repeats = createRepeats(clock)
  const limiterOf = (plan: PublishLimitPlan): PublishLimiter => {
    const found = limiters.get(plan)
    if (found) return found
    const made = createPublishLimiter(deps.limits, plan)
    limiters.set(plan, made)
    return made
  }

  const matchOf = (topic: string): Match => {
    const match = hub.match(topic)
    if (match) return match
    throw new Fault('not_found', `no declared topic matches ${topic}`)
  }

  /** App code. */
  const keyOf = (topic: string, { key }: ConflatePlan, data: unknown): string => {
    if (!key) return ''
    try {
      const given = key(data)
      if (typeof given === 'string' || typeof given === 'number') return String(given)
      log.error('realtime.key-invalid', { topic })
    } catch (error) {
      log.error('realtime.key-threw', { topic, error })
    }
    throw new Fault('internal', 'internal error')
  }

  /** What waits has no offset yet: the answer is where the topic stands. */
  const standOf = (name: string): Position => {
    const topic = hub.peek(name)
    return topic ? { offset: topic.offset, epoch: topic.epoch } : { offset: 0, epoch: '' }
  }

  const send = (match: Match, data: unknown, encoded: Encoded, once?: Once): Outcome => {
    const { conflate } = match.plan
    if (!conflate || isDraining) return broker.publish(match, encoded, once)
    const key = keyOf(match.name, conflate, data)
    const isHeld = conflator.holds(match.name, conflate.everyMs, key, { ...encoded, match, once })
    return isHeld ? standOf(match.name) : broker.publish(match, encoded, once)
  }

  /** `encoded`: of `data`, if that is known already. */
  const submit = (
    name: string,
    data: unknown,
    { key }: SubmitOptions = {},
    encoded?: Encoded,
  ): Outcome => {
    const match = matchOf(name)
    const publish = (): Outcome => {
      if (!match.plan.message) return send(match, data, encoded ?? hub.encode(data))
      const checked = checkedBy(match, data)
      return send(match, checked, hub.encode(checked))
    }
    return key === undefined ? publish() : repeats.once(name, key, publish)
  }

  const callThrough = async (
    { identity, address = '' }: Author,
    { params }: Match,
    { method, path }: ThroughPlan,
    body: unknown,
    refused: (error: unknown) => ProtocolError,
  ): Promise<ProtocolError | undefined> => {
    const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
      encodeURIComponent(params[name] ?? ''),
    )
    try {
      if (!deps.call) throw new Fault('internal', 'nothing can be called here')
      const called = await deps.call({ identity, address, method, path: filled, body })
      if (called.ok) return undefined
      refused(called.error)
      return called.error
    } catch (error) {
      return refused(error)
    }
  }

  return {
    publish(name, data, once) {
      const match = matchOf(name)
      const outcome = send(match, data, hub.encode(data), once)
      if (!(outcome instanceof Promise)) return outcome
      watch(match, outcome)
      return standOf(name)
    },
    submit: async (name, data, options) => await submit(name, data, options),
    async broadcast(names, data, options) {
      const encoded = hub.encode(data)
      const outcomes = names.map((name) => settled(() => submit(name, data, options, encoded)))
      return await Promise.all(outcomes)
    },
    publishAs(author, match, data) {
      const { message, limit } = match.plan
      const checked = message?.(data) ?? { ok: true, data }
      if (!checked.ok) return malformed(checked.fields)
      const limiter = limit && limiterOf(limit)
      if (limiter && !limiter.take(author)) return errors.tooMany
      const refused = (error: unknown): ProtocolError => {
        limiter?.giveBack(author)
        const { code } = toFault(error)
        log.debug('realtime.publish-refused', { topic: match.name, error })
        if (code === 'too_many') return errors.tooMany
        // `unavailable`, too, may go better the next time, if not for want of room for one more topic.
        if (code === 'internal' || (code === 'unavailable' && broker.keeps(match.plan))) {
          return errors.internal
        }
        return errors.limit
      }
      if (match.plan.through)
        return callThrough(author, match, match.plan.through, checked.data, refused)
      try {
        const outcome = send(match, checked.data, hub.encode(checked.data))
        return outcome instanceof Promise ? outcome.then(() => undefined, refused) : undefined
      } catch (error) {
        return refused(error)
      }
    },
    drain() {
      isDraining = true
      conflator.flush()
    },
  }
}

async function settled(run: () => Outcome): Promise<Position | Fault> {
  try {
    return await run()
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown
    throw thrown
  }
}

/** Faults: `invalid`. */
function checkedBy({ name, plan }: Match, data: unknown): unknown {
  const checked = plan.message?.(data) ?? { ok: true, data }
  if (checked.ok) return checked.data
  throw new Fault('invalid', `the data is no message of ${name}`, { fields: checked.fields })
}

/** So many problems, and so much of each, fit into an error that a client shows. */
const problemsMax = 3
const problemLengthMax = 200

function malformed(fields: readonly FieldProblem[]): ProtocolError {
  const said = fields
    .slice(0, problemsMax)
    .map(({ field, message }) => `${field}: ${message}`.slice(0, problemLengthMax))
  return { ...errors.badRequest, message: `${errors.badRequest.message}: ${said.join('; ')}` }
}
