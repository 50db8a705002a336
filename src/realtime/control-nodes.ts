/**
 * What the server does to those who are connected, and asks about topics, wherever they are: the server API's half
 * of the room. Each order is one for all nodes (`nodes.ts`); this one does it too, and puts what they say together.
 *
 *   control ─► an order as JSON ─► every node: its own control ─► lists and numbers, or that it is done
 *
 * Which node does what, or is away, nobody has to know; what could not be had or done is told as `isPartial`.
 */
import { Fault, toFault } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import type { ConnectionInfo, NodeInfo, OwnControl, TopicInfo, Who } from './control.ts'
import type { Nodes } from './nodes.ts'
import type { Close, Unsubscribe } from './protocol.ts'
import type { Position } from './recovery.ts'

/** Characters of one node's answer: what Redis passes on without holding others up. */
const answerLengthMax = 2 * 1024 * 1024

/** Not every node that is alive has done it, or given all it has. */
export interface Reach {
  readonly isPartial: boolean
}

export interface Found<Item> extends Reach {
  readonly items: readonly Item[]
}

export interface Control extends Pick<OwnControl, 'presence' | 'presenceStats'> {
  /** Whose connection has the topic already keeps it. Faults: `not_found`, `unavailable`. */
  subscribe(who: Who, topic: string, since?: Position): Promise<Reach>
  /** Faults: `not_found`. */
  unsubscribe(who: Who, topic: string, why?: Unsubscribe): Promise<Reach>
  /** All but `except`, ids of connections. */
  disconnect(who: Who, close?: Close, except?: readonly string[]): Promise<Reach>
  /** Another end of the token; undefined: none. One that is over closes the connection. */
  refresh(who: Who, expiresAtMs: number | undefined): Promise<Reach>
  /** At most `max`, of `who` or of everybody. */
  connections(who: Who | undefined, max: number): Promise<Found<ConnectionInfo>>
  /** Topics that somebody hears, at most `max` of each node; in `pattern` a `*` stands for any characters. */
  channels(pattern: string, max: number): Promise<Found<TopicInfo>>
  /** Of each node, this one first. */
  info(): Promise<Found<NodeInfo>>
}

type Action =
  | { readonly act: 'subscribe'; readonly who: Who; readonly topic: string; since?: Position }
  | { readonly act: 'unsubscribe'; readonly who: Who; readonly topic: string; why?: Unsubscribe }
  | { readonly act: 'disconnect'; readonly who: Who; close?: Close; except: readonly string[] }
  | { readonly act: 'refresh'; readonly who: Who; expiresAtMs?: number }

type Question =
  | { readonly ask: 'connections'; who?: Who; readonly max: number }
  | { readonly ask: 'channels'; readonly pattern: string; readonly max: number }
  | { readonly ask: 'info' }

/** Of one node. */
interface Answer {
  readonly items?: readonly unknown[]
  /** There is more, and it would be too much. */
  readonly isCut?: boolean
  /** It could not. */
  readonly fault?: string
}

export interface NodesControlDeps {
  readonly own: OwnControl
  readonly nodes: Nodes
  readonly log: Log
}

export function createNodesControl({ own, nodes, log }: NodesControlDeps): Control {
  const perform = async (order: Action): Promise<void> => {
    switch (order.act) {
      case 'subscribe':
        return await own.subscribe(order.who, order.topic, order.since)
      case 'unsubscribe':
        return own.unsubscribe(order.who, order.topic, order.why)
      case 'disconnect':
        return own.disconnect(order.who, order.close, order.except)
      case 'refresh':
        return own.refresh(order.who, order.expiresAtMs)
      default:
        throw new Fault('invalid', 'a node that knows more than this one asks for it')
    }
  }

  const look = (question: Question): readonly unknown[] => {
    switch (question.ask) {
      case 'connections':
        return own.connections(question.who, question.max)
      case 'channels':
        return own.channels(question.pattern, question.max)
      case 'info':
        return [own.info()]
      default:
        throw new Fault('invalid', 'a node that knows more than this one asks for it')
    }
  }

  nodes.onAsked(async (text) => {
    try {
      const order = JSON.parse(text) as Action | Question
      if ('act' in order) {
        await perform(order)
        return '{}'
      }
      return listJson(look(order))
    } catch (thrown) {
      const { code } = toFault(thrown)
      log.warn('realtime.order-failed', { code })
      return JSON.stringify({ fault: code })
    }
  })

  const everywhere = async (order: Action): Promise<Reach> => {
    const others = nodes.ask(JSON.stringify(order), 'action')
    await perform(order)
    const { texts, isPartial } = await others
    return { isPartial: isPartial || texts.some((text) => answerOf(text).fault !== undefined) }
  }

  const gather = async <Item>(question: Question): Promise<Found<Item>> => {
    const others = nodes.ask(JSON.stringify(question), 'question')
    const mine = look(question)
    const { texts, isPartial } = await others
    const answers = texts.map(answerOf)
    const isWhole = answers.every(({ fault, isCut }) => fault === undefined && isCut !== true)
    const items = [...mine, ...answers.flatMap((one) => one.items ?? [])] as Item[]
    return { items, isPartial: isPartial || !isWhole }
  }

  return {
    presence: own.presence,
    presenceStats: own.presenceStats,
    async subscribe(who, topic, since) {
      own.check(topic)
      return await everywhere({ act: 'subscribe', who, topic, ...(since && { since }) })
    },
    async unsubscribe(who, topic, why) {
      own.check(topic)
      return await everywhere({ act: 'unsubscribe', who, topic, ...(why && { why }) })
    },
    disconnect: (who, close, except = []) =>
      everywhere({ act: 'disconnect', who, except, ...(close && { close }) }),
    refresh: (who, expiresAtMs) =>
      everywhere({ act: 'refresh', who, ...(expiresAtMs !== undefined && { expiresAtMs }) }),
    async connections(who, max) {
      const found = await gather<ConnectionInfo>({ ask: 'connections', max, ...(who && { who }) })
      return { ...found, items: found.items.slice(0, max) }
    },
    async channels(pattern, max) {
      const { items, isPartial } = await gather<TopicInfo>({ ask: 'channels', pattern, max })
      const counts = new Map<string, number>()
      for (const { name, clients } of items) counts.set(name, (counts.get(name) ?? 0) + clients)
      const all = [...counts].map(([name, clients]) => ({ name, clients }))
      return { items: all.slice(0, max), isPartial }
    },
    info: () => gather<NodeInfo>({ ask: 'info' }),
  }
}

function answerOf(text: string): Answer {
  return JSON.parse(text) as Answer
}

function listJson(items: readonly unknown[]): string {
  const texts: string[] = []
  let length = 0
  for (const item of items) {
    const text = JSON.stringify(item)
    length += text.length + 1
    if (length > answerLengthMax) return `{"isCut":true,"items":[${texts.join(',')}]}`
    texts.push(text)
  }
  return `{"items":[${texts.join(',')}]}`
}
