/**
 * Several nodes on one Redis, each behind a link that can be cut, and subscribers that check all they are told:
 * raw sockets, stock clients and event streams. What is wrong is gathered, not thrown.
 */
import type { Centrifuge } from 'centrifuge'
import type { Position } from '../../src/realtime/realtime.ts'
import { openRedis } from '../cache/redis.ts'
import { startProxy, type Proxy } from '../proxy.ts'
import { serve, type Reply, type Subscribed, type TestServer } from '../realtime/serve.ts'
import { stockClient } from '../realtime/stock.ts'
import type { Service } from '../services.ts'

export const topics = {
  'room:a': { subscribe: 'public', historySize: 60 },
  'room:b': { subscribe: 'public', historySize: 8 },
  plain: { subscribe: 'public' },
} as const
export const names = Object.keys(topics)

/** What has been said, by topic, epoch and offset. No two may say different things of one place. */
export class Truth {
  readonly problems: string[] = []
  readonly #said = new Map<string, string>()
  readonly counts = { heard: 0, recovered: 0, unrecovered: 0, insufficient: 0, gaps: 0, resumed: 0 }

  check(name: string, { epoch, offset }: Position, data: unknown): void {
    const place = `${name} ${epoch}:${offset}`
    const text = JSON.stringify(data)
    const known = this.#said.get(place)
    if (known === undefined) this.#said.set(place, text)
    else if (known !== text) this.problems.push(`${place} is ${known} and ${text}`)
  }

  get places(): number {
    return this.#said.size
  }
}

export interface Node extends AsyncDisposable {
  readonly server: TestServer
  readonly proxy: Proxy
  readonly isUp: boolean
}

export async function startNode(redis: Service): Promise<Node> {
  const proxy = await startProxy({ target: redis.port })
  const opened = await openRedis(proxy.port, { commandMs: undefined })
  const shared = {
    redis: opened.redis,
    namespace: 'belfry:flow',
    source: 'db',
    restMsMost: 1_000,
    patienceMs: 200,
  }
  const server = serve(topics, { shared, limits: { shardSize: 3 } })
  return {
    server,
    proxy,
    get isUp() {
      return opened.redis.isUp && opened.redis.stats().isListening
    },
    async [Symbol.asyncDispose]() {
      await server.stop()
      await opened[Symbol.asyncDispose]()
      await proxy[Symbol.asyncDispose]()
    },
  }
}

/** Where one listener is, checked with each publication. */
class Track {
  readonly positions = new Map<string, { epoch: string; offset: number }>()
  readonly who: string
  readonly #truth: Truth

  constructor(truth: Truth, who: string) {
    this.#truth = truth
    this.who = who
  }

  hear(name: string, { offset, data }: { offset: number; data: unknown }): void {
    const known = this.positions.get(name)
    this.#truth.counts.heard += 1
    if (known?.offset !== offset - 1) {
      this.fail(`${name} at ${known?.epoch}:${known?.offset} was told ${offset}`)
    }
    const epoch = known?.epoch ?? ''
    this.positions.set(name, { epoch, offset })
    this.#truth.check(name, { epoch, offset }, data)
  }

  fail(text: string): void {
    this.#truth.problems.push(`${this.who}: ${text}`)
  }
}

/** A socket of its own, written out: it comes back when it is sent away, and moves between nodes. */
export class RawSubscriber extends Track {
  readonly #counts: Truth['counts']
  #socket: WebSocket | undefined
  /** Of subscribe commands that are not answered. */
  readonly #asked = new Map<number, { name: string; since: Position | undefined }>()
  #id = 1

  constructor(truth: Truth, who: string) {
    super(truth, who)
    this.#counts = truth.counts
  }

  get isSettled(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN && this.#asked.size === 0
  }

  get state(): string {
    const asked = [...this.#asked.values()].map(({ name }) => name)
    return `socket ${this.#socket?.readyState}, not answered: ${asked.join(' ') || 'none'}`
  }

  get isConnected(): boolean {
    return this.#socket !== undefined
  }

  connect({ server }: Node): void {
    const socket = new WebSocket(server.wsUrl)
    this.#socket = socket
    socket.onopen = () => {
      socket.send('{"id":1,"connect":{}}')
      for (const name of names) this.#subscribe(name)
    }
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return
      for (const line of String(data).split('\n')) {
        if (line === '{}') socket.send('{}')
        else this.#take(JSON.parse(line) as Reply)
      }
    }
  }

  disconnect(): void {
    this.#socket?.close()
    this.#socket = undefined
    this.#asked.clear()
  }

  #subscribe(name: string): void {
    const id = (this.#id += 1)
    const since = this.positions.get(name)
    this.#asked.set(id, { name, since: since && { ...since } })
    const recover = since ? { recover: true, ...since } : {}
    this.#socket?.send(JSON.stringify({ id, subscribe: { channel: name, ...recover } }))
  }

  #take({ id, error, subscribe, push }: Reply): void {
    const asked = this.#asked.get(id ?? 0)
    if (asked && id !== undefined) {
      this.#asked.delete(id)
      if (subscribe) this.#begin(asked, subscribe)
      else this.fail(`${asked.name}: error ${error?.code}`)
    } else if (push?.pub) this.hear(push.channel, push.pub)
    else if (push?.unsubscribe) {
      if (push.unsubscribe.code !== 2500) this.fail(`unsubscribed with ${push.unsubscribe.code}`)
      this.#counts.insufficient += 1
      this.#subscribe(push.channel)
    }
  }

  #begin({ name, since }: { name: string; since: Position | undefined }, told: Subscribed): void {
    const { epoch, offset, recovered = false, publications = [] } = told
    if (recovered && (epoch !== since?.epoch || offset !== since.offset)) {
      this.fail(`${name}: recovered from ${epoch}:${offset}, not ${since?.epoch}:${since?.offset}`)
    }
    if (!recovered && publications.length > 0) this.fail(`${name}: a part of a list`)
    if (recovered) this.#counts.recovered += 1
    else if (since) this.#counts.unrecovered += 1
    this.positions.set(name, { epoch, offset })
    for (const publication of publications) this.hear(name, publication)
  }
}

