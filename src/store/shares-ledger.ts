/**
 * The ledger of shares: a table in the primary that all nodes have in common, and its clock.
 *
 *   renewal:  target ◄─ divided by what was read last
 *             write    max(target, in use), at most what others leave; kept for lease + settle
 *             read     what was written, and what others have and want
 *             units  = min(target, written), until lease after the write was SENT
 *
 * A node that is to have fewer uses fewer at once, and writes the lower number when nothing above it is in use. A
 * renewal that arrives after a later one changes nothing (`turn`). The sum is kept by the one statement that writes.
 *
 * A rest is a row of nobody's: it has no units, and lasts as long as nobody is to begin anything. Who says so writes it at
 * once, with a renewal; the others read it with theirs. It is counted from when the answer came, so never too short.
 */
import { assert } from '../lib/assert.ts'
import type { Cancel } from '../lib/clock.ts'
import { atMost, detach } from '../lib/service.ts'
import type { RawRow } from './messages.ts'
import { divide, type Claim } from './shares-divide.ts'
import type { Share, ShareBounds, ShareOptions, Shares, SharesDeps } from './shares.ts'

/** A primary that is away is not waited for: the units end by themselves. */
const goodbyeMs = 1_000

/** Whose a rest is. */
const nobody = ''

/** A rest that is so much longer than was told is told at once; else with the next renewal. */
const restStepMs = 250

interface Member {
  readonly name: string
  readonly holder: string
  readonly options: ShareOptions
  readonly listeners: (() => void)[]
  /** What it is to have, as far as it knows. */
  target: number
  /** As the ledger said. */
  granted: number
  expiresAt: number
  /** What listeners know. */
  told: number
  restsUntil: number
  /** Of it, what the ledger knows. */
  restTold: number
  cancelExpiry: Cancel
}

export function createSharesLedger(deps: SharesDeps, bounds: ShareBounds): Shares {
  const { store, clock, log } = deps
  const members = new Map<string, Member>()
  const node = crypto.randomUUID()
  let joined = 0
  let turn = 0
  let isStopped = false
  let isFailing = false
  let running: Promise<void> | undefined
  let cancel: Cancel = () => {}

  const unitsOf = (member: Member): number =>
    members.get(member.name) === member && clock.tick() < member.expiresAt
      ? Math.min(member.target, member.granted)
      : 0

  const tell = (member: Member): void => {
    const units = unitsOf(member)
    if (units === member.told) return
    member.told = units
    for (const listener of member.listeners) listener()
  }

  const hearRest = (member: Member, leftMs: number): void => {
    const until = clock.tick() + leftMs
    if (leftMs <= 0 || until <= member.restsUntil) return
    member.restsUntil = member.restTold = until
    for (const listener of member.listeners) listener()
  }

  const isUntold = ({ restsUntil, restTold }: Member): boolean =>
    restsUntil > Math.max(restTold + restStepMs, clock.tick())

  const renewal = async (asked: readonly Member[]): Promise<void> => {
    turn++
    const sentAt = clock.tick()
    const rows = asked.map((member) => askedFor(member, bounds))
    // What is given back is not used again meanwhile.
    for (const member of asked) tell(member)
    const rests = asked
      .map((member) => ({ member, until: member.restsUntil }))
      .filter(({ member, until }) => until > Math.max(member.restTold, sentAt))
    const lefts = rests.map(({ member, until }) => [member.name, Math.ceil(until - sentAt)])
    await store.writeAside([
      { sql: forgetShares, params: [] },
      { sql: renewShares, params: [turn, JSON.stringify(rows)] },
      ...(lefts.length > 0 ? [{ sql: restShares, params: [JSON.stringify(lefts)] }] : []),
    ])
    for (const { member, until } of rests) member.restTold = Math.max(member.restTold, until)
    const names = JSON.stringify(asked.map(({ name }) => name))
    const select = { name: 'shares', sql: selectShares, params: [names] }
    const read = (await store.read(select, { from: 'primary' })).map(rowOf)
    for (const member of asked) {
      const claims = read.filter(({ name }) => name === member.name)
      hearRest(member, claims.find(({ holder }) => holder === nobody)?.leftMs ?? 0)
      const own = claims.find(({ holder }) => holder === member.holder)
      // Without it, or with another renewal's, nothing is known.
      if (own?.turn !== turn) continue
      const { capacity, rotateMs } = member.options
      const round = rotateMs === undefined ? undefined : Math.floor(own.nowMs / rotateMs)
      member.target = divide(capacity, claims, round).get(member.holder) ?? 0
      member.granted = own.units
      member.expiresAt = sentAt + bounds.leaseMs
      member.cancelExpiry()
      const leftMs = Math.max(0, member.expiresAt - clock.tick())
      member.cancelExpiry = clock.after(leftMs, () => tell(member))
      tell(member)
    }
  }

  const renew = async (): Promise<void> => {
    const startedAt = clock.tick()
    const asked = [...members.values()]
    if (asked.length === 0) return
    try {
      await renewal(asked)
      if (isFailing) log.info('shares.renewed_again')
      isFailing = false
    } catch (error) {
      if (!isFailing && !isStopped) log.warn('shares.not_renewed', { error })
      isFailing = true
    }
    const isMoving = isFailing || asked.some(({ target, granted }) => target !== granted)
    const isNew = [...members.values()].some(
      (member) => !asked.includes(member) || (!isFailing && isUntold(member)),
    )
    const everyMs = isNew ? 0 : isMoving ? bounds.hurryMs : bounds.renewMs
    schedule(Math.max(0, everyMs - (clock.tick() - startedAt)))
  }

  const schedule = (waitMs: number): void => {
    cancel()
    if (isStopped) return
    cancel = clock.after(waitMs, () => {
      if (running) return
      running = renew().finally(() => (running = undefined))
      detach(running, (error) => log.error('shares.renewal_died', { error }))
    })
  }

  const leave = async (member: Member): Promise<void> => {
    if (members.get(member.name) !== member) return
    members.delete(member.name)
    member.cancelExpiry()
    tell(member)
    // Its last renewal may be on its way.
    await running
    turn++
    const settleMs = member.options.inUse() > 0 ? member.options.settleMs : 0
    await store.writeAside([
      { sql: endShare, params: [settleMs, turn, member.name, member.holder] },
    ])
  }

  const leaveSafely = async (member: Member): Promise<void> => {
    try {
      await leave(member)
    } catch (error) {
      // Then it ends by itself.
      log.warn('shares.not_left', { name: member.name, error })
    }
  }

  return {
    join(name, options): Share {
      assert(!members.has(name), () => `${name} is joined once`)
      joined++
      const member: Member = {
        ...{ name, holder: `${node}.${joined}`, options, listeners: [] },
        // All it may get, until it knows of others.
        ...{ target: options.capacity, granted: 0, expiresAt: 0, told: 0 },
        ...{ restsUntil: -Infinity, restTold: -Infinity },
        cancelExpiry: () => {},
      }
      members.set(name, member)
      // Those who join in one turn ask together.
      if (!running) schedule(0)
      return {
        get units() {
          return unitsOf(member)
        },
        get restsUntil() {
          return member.restsUntil
        },
        rest(ms) {
          member.restsUntil = Math.max(member.restsUntil, clock.tick() + ms)
          if (!running && isUntold(member)) schedule(0)
        },
        leave: () => atMost(clock, goodbyeMs, leaveSafely(member)),
        onChange: (listener) => void member.listeners.push(listener),
      }
    },
    async stop() {
      isStopped = true
      cancel()
      await atMost(clock, goodbyeMs, Promise.all([...members.values()].map(leaveSafely)))
    },
  }
}

