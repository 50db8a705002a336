/** Asks a topic's rule. Rules are the app's own code: one that throws is logged and lets nobody in. */
import type { Identity } from '../auth/auth.ts'
import type { Log } from '../observe/log.ts'
import type { TopicRule } from './declare.ts'
import type { Params } from './pattern.ts'

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