/** The stock client, which does all of that by itself. */
export class StockSubscriber extends Track {
  readonly client: Centrifuge

  constructor(truth: Truth, who: string, { server }: Node) {
    super(truth, who)
    this.client = stockClient(server, 'websocket')
    for (const name of names) {
      const subscription = this.client.newSubscription(name, {
        minResubscribeDelay: 1,
        maxResubscribeDelay: 20,
      })
      subscription.on('subscribed', ({ recovered, streamPosition }) => {
        // When it is recovered, the publications that follow lead from where it was.
        if (!recovered && streamPosition) this.positions.set(name, { ...streamPosition })
      })
      subscription.on('publication', ({ offset = 0, data }) => this.hear(name, { offset, data }))
      subscription.subscribe()
    }
    this.client.connect()
  }

  get state(): string {
    const all = Object.values(this.client.subscriptions())
    return [this.client.state, ...all.map(({ channel, state }) => `${channel} ${state}`)].join(' ')
  }

  stop(): void {
    this.client.disconnect()
  }
}

/**
 * An event stream, as an `EventSource` keeps it: it comes back with its last id, also at another node. Offsets go on
 * unless a gap is said; the marks in its ids are epochs, in which one place says one thing.
 */
export class StreamReader {
  readonly offsets = new Map<string, number>()
  isOpen = false
  readonly #truth: Truth
  readonly #who: string
  #lastId = ''
  /** It has come back, and was told nothing of these yet. */
  readonly #resumed = new Set<string>()
  #abort = new AbortController()

  constructor(truth: Truth, who: string, node: Node) {
    this.#truth = truth
    this.#who = who
    this.move(node)
  }

  move({ server }: Node): void {
    this.stop()
    this.#abort = new AbortController()
    for (const name of this.offsets.keys()) this.#resumed.add(name)
    void this.#read(`${server.url}/api/stream?topics=${names.join(',')}`, this.#abort.signal)
  }

  stop(): void {
    this.#abort.abort()
  }

  async #read(url: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const headers = this.#lastId === '' ? {} : { 'last-event-id': this.#lastId }
        const { body } = await fetch(url, { signal, headers })
        const decoder = new TextDecoder()
        let text = ''
        for await (const chunk of body ?? []) {
          if (signal.aborted) return
          this.isOpen = true
          text += decoder.decode(chunk, { stream: true })
          const events = text.split('\n\n')
          text = events.pop() ?? ''
          for (const event of events) this.#take(event)
        }
      } catch (error) {
        if (!signal.aborted) this.#truth.problems.push(`${this.#who}: ${String(error)}`)
      }
    }
  }

  #take(event: string): void {
    const lines = event.split('\n')
    this.#lastId =
      lines.find((line) => line.startsWith('id: '))?.slice('id: '.length) ?? this.#lastId
    const line = lines.find((one) => one.startsWith('data: '))
    if (line === undefined) return
    const message = JSON.parse(line.slice('data: '.length)) as {
      topics?: string[]
      channel: string
      offset: number
      data: unknown
    }
    if (event.includes('event: gap')) {
      this.#truth.counts.gaps += 1
      for (const name of message.topics ?? []) {
        this.offsets.delete(name)
        this.#resumed.delete(name)
      }
      return
    }
    const { channel, offset, data } = message
    const known = this.offsets.get(channel)
    if (known !== undefined && known !== offset - 1) {
      this.#truth.problems.push(`${this.#who}: ${channel} at ${known} was told ${offset}`)
    }
    if (this.#resumed.delete(channel)) this.#truth.counts.resumed += 1
    this.offsets.set(channel, offset)
    const place = this.#lastId.split('.')[names.toSorted().indexOf(channel)] ?? ''
    const [mark = '', counted = ''] = place.split('-')
    if (Number.parseInt(counted, 36) !== offset) {
      this.#truth.problems.push(`${this.#who}: ${channel} ${offset} has the id ${this.#lastId}`)
    }
    this.#truth.check(channel, { epoch: `of ${mark}`, offset }, data)
  }
}

/** Where everybody is: for a wait that has come to no good end. */
export function whereabouts(
  nodes: readonly Node[],
  listeners: readonly (RawSubscriber | StockSubscriber)[],
  streams: readonly StreamReader[],
): string {
  const query = { limit: 0, since: undefined, reverse: false }
  const ofNode = ({ server, proxy, isUp }: Node, n: number): string => {
    const places = names.map((name) => {
      try {
        const { epoch, offset } = server.realtime.history(name, query)
        return `${name} ${epoch}:${offset}`
      } catch (error) {
        return `${name} ${String(error)}`
      }
    })
    const { alone } = server.realtime.stats()
    return [`node ${n}`, proxy.state, isUp ? 'up' : 'down', `${alone} alone`, ...places].join(', ')
  }
  const ofListener = ({ who, state, positions }: RawSubscriber | StockSubscriber): string => {
    const places = [...positions].map(([name, { epoch, offset }]) => `${name} ${epoch}:${offset}`)
    return [who, state, ...places].join(', ')
  }
  const ofStream = ({ offsets }: StreamReader, n: number): string =>
    [`stream ${n}`, ...[...offsets].map(([name, offset]) => `${name} ${offset}`)].join(', ')
  return [...nodes.map(ofNode), ...listeners.map(ofListener), ...streams.map(ofStream)].join('\n')
}