function askedFor(member: Member, { leaseMs }: ShareBounds): unknown[] {
  const { capacity, demand, inUse, settleMs } = member.options
  const wants = Math.min(capacity, Math.max(0, Math.ceil(demand())))
  // Before it is looked what is in use: nothing is begun after that with what is given back.
  if (wants === 0) member.target = 0
  const units = Math.max(inUse(), member.target)
  return [member.name, member.holder, capacity, units, wants, leaseMs + settleMs]
}

interface Row extends Claim {
  readonly name: string
  readonly turn: number
  readonly leftMs: number
  readonly nowMs: number
}

function rowOf([name, holder, units, wants, turn, leftMs, nowMs]: RawRow): Row {
  return {
    ...{ name: String(name), holder: String(holder) },
    ...{ units: Number(units), wants: Number(wants), turn: Number(turn) },
    ...{ leftMs: Number(leftMs), nowMs: Number(nowMs) },
  }
}

const now = `cast(unixepoch('subsec') * 1000 as integer)`

const forgetShares = `delete from belfry_shares where until <= ${now}`

/** What others have is counted whoever is asked for: a row that is over counts no more, and is granted anew. */
const renewShares = `insert into belfry_shares (name, holder, units, wants, turn, until)
select g.name, g.holder,
  max(0, min(g.units, g.capacity - (
    select coalesce(sum(s.units), 0) from belfry_shares s
    where s.name = g.name and s.holder <> g.holder and s.until > t.now
  ))), g.wants, ?, t.now + g.kept
from (select ${now} as now) t cross join (
  select value ->> 0 as name, value ->> 1 as holder, value ->> 2 as capacity,
    value ->> 3 as units, value ->> 4 as wants, value ->> 5 as kept
  from json_each(?)
) g where true
on conflict (name, holder) do update set
  units = excluded.units, wants = excluded.wants, turn = excluded.turn, until = excluded.until
where excluded.turn > belfry_shares.turn`

/** Whoever says the longest is obeyed. */
const restShares = `insert into belfry_shares (name, holder, units, wants, turn, until)
select value ->> 0, '${nobody}', 0, 0, 0, ${now} + (value ->> 1) from json_each(?) where true
on conflict (name, holder) do update set until = max(belfry_shares.until, excluded.until)`

const selectShares = `select name, holder, units, wants, turn, until - ${now}, ${now} from belfry_shares
where name in (select value from json_each(?)) and until > ${now}`

/** What is to settle counts as held; nobody else is to wait for what it wants. */
const endShare = `update belfry_shares set until = ${now} + ?, wants = 0, turn = ? where name = ? and holder = ?`
