/** One client of a run: asks over HTTP, and writes down what it asked and what it was told. */
import { signToken } from '../../src/auth/auth.ts'
import type { Random } from '../lib/random.ts'
import { testSecret } from '../server.ts'
import type { Done, Op, Outcome, Row } from './history.ts'
import type { Node } from './shapes.ts'

export interface Journal {
  readonly done: Done[]
  /** Monotonic ms since the run began. */
  now(): number
}

/** A row as it was read. */
export interface Version {
  readonly mark: string
  readonly etag: string
}

export interface Client {
  /** True if it was acknowledged; so all writes here. */
  create(table: string, id: number, values: Row): Promise<boolean>
  /** Another version of a register; with `after` only if that is the current one. */
  set(id: number, after?: Version): Promise<boolean>
  /** An entry of its own id. `isKeyed`: under an `Idempotency-Key`, and asked again until it is known. */
  add(isKeyed: boolean): Promise<boolean>
  transfer(from: number, to: number, amount: number, isKeyed: boolean): Promise<boolean>
  readRegister(id: number): Promise<Version | undefined>
  /** One that somebody has tried to add. */
  readEntry(random: Random): Promise<void>
  scan(table: string): Promise<void>
}

/** Patience of a client; longer than belfry may take to say no. */
const answerMsMax = 5_000

/** Before a client knocks again where nobody listens. */
const refusedMs = 50

/** Of one write under a key, each on the next node. */
const attemptsMax = 5
const againMs = 100

/** Users of one client: Belfry lets each write 600 times a minute. */
const usersPerClient = 8

interface Answer {
  /** 0: none. */
  readonly status: number
  readonly headers: Headers
  readonly body: unknown
  /** The connection was refused: nobody has even heard of it. */
  readonly isUnsent: boolean
}

interface Told {
  readonly node: Node
  readonly life: number
  readonly answer: Answer
  /** An attempt before this one may yet be done. */
  readonly isOpen: boolean
}

