/**
 * The server API, in the shapes of Centrifugo's HTTP API: `POST /api/<method>` with `X-API-Key`, answered with
 * `{"result":…}` or a problem. No topic rule is asked; a key with scopes publishes to and reads the topics that
 * these name, and does nothing else. What is done to a user is done to each of the user's
 * connections, or to the one that `client` names, at every node; the empty user is every visitor. `partial: true`: a
 * node that should be there has not answered.
 *
 *   publish broadcast batch · subscribe unsubscribe disconnect refresh · presence presence_stats
 *   history history_remove · channels connections info
 */
import type { Identity, KeyAct } from '../auth/auth.ts'
import { Fault, toFault, type FaultCode } from '../fault.ts'
import {
  historyQueryOf,
  positionOf,
  repeatKeyLengthMax,
  type Position,
  type Reach,
  type Realtime,
  type Who,
} from '../realtime/realtime.ts'
import type { Log } from '../observe/log.ts'
import { readJson } from './body.ts'
import { readFields, type Fields } from './fields.ts'
import { visitHeaders, type Door } from './visit.ts'

/** Topics of one broadcast: each is a publish of its own, in one turn of the event loop. */
const broadcastTopicsMax = 1_000

/** Commands of one batch, and the topics of all its broadcasts: about 50 ms at a stretch. */
const batchCommandsMax = 1_000
const batchTopicsMax = 10_000

/** 64 KB of data and a thousand names. */
const requestBytesMax = 512 * 1024
const batchBytesMax = 4 * 1024 * 1024

/** Connections and topics of one answer. */
const listMax = 10_000
const connectionsDefault = 1_000

/** A reason is part of a close frame, which holds 123 bytes. */
const reasonLengthMax = 100

/** 3000 to 3499 and 4000 to 4499: the client comes back. The rest of each thousand: it does not. */
const closeCodes = { least: 3_000, most: 4_999 } as const

/** 31 December 9999, in seconds. */
const expireAtMax = 253_402_300_799

export interface ServerApiDeps {
  readonly realtime: Pick<
    Realtime,
    'submit' | 'broadcast' | 'ready' | 'history' | 'forget' | 'control'
  >
  readonly log: Log
  /** `clock.tick()`. */
  readonly tick: () => number
}

interface Method {
  readonly fields: readonly string[]
  /** JSON text of the result. */
  readonly run: (body: Fields, guard: Guard) => string | Promise<string>
  /** Absent: for keys that may do everything. */
  readonly isScoped?: true
}

/** Whether this key may. Faults: `denied`. */
interface Guard {
  readonly check: (act: KeyAct, topic: string) => void
  readonly may: (act: KeyAct, topic: string) => boolean
  readonly mayAll: boolean
}

/** By the method's name. Faults of each: `unauthenticated`, `invalid`; and what the room throws. */
export function createServerApi(deps: ServerApiDeps): ReadonlyMap<string, Door> {
  const { log, tick } = deps
  const methods = new Map([
    ...Object.entries(publishing(deps)),
    ...Object.entries(controlling(deps)),
    ...Object.entries(asking(deps)),
  ])

  const doorOf =
    (bytesMax: number, answerTo: (body: unknown, guard: Guard) => string | Promise<string>): Door =>
    async (request, visit) => {
      const guard = guardOf(visit.identity)
      const text = await answerTo(await readJson(request, bytesMax), guard)
      return new Response(text, {
        headers: {
          ...visitHeaders(visit, tick()),
          'content-type': 'application/json',
          'cache-control': 'no-store',
        },
      })
    }

  const doors = new Map<string, Door>()
  for (const [name, method] of methods) {
    const answer = async (body: unknown, guard: Guard) =>
      `{"result":${await runMethod(method, body, guard)}}`
    doors.set(name, doorOf(requestBytesMax, answer))
  }
  doors.set(
    'batch',
    doorOf(batchBytesMax, (body, guard) => batch({ methods, log, guard }, body)),
  )
  return doors
}

/** Faults: `unauthenticated`. */
function guardOf(identity: Identity): Guard {
  if (identity.kind === 'key') return { check() {}, may: () => true, mayAll: true }
  if (identity.kind !== 'scoped') {
    throw new Fault('unauthenticated', 'the server API needs the API key in X-API-Key')
  }
  const { may } = identity
  const check = (act: KeyAct, topic: string): void => {
    if (!may(act, topic)) throw new Fault('denied', `this API key may not ${act} ${topic}`)
  }
  return { check, may, mayAll: false }
}

function runMethod(
  { fields, run, isScoped }: Method,
  body: unknown,
  guard: Guard,
): string | Promise<string> {
  if (guard.mayAll || isScoped) return run(readFields(body, fields), guard)
  throw new Fault('denied', 'this needs an API key with the scope admin')
}

type Methods = Readonly<Record<string, Method>>

