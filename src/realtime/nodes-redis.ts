/**
 * Several nodes, asked over Redis:
 *
 *   ask ─► script: who is alive? · kept, if it is to be done · channel ─► every node runs it ─► channel of the asker
 *
 * Alive is who gave a sign in the last 15 s (`presence-redis.ts`). A node that is alive and has not answered within
 * a second is not waited for again until it has answered something. What is to be done reaches also a node that
 * listens again within 5 min. A node does not answer itself.
 *
 * Limits: questions on their way; the length of an answer is its giver's to bound.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Redis } from '../store/store.ts'
import type { Answers, Nodes } from './nodes.ts'
import { answerScript, askScript, missedScript } from './nodes-scripts.ts'

/** A round trip takes a few ms, a busy event loop some ten more. */
const answerMsDefault = 1_000

/** Beyond it nobody else is asked. */
const asksMax = 10_000

/** Before what was missed is read once more. */
const retryMs = 1_000

export interface RedisNodesDeps {
  readonly redis: Pick<Redis, 'isUp' | 'script' | 'subscribe'>
  readonly clock: Clock
  readonly log: Log
}

export interface RedisNodesOptions {
  readonly namespace: string
  readonly node: string
  readonly answerMs?: number
}

interface Ask {
  /** By node. They may come before it is known who is asked. */
  readonly texts: Map<string, string>
  wanted: readonly string[] | undefined
  readonly done: () => void
}

type Missed = [newest: string, entries: [id: string, fields: [string, string, string, string]][]]

export function createRedisNodes(
  { redis, clock, log }: RedisNodesDeps,
  { namespace, node, answerMs = answerMsDefault }: RedisNodesOptions,
): Nodes {
  const orders = `${namespace}:orders`
  const answersOf = (name: string): string => `${namespace}:answers:${name}`
  const asks = new Map<number, Ask>()
  /** Alive, and have not answered in time. */
  const silent = new Set<string>()
  let number = 0
  let run = (_: string): Promise<string> => Promise.resolve('')
  let cancels: Cancel[] = []
  /** Of the stream: all up to it is done. Empty: not known yet. */
  let doneTo = ''
  /** Beyond it; while what was missed is not read. */
  let done: Set<string> | undefined
  let isReading = false
  let isDoubtful = false

  const script: Redis['script'] = (one, keys, args) => redis.script(one, keys, args, answerMs)

  const settle = (one: Ask): void => {
    if (one.wanted?.every((name) => one.texts.has(name) || silent.has(name))) one.done()
  }

  const ask = async (text: string, kind: 'action' | 'question'): Promise<Answers> => {
    if (!redis.isUp || asks.size >= asksMax) return { texts: [], isPartial: true }
    const id = (number += 1)
    const { promise, resolve } = Promise.withResolvers<void>()
    const one: Ask = { texts: new Map(), wanted: undefined, done: resolve }
    asks.set(id, one)
    const cancel = clock.after(answerMs, resolve)
    try {
      const keys = [`${namespace}:nodes`, orders]
      const args = [orders, id, node, text, kind === 'action' ? 1 : 0]
      const alive = (await script(askScript, keys, args)) as string[]
      one.wanted = alive.filter((name) => name !== node)
      for (const name of silent) if (!alive.includes(name)) silent.delete(name)
      settle(one)
      await promise
      const missing = one.wanted.filter((name) => !one.texts.has(name))
      for (const name of missing) silent.add(name)
      return { texts: [...one.texts.values()], isPartial: missing.length > 0 }
    } catch (error) {
      log.debug('realtime.nodes-not-asked', { error })
      return { texts: [...one.texts.values()], isPartial: true }
    } finally {
      cancel()
      asks.delete(id)
    }
  }

  const hearAnswer = (text: string): void => {
    const line = text.indexOf('\n')
    const [id, from = ''] = text.slice(0, line).split(' ')
    silent.delete(from)
    const one = asks.get(Number(id))
    if (!one) return
    one.texts.set(from, text.slice(line + 1))
    settle(one)
  }

  const hearOrder = (text: string): void => {
    const line = text.indexOf('\n')
    const [id = '-', before = '', asked = '', from = ''] = text.slice(0, line).split(' ')
    if (id !== '-') {
      if (!isAfter(id, doneTo) || done?.has(id)) return
      if (done) done.add(id)
      else if (before === doneTo || before === '-') doneTo = id
      else {
        done = new Set([id])
        detach(catchUp(), () => undefined)
      }
    }
    if (from === node) return
    const answered = run(text.slice(line + 1)).then((answer) =>
      script(answerScript, [], [answersOf(from), `${asked} ${node}\n${answer}`]),
    )
    detach(answered, (error) => log.debug('realtime.not-answered', { error }))
  }

  /** What was to be done while nobody here listened, in its order. */
  const catchUp = async (): Promise<void> => {
    isDoubtful = true
    if (isReading) return
    isReading = true
    const ids = (done ??= new Set())
    try {
      while (isDoubtful) {
        isDoubtful = false
        const [newest, found] = (await script(missedScript, [orders], [doneTo])) as Missed
        for (const [id, [, from, , text]] of found) {
          if (ids.has(id)) continue
          ids.add(id)
          if (from !== node) await run(text)
        }
        doneTo = newest
      }
      for (const id of ids) if (isAfter(id, doneTo)) doneTo = id
      done = undefined
    } catch (error) {
      log.debug('realtime.orders-not-read', { error })
      if (cancels.length > 0) clock.after(retryMs, () => detach(catchUp(), () => undefined))
    } finally {
      isReading = false
    }
  }

  return {
    ask,
    onAsked: (does) => void (run = does),
    start() {
      cancels = [
        redis.subscribe(answersOf(node), hearAnswer, () => {}),
        redis.subscribe(orders, hearOrder, () => detach(catchUp(), () => undefined)),
      ]
    },
    stop() {
      for (const cancel of cancels) cancel()
      cancels = []
      for (const { done } of asks.values()) done()
    },
  }
}

/** Of ids of a stream, `<ms>-<number>`. Empty: before all. */
function isAfter(id: string, other: string): boolean {
  if (other === '') return true
  const [ms = 0, count = 0] = id.split('-').map(Number)
  const [otherMs = 0, otherCount = 0] = other.split('-').map(Number)
  return ms > otherMs || (ms === otherMs && count > otherCount)
}
