/** Asks a topic's rule. Rules are the app's own code: one that throws is logged and lets nobody in. */
import type { Identity } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import type { TopicRule } from './declare.ts'
import type { Match } from './hub.ts'
import type { Params } from './pattern.ts'
import type { Peer } from './peer.ts'
import { errors } from './protocol.ts'

export type Answer = 'allowed' | 'denied' | 'failed'

export interface Question {
  readonly rule: TopicRule | undefined
  readonly params: Params
  readonly topic: string
  readonly act: 'subscribe' | 'publish'
}

export function ask(log: Log, identity: Identity, { rule, params, topic, act }: Question): Answer {
  if (rule === undefined) return 'denied'
  if (rule === 'public') return 'allowed'
  if (rule === 'signed-in') return identity.kind === 'user' ? 'allowed' : 'denied'
  try {
    // Nothing but true lets in: a rule that forgot to await must not be open to all.
    return rule({ user: identity.user, params }) === true ? 'allowed' : 'denied'
  } catch (error) {
    log.error('realtime.rule-threw', { topic, act, error })
    return 'failed'
  }
}

/** Faults: `denied`, `internal`. */
export function checkHearing(log: Log, identity: Identity, { name, plan, params }: Match): void {
  const question = { rule: plan.subscribe, params, topic: name, act: 'subscribe' } as const
  const answer = ask(log, identity, question)
  if (answer === 'denied') throw new Fault('denied', `${name} may not be heard`)
  if (answer === 'failed') throw new Fault('internal', 'internal error')
}

export function askOf(peer: Peer, { name, plan, params }: Match, act: Question['act']): Answer {
  const question = { rule: plan[act], params, topic: name, act }
  return ask(peer.context.log, peer.identity, question)
}

/** The topic, when it is declared and its rule lets in; otherwise the error is answered. */
export function allowed(
  peer: Peer,
  id: number,
  name: string,
  act: Question['act'],
): Match | undefined {
  const match = peer.context.hub.match(name)
  if (!match) {
    peer.error(id, errors.unknownTopic)
    return undefined
  }
  const answer = askOf(peer, match, act)
  if (answer === 'allowed') return match
  peer.error(id, answer === 'denied' ? errors.denied : errors.internal)
  return undefined
}