function publishing({ realtime }: ServerApiDeps): Methods {
  const keyOf = (body: Fields) => ({ key: body.text('idempotency_key', repeatKeyLengthMax) })
  return {
    publish: {
      fields: ['channel', 'data', 'idempotency_key'],
      isScoped: true,
      async run(body, guard) {
        const [topic, data, key] = [body.name('channel'), body.value('data'), keyOf(body)]
        body.done(undefined)
        guard.check('publish', topic)
        return positionJson(await realtime.submit(topic, data, key))
      },
    },
    /** One value to many topics; what came of each is answered in its place. */
    broadcast: {
      fields: ['channels', 'data', 'idempotency_key'],
      isScoped: true,
      async run(body, guard) {
        const topics = body.names('channels', broadcastTopicsMax)
        const [data, key] = [body.value('data'), keyOf(body)]
        body.done(undefined)
        for (const topic of topics) guard.check('publish', topic)
        const outcomes = await realtime.broadcast(topics, data, key)
        return `{"responses":[${outcomes.map(outcomeJson).join(',')}]}`
      },
    },
    history: {
      fields: ['channel', 'limit', 'since', 'reverse'],
      isScoped: true,
      async run(body, guard) {
        const topic = body.name('channel')
        const query = historyQueryOf({
          limit: body.whole('limit', -1, listMax),
          since: body.object('since'),
          reverse: body.flag('reverse'),
        })
        if (!query) body.problem('since', 'must be { offset, epoch }')
        body.done(undefined)
        if (!query) return '{}'
        guard.check('read', topic)
        await realtime.ready([topic])
        const { publications, offset, epoch } = realtime.history(topic, query)
        const list = publications.map((one) => `{"data":${one.data},"offset":${one.offset}}`)
        return `{"publications":[${list.join(',')}],"offset":${offset},"epoch":"${epoch}"}`
      },
    },
    /** What the topic keeps goes; its offset and epoch stay. */
    history_remove: {
      fields: ['channel'],
      async run(body) {
        await realtime.forget(body.done(body.name('channel')))
        return '{}'
      },
    },
  }
}

function controlling({ realtime: { control } }: ServerApiDeps): Methods {
  const whoFields = ['user', 'client']
  return {
    subscribe: {
      fields: [...whoFields, 'channel', 'recover_since'],
      async run(body) {
        const [who, topic] = [whoOf(body), body.name('channel')]
        const given = body.object('recover_since')
        const since = given && positionOf(given)
        if (given && !since) body.problem('recover_since', 'must be { offset, epoch }')
        return reachJson(await control.subscribe(body.done(who), topic, since))
      },
    },
    unsubscribe: {
      fields: [...whoFields, 'channel'],
      async run(body) {
        const [who, topic] = [whoOf(body), body.name('channel')]
        return reachJson(await control.unsubscribe(body.done(who), topic))
      },
    },
    disconnect: {
      fields: [...whoFields, 'whitelist', 'disconnect'],
      async run(body) {
        const who = whoOf(body)
        const except = body.names('whitelist', listMax, 'optional')
        const close = closeOf(body)
        return reachJson(await control.disconnect(body.done(who), close, except))
      },
    },
    /** `expire_at` in seconds since 1970; without it the connection does not expire. */
    refresh: {
      fields: [...whoFields, 'expired', 'expire_at'],
      async run(body) {
        const [who, isExpired] = [whoOf(body), body.flag('expired')]
        const atS = body.whole('expire_at', 0, expireAtMax)
        body.done(undefined)
        const atMs = atS === undefined ? undefined : atS * 1000
        return reachJson(await control.refresh(who, isExpired ? 0 : atMs))
      },
    },
  }
}

function asking({ realtime: { control } }: ServerApiDeps): Methods {
  return {
    presence: {
      fields: ['channel'],
      isScoped: true,
      async run(body, guard) {
        const members = await control.presence(readable(body, guard))
        const each = members.map(({ client, info }) => `${JSON.stringify(client)}:${info}`)
        return `{"presence":{${each.join(',')}}}`
      },
    },
    presence_stats: {
      fields: ['channel'],
      isScoped: true,
      async run(body, guard) {
        const { clients, users } = await control.presenceStats(readable(body, guard))
        return JSON.stringify({ num_clients: clients, num_users: users })
      },
    },
    /** Topics that somebody hears. */
    channels: {
      fields: ['pattern'],
      isScoped: true,
      async run(body, guard) {
        const found = await control.channels(body.done(body.text('pattern') ?? ''), listMax)
        const mine = found.items.filter(({ name }) => guard.may('read', name))
        const named = mine.map(({ name, clients }) => [name, { num_clients: clients }])
        return JSON.stringify({ channels: Object.fromEntries(named), ...partly(found) })
      },
    },
    /** As in Centrifugo PRO. Of a user, or of all; 1,000 unless told otherwise. */
    connections: {
      fields: ['user', 'client', 'limit'],
      async run(body) {
        const who = { user: body.text('user'), client: body.text('client') }
        const max = body.whole('limit', 1, listMax) ?? connectionsDefault
        body.done(undefined)
        const isAll = who.user === undefined && who.client === undefined
        const found = await control.connections(isAll ? undefined : who, max)
        const named = found.items.map(({ client, user, address, topics, expiresAtMs }) => [
          client,
          {
            user,
            address,
            ...(expiresAtMs === undefined ? {} : { expire_at: Math.ceil(expiresAtMs / 1000) }),
            state: { channels: Object.fromEntries(topics.map((name) => [name, {}])) },
          },
        ])
        return JSON.stringify({ connections: Object.fromEntries(named), ...partly(found) })
      },
    },
    info: {
      fields: [],
      async run(body) {
        body.done(undefined)
        const found = await control.info()
        const nodes = found.items.map((one) => ({
          uid: one.node,
          name: one.app,
          version: one.version,
          num_clients: one.connections,
          num_users: one.users,
          num_subs: one.subscriptions,
          num_channels: one.topics,
          uptime: Math.floor(one.uptimeMs / 1000),
        }))
        return JSON.stringify({ nodes, ...partly(found) })
      },
    },
  }
}