/** A client of the node `home`; only what it must know for certain it asks elsewhere, too. */
export function createClient(
  nodes: readonly Node[],
  home: number,
  journal: Journal,
  name: string,
): Client {
  const users: Promise<string>[] = []
  let writes = 0

  const token = async (): Promise<string> => {
    const at = writes++ % usersPerClient
    const times = { nowMs: Date.now(), ttlMs: 600_000 }
    return await (users[at] ??= signToken(testSecret, { sub: `${name}-${at}` }, times))
  }

  const ask = async (attempt: number, path: string, init: RequestInit = {}): Promise<Told> => {
    const node = nodes[(home + attempt) % nodes.length]
    if (!node) throw new Error('a cluster has nodes')
    const { life } = node
    const told = (answer: Answer): Told => ({ node, life, answer, isOpen: false })
    try {
      const response = await fetch(node.url + path, {
        ...init,
        // On a connection of its own: fetch sends a request again when an old one turns out dead.
        keepalive: false,
        signal: AbortSignal.timeout(answerMsMax),
      })
      const { status, headers } = response
      const body: unknown = status === 204 ? null : await response.json()
      return told({ status, headers, body, isUnsent: false })
    } catch (thrown) {
      const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
      const isUnsent = code === 'ConnectionRefused' || code === 'ECONNREFUSED'
      if (isUnsent) await Bun.sleep(refusedMs)
      return told({ status: 0, headers: new Headers(), body: null, isUnsent })
    }
  }

  /** Asks, and writes it down. `see` adds what was seen. */
  const record = async (
    op: Op,
    send: () => Promise<Told>,
    see: (answer: Answer) => Op = () => op,
  ): Promise<Answer> => {
    const at = journal.now()
    const told = await send()
    const { node, life, answer } = told
    const outcome = outcomeOf(op, told)
    const seq = answer.headers.get('x-log-seq')
    journal.done.push({
      op: outcome === 'ok' ? see(answer) : op,
      ...{ node: node.at, life, at, end: journal.now(), outcome },
      status: answer.status,
      hasRetryAfter: answer.headers.has('retry-after'),
      ...(seq === null ? {} : { seq: Number(seq) }),
    })
    return answer
  }

  const write = async (
    op: Op & { readonly mark: string },
    method: string,
    path: string,
    body: Row,
    how: { readonly headers?: Readonly<Record<string, string>>; readonly isKeyed?: boolean } = {},
  ): Promise<boolean> => {
    const headers = {
      authorization: `Bearer ${await token()}`,
      'content-type': 'application/json',
      ...(how.isKeyed === true ? { 'idempotency-key': op.mark } : {}),
      ...how.headers,
    }
    const init = { method, headers, body: JSON.stringify(body) }
    const send = async (): Promise<Told> => {
      let isOpen = false
      for (let attempt = 0; ; attempt++) {
        const told: Told = { ...(await ask(attempt, path, init)), isOpen }
        if (how.isKeyed !== true || outcomeOf(op, told) !== 'unknown') return told
        if (attempt === attemptsMax - 1) return told
        isOpen ||= !told.answer.isUnsent
        await Bun.sleep(againMs)
      }
    }
    const { status } = await record(op, send)
    return status >= 200 && status < 300
  }

  let marks = 0
  const nextMark = (): string => `${name}.${marks++}`

  const read = async (table: string, id: string | number): Promise<Version | undefined> => {
    const op: Op = { kind: 'read', key: `${table}/${id}` }
    const { status, headers, body } = await record(
      op,
      () => ask(0, `/api/${table}/${id}`),
      (answer) => ({ ...op, seen: answer.status === 404 ? null : markOf(answer.body) }),
    )
    if (status !== 200) return undefined
    return { mark: markOf(body), etag: headers.get('etag') ?? '' }
  }

  return {
    async create(table, id, values) {
      const mark = nextMark()
      const op = { kind: 'add', key: `${table}/${id}`, mark } as const
      return await write(op, 'POST', `/api/${table}`, { id, mark, ...values })
    },
    async set(id, after) {
      const mark = nextMark()
      const op = { kind: 'set', key: `registers/${id}`, mark } as const
      const path = `/api/registers/${id}`
      if (!after) return await write(op, 'PATCH', path, { mark })
      const headers = { 'if-match': after.etag }
      return await write({ ...op, after: after.mark }, 'PATCH', path, { mark }, { headers })
    },
    async add(isKeyed) {
      const mark = nextMark()
      const op = { kind: 'add', key: `entries/${mark}`, mark } as const
      return await write(op, 'POST', '/api/entries', { id: mark, mark }, { isKeyed })
    },
    async transfer(from, to, amount, isKeyed) {
      const mark = nextMark()
      const keys = { from: `accounts/${from}`, to: `accounts/${to}` }
      const op = { kind: 'transfer', ...keys, amount, mark } as const
      return await write(op, 'POST', '/api/transfer', { from, to, amount, mark }, { isKeyed })
    },
    readRegister: async (id) => await read('registers', id),
    async readEntry(random) {
      const tried = journal.done.filter(({ op }) => 'key' in op && op.key.startsWith('entries/'))
      if (tried.length === 0) return
      const { op } = random.pick(tried)
      if ('key' in op) await read('entries', op.key.slice('entries/'.length))
    },
    async scan(table) {
      const op: Op = { kind: 'scan', table }
      await record(
        op,
        () => ask(0, `/api/${table}?limit=100`),
        ({ body }) => ({ ...op, seen: (body as { items: Row[] }).items }),
      )
    },
  }
}

const markOf = (body: unknown): string => String((body as Row)['mark'])

function outcomeOf(op: Op, { answer: { status, isUnsent }, isOpen }: Told): Outcome {
  if (status >= 200 && status < 300) return 'ok'
  if (op.kind === 'read' && status === 404) return 'ok'
  // An account may have too little for the second attempt, and enough once the first is through.
  if (status >= 400 && status < 500) return isOpen && op.kind === 'transfer' ? 'unknown' : 'failed'
  return isUnsent && !isOpen ? 'failed' : 'unknown'
}