/** Only where it is so: with one node the answers are Centrifugo's. */
function partly({ isPartial }: Reach): { readonly partial?: true } {
  return isPartial ? { partial: true } : {}
}

function reachJson(reach: Reach): string {
  return JSON.stringify(partly(reach))
}

function readable(body: Fields, guard: Guard): string {
  const topic = body.done(body.name('channel'))
  guard.check('read', topic)
  return topic
}

function whoOf(body: Fields): Who {
  const who = { user: body.text('user'), client: body.text('client') }
  if (who.user === undefined && who.client === undefined) {
    body.problem('user', 'is missing: name a user, a client or both')
  }
  return who
}

function closeOf(body: Fields): { code: number; reason: string } | undefined {
  const given = body.object('disconnect')
  if (!given) return undefined
  const { code, reason = '' } = given
  const { least, most } = closeCodes
  const isCode = typeof code === 'number' && Number.isInteger(code) && code >= least && code <= most
  const isReason = typeof reason === 'string' && Buffer.byteLength(reason) <= reasonLengthMax
  if (isCode && isReason) return { code, reason }
  const text = `must be { code, reason }: ${least} to ${most}, and at most ${reasonLengthMax} bytes`
  body.problem('disconnect', text)
  return undefined
}

interface BatchServer {
  readonly guard: Guard
  readonly methods: ReadonlyMap<string, Method>
  readonly log: Log
}

/** `{"commands":[{"publish":{…}},…],"parallel":false}`: one after the other, or all at once. */
async function batch(server: BatchServer, body: unknown): Promise<string> {
  const fields = readFields(body, ['commands', 'parallel'])
  const commands = fields.value('commands')
  const isParallel = fields.flag('parallel')
  if (!Array.isArray(commands) || commands.length === 0 || commands.length > batchCommandsMax) {
    fields.problem('commands', `must be 1 to ${batchCommandsMax} commands`)
  } else if (topicsIn(commands) > batchTopicsMax) {
    fields.problem('commands', `publishes to more than ${batchTopicsMax} topics`)
  }
  fields.done(undefined)

  const replies: string[] = []
  if (isParallel) {
    replies.push(...(await Promise.all((commands as unknown[]).map((one) => reply(server, one)))))
  } else {
    for (const one of commands as unknown[]) replies.push(await reply(server, one))
  }
  return `{"replies":[${replies.join(',')}]}`
}

async function reply({ methods, log, guard }: BatchServer, command: unknown): Promise<string> {
  try {
    const [[name, body] = [''], ...more] = Object.entries(command ?? {})
    const method = more.length === 0 ? methods.get(name) : undefined
    if (!method) {
      const error = { code: 104, message: 'method not found' }
      return JSON.stringify({ error })
    }
    return `{"${name}":${await runMethod(method, body, guard)}}`
  } catch (thrown) {
    const fault = toFault(thrown)
    if (fault.code === 'internal') log.error('http.batch-failed', { error: thrown })
    return JSON.stringify({ error: apiError(fault) })
  }
}

function topicsIn(commands: readonly unknown[]): number {
  let count = 0
  for (const one of commands) {
    const topics = (one as { readonly broadcast?: { readonly channels?: unknown } } | null)
      ?.broadcast?.channels
    count += Array.isArray(topics) ? topics.length : 1
  }
  return count
}

function positionJson({ offset, epoch }: Position): string {
  return `{"offset":${offset},"epoch":"${epoch}"}`
}

function outcomeJson(outcome: Position | Fault): string {
  if (outcome instanceof Fault) return JSON.stringify({ error: apiError(outcome) })
  return `{"result":${positionJson(outcome)}}`
}

/** Centrifugo's numbers, for one command of a batch or one topic of a broadcast; 100 for the rest. */
const apiCodes: Partial<Record<FaultCode, number>> = {
  denied: 103,
  not_found: 102,
  too_large: 106,
  invalid: 107,
  too_many: 111,
  conflict: 112,
}

function apiError({ code, message, fields = [] }: Fault): { code: number; message: string } {
  const said = [message, ...fields.map((one) => `${one.field}: ${one.message}`)].join('; ')
  return { code: apiCodes[code] ?? 100, message: said }
}
