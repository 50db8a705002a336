/** Hearers of one topic with different rights: asked once for each distinct input, told in order, no gap in numbers. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import { createViews, type LiveEvent } from '../../src/collections/collections.ts'
import { app, collection, eq, or, topic, type CollectionOptions } from '../../src/kit.ts'
import { must } from '../../src/lib/assert.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { Crowd, inputsMany } from '../../src/realtime/crowd.ts'
import { createHub, type Listener, type Seat, type Topic } from '../../src/realtime/hub.ts'
import { withId } from '../../src/realtime/protocol.ts'
import { createPump } from '../../src/realtime/pump.ts'
import { recover } from '../../src/realtime/recovery.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'
import { createRandom } from '../lib/random.ts'

const docs = sqliteTable('docs', {
  id: integer().primaryKey(),
  tenant: text().notNull(),
  note: text(),
})

interface Told {
  readonly offset: number
  readonly data: LiveEvent
  readonly tags?: { readonly after: string }
}

class Ear {
  identity: { user: User | null }
  readonly told: Told[] = []
  seat: Seat | undefined
  isLost = false

  constructor(user: User | null) {
    this.identity = { user }
  }

  push(frame: string): void {
    for (const line of frame.split('\n')) this.told.push(JSON.parse(line).push.pub)
  }

  lose(): void {
    this.isLost = true
  }

  reseat(_: Topic, seat: Seat): void {
    this.seat = seat
  }

  get ids(): string[] {
    return this.told.map(({ data }) => data.id)
  }
}

function setUp(options: CollectionOptions<typeof docs>) {
  const plan = compilePlan(
    app({
      name: 'test',
      collections: { docs: collection(docs, { live: () => 'docs', ...options } as never) },
      topics: { docs: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }) },
    }),
  )
  const clock = createTestClock()
  const log = createTestLog()
  const pump = createPump(clock, { turnMs: 8 })
  const hub = createHub(
    { plans: plan.topics, clock, pump, log, sights: createViews(plan.collections, log) },
    { publicationBytesMax: 65_536, historyBytesMax: 1e7, topicsMax: 100, shardSize: 500 },
  )
  const home = must(
    hub.open(must(hub.match('docs'), () => 'it is declared')),
    () => 'there is room',
  )
  let seq = 0
  const flush = () => pump.flush(Infinity)
  return {
    hub,
    home,
    flush,
    log,
    join(ear: Ear): Ear {
      ear.seat = hub.join(home, ear)
      return ear
    },
    leave: (ear: Ear) =>
      hub.leave(
        must(ear.seat, () => 'it sits'),
        ear,
      ),
    say(row: Partial<typeof docs.$inferSelect>) {
      const id = String(++seq)
      const whole = { id: seq, tenant: 'a', note: null, ...row }
      hub.emit(home, hub.encode({ collection: 'docs', op: 'create', id, row: whole, seq }))
    },
    plain: (data: unknown) => hub.emit(home, hub.encode(data)),
  }
}

const member = (id: string, tenant: string): User => ({ id, tenant })
const ofTenant = ({ user }: { user: User | null }) => eq(docs.tenant, user?.['tenant'] as string)

describe('a topic whose hearers may see different rows', () => {
  test('the rule is asked three times for 2,000 hearers with three inputs; each hears its own', () => {
    let asked = 0
    const read: CollectionOptions<typeof docs>['read'] = ({ user }) => {
      asked++
      return ofTenant({ user })
    }
    const { home, join, say, flush } = setUp({ read })
    const tenants = ['a', 'b'] as const
    const ears = Array.from({ length: 2_000 }, (_, at) => {
      const tenant = tenants[at % 3]
      return join(new Ear(tenant ? member(`u${at}`, tenant) : null))
    })
    // The first one shows what the rule looks at.
    say({ tenant: 'a' })
    asked = 0
    for (const tenant of ['a', 'b', 'b', 'c']) {
      say({ tenant })
      expect(asked).toBe(3)
      asked = 0
    }
    flush()
    for (const [at, { told }] of ears.entries()) {
      const tenant = tenants[at % 3]
      expect(told.map(({ data }) => data.row['tenant'])).toEqual(
        tenant === 'a' ? ['a', 'a'] : tenant === 'b' ? ['b', 'b'] : [],
      )
    }
    expect(home.outbox).toBeUndefined()
  })

  test('one frame for one outcome, however many inputs', () => {
    const { home, join, say, flush } = setUp({
      read: ({ user }) => or(eq(docs.tenant, 'all'), eq(docs.tenant, user?.id)),
      hide: { note: { unless: ({ user }) => user?.role === 'staff' } },
    })
    const frames = new Set<string>()
    class Listening extends Ear {
      override push(frame: string): void {
        frames.add(frame)
      }
    }
    for (let at = 0; at < 50; at++) {
      join(new Listening({ id: `u${at}`, ...(at < 25 ? { role: 'staff' } : {}) }))
    }
    say({ tenant: 'all', note: 'n' })
    flush()
    expect(home.crowd).toBeInstanceOf(Crowd)
    expect([...frames].map((frame) => 'note' in JSON.parse(frame).push.pub.data.row)).toEqual(
      expect.arrayContaining([true, false]),
    )
    expect(frames.size).toBe(2)
  })

  test('what everybody may see alike makes no crowd, and nothing is asked', () => {
    const { home, join, say, flush } = setUp({ read: 'public', hide: { note: true } })
    const ear = join(new Ear(null))
    say({ note: null })
    flush()
    expect(ear.ids).toEqual(['1'])
    // As it was kept before the column was hidden.
    expect(ear.told[0]?.data.row).not.toHaveProperty('note')
    expect(home.crowd).toBeInstanceOf(Crowd)
  })

  test('without hidden columns of old the one outbox serves all', () => {
    const { home, join, say, plain, flush } = setUp({ read: 'public' })
    const ear = join(new Ear(null))
    say({})
    plain({ collection: 'docs', text: 'no row' })
    flush()
    expect(ear.told.map(({ offset }) => offset)).toEqual([1, 2])
    expect(home.crowd).toBeUndefined()
  })

  test('numbers stay the topic’s; the next frame names what was not for this hearer', () => {
    const { join, say, plain, flush } = setUp({ read: ofTenant })
    const ear = join(new Ear(member('ann', 'a')))
    for (const tenant of ['a', 'b', 'b', 'a', 'a']) say({ tenant })
    plain('for all')
    flush()
    expect(ear.told.map(({ offset, tags }) => [offset, tags?.after])).toEqual([
      [1, undefined],
      [4, '1'],
      [5, undefined],
      [6, undefined],
    ])
    const late = join(new Ear(member('bob', 'b')))
    say({ tenant: 'a' })
    say({ tenant: 'b' })
    flush()
    // Who came when six had been said has missed none of what is his.
    expect(late.told.map(({ offset, tags }) => [offset, tags?.after])).toEqual([[8, '6']])
  })

  test('a recovery is by the rules of its moment, and names its holes', () => {
    const rooms = new Map([['ann', ['a']]])
    const { hub, home, say } = setUp({
      read: ({ user }) =>
        or(...(rooms.get(user?.id ?? '') ?? []).map((one) => eq(docs.tenant, one))),
    })
    for (const tenant of ['a', 'b', 'a']) say({ tenant })
    const since = { offset: 0, epoch: home.epoch }
    const ann = { id: 'ann' }
    const get = (): unknown =>
      recover(home, since, Infinity, (some) => hub.seen(ann, some))?.map(({ offset, after }) => [
        offset,
        after,
      ])
    expect(get()).toEqual([
      [1, undefined],
      [3, 1],
    ])
    rooms.set('ann', ['b'])
    expect(get()).toEqual([[2, 0]])
    rooms.delete('ann')
    expect(get()).toEqual([])
  })

  test('a rule that looks at another field than ever before tells those apart whom it took for one', () => {
    let isStrict = false
    const { join, say, flush } = setUp({
      read: ({ user }) => !isStrict || eq(docs.tenant, user?.['tenant'] as string),
    })
    const ears = [join(new Ear(member('ann', 'a'))), join(new Ear(member('bob', 'b')))]
    say({ tenant: 'a' })
    isStrict = true
    say({ tenant: 'b' })
    // What waited in the outbox that they leave is told first.
    expect(ears.map(({ ids }) => ids)).toEqual([['1'], ['1']])
    say({ tenant: 'a' })
    flush()
    expect(ears.map(({ ids }) => ids)).toEqual([
      ['1', '3'],
      ['1', '2'],
    ])
  })

  test('a rule that looks at ever more of a user comes to an end', () => {
    let fields = 0
    const { join, say, flush } = setUp({
      read: ({ user }) =>
        user?.[`field${fields++}`] === 1 || eq(docs.tenant, user?.['tenant'] as string),
    })
    const ears = ['a', 'b'].map((tenant) => join(new Ear(member('same', tenant))))
    say({ tenant: 'a' })
    say({ tenant: 'b' })
    flush()
    expect(ears.map(({ ids }) => ids)).toEqual([['1'], ['2']])
  })

  test('who comes back to rows that were not for him hears the next one without a gap', () => {
    const { hub, home, join, say, plain, flush } = setUp({ read: ofTenant })
    // Said with nobody there: all who come are still told alike.
    for (let at = 0; at < 2; at++) say({ tenant: 'a' })
    const ann = join(new Ear(member('ann', 'a')))
    plain('before')
    const bob = new Ear(member('bob', 'b'))
    bob.seat = hub.join(home, bob, 0)
    plain('next')
    flush()
    expect(ann.told.map(({ offset }) => offset)).toEqual([3, 4])
    expect(bob.told).toMatchObject([{ offset: 4, tags: { after: '0' } }])
  })

  test('a rule that takes a user as a whole is asked for each', () => {
    const { join, say, flush } = setUp({
      read: ({ user }) => {
        const { tenant } = { ...user } as { tenant?: string }
        return eq(docs.tenant, tenant)
      },
    })
    const ears = ['a', 'b'].map((tenant) => join(new Ear(member('same', tenant))))
    say({ tenant: 'a' })
    say({ tenant: 'b' })
    flush()
    expect(ears.map(({ ids }) => ids)).toEqual([['1'], ['2']])
  })

  test('whose claims have changed hears by the new ones from then on, and all of before by the old', () => {
    const { hub, join, say, flush } = setUp({ read: ofTenant })
    const ear = join(new Ear(member('ann', 'a')))
    const other = join(new Ear(member('bob', 'b')))
    say({ tenant: 'a' })
    say({ tenant: 'b' })
    ear.identity = { user: member('ann', 'b') }
    hub.rejoin(
      must(ear.seat, () => 'it sits'),
      ear,
    )
    say({ tenant: 'a' })
    say({ tenant: 'b' })
    flush()
    expect(ear.ids).toEqual(['1', '4'])
    expect(ear.told.at(-1)?.tags).toEqual({ after: '1' })
    expect(other.ids).toEqual(['2', '4'])
  })

  test('a rule that throws tells nobody, and is reported once', () => {
    const { join, say, plain, flush, log } = setUp({
      read: () => {
        throw new Error('broken')
      },
    })
    const ear = join(new Ear(member('ann', 'a')))
    for (let at = 0; at < 3; at++) say({})
    plain('for all')
    flush()
    expect(ear.told.map(({ offset }) => offset)).toEqual([4])
    expect(log.lines.map(({ event }) => event)).toEqual(['collections.live_rule_failed'])
  })

  test('an operator is told of a rule that tells thousands apart, once', () => {
    const { join, say, flush, log } = setUp({ read: ({ user }) => eq(docs.tenant, user?.id) })
    for (let at = 0; at < inputsMany; at++) join(new Ear({ id: `u${at}` }))
    for (let round = 0; round < 2; round++) say({ tenant: 'u5' })
    flush()
    const many = log.lines.filter(({ event }) => event === 'realtime.many-inputs')
    expect(many.map(({ fields }) => fields)).toEqual([{ topic: 'docs', inputs: inputsMany }])
  })

  test('a row of a collection that is not declared is for nobody, nor for tools', () => {
    const { hub, join, plain, flush } = setUp({ read: 'public' })
    const ear = join(new Ear(member('ann', 'a')))
    plain({ collection: 'gone', op: 'update', id: '1', row: { id: 1 }, seq: 1 })
    plain({ collection: 'gone', text: 'no row' })
    flush()
    expect(ear.told.map(({ offset }) => offset)).toEqual([2])
    expect(hub.whole('{"collection":"gone","op":"update","id":"1","row":{}}')).toBeUndefined()
  })

  test('a topic that begins anew loses all who heard it', () => {
    const { hub, home, join, say, leave } = setUp({ read: ofTenant })
    const ears = ['a', 'b'].map((tenant) => join(new Ear(member('x', tenant))))
    say({})
    expect(new Set(hub.restart(home))).toEqual(new Set(ears))
    for (const ear of ears) leave(ear)
    expect(home.sockets).toBe(0)
  })

  test('streams are told where the topic stands instead of what is not for them', () => {
    const { home, hub, say } = setUp({ read: ofTenant })
    const listen = (user: User | null): string[] => {
      const heard: string[] = []
      const listener: Listener = {
        user,
        push: (event, _, id) => void heard.push(withId(id, event)),
      }
      home.listeners.add(listener)
      return heard
    }
    const [anns, visitors] = [listen(member('ann', 'a')), listen(null)]
    say({ tenant: 'a' })
    expect(anns[0]).toContain('"tenant":"a"')
    expect(visitors).toEqual([`id: ${hub.eventId(1)}\n\n`])
  })

  test.each([1, 2, 3, 4, 5])('who comes and goes hears exactly what is his: seed %d', (seed) => {
    const random = createRandom(seed)
    let isOpen = false
    const { home, join, leave, say, plain, flush, hub } = setUp({
      read: ({ user }) =>
        isOpen && user?.role === 'staff'
          ? true
          : or(eq(docs.tenant, 'all'), eq(docs.tenant, user?.['tenant'] as string)),
    })
    const wanted = new Map<Ear, number[]>()
    const tenants = ['a', 'b', 'c', 'all']
    for (let round = 0; round < 400; round++) {
      const ears = [...wanted.keys()].filter(({ seat }) => seat)
      const ear = ears.length > 0 ? random.pick(ears) : undefined
      switch (random.below(8)) {
        case 0:
        case 1: {
          const role = random.below(4) === 0 ? { role: 'staff' } : {}
          const user =
            random.below(5) === 0 ? null : { ...member('u', random.pick(tenants)), ...role }
          wanted.set(join(new Ear(user)), [])
          break
        }
        case 2:
          if (!ear) break
          // It hears no more: what waits for it is not owed.
          flush()
          leave(ear)
          ear.seat = undefined
          break
        case 3:
          flush()
          break
        case 4:
          if (!ear?.seat) break
          ear.identity = { user: member('u', random.pick(tenants)) }
          hub.rejoin(ear.seat, ear)
          break
        case 5:
          isOpen = random.below(2) === 0
          break
        case 6:
          plain('for all')
          for (const one of ears) wanted.get(one)?.push(home.offset)
          break
        default: {
          const tenant = random.pick(tenants)
          say({ tenant })
          for (const one of ears) {
            const { user } = one.identity
            const isTold =
              tenant === 'all' || user?.['tenant'] === tenant || (isOpen && user?.role === 'staff')
            if (isTold) wanted.get(one)?.push(home.offset)
          }
        }
      }
    }
    flush()
    for (const [ear, offsets] of wanted) {
      expect(ear.told.map(({ offset }) => offset)).toEqual(offsets)
      // Whatever lies between is not his, and he is told so.
      for (const [at, { offset, tags }] of ear.told.entries()) {
        const before = ear.told[at - 1]?.offset
        if (before !== undefined && before < offset - 1) {
          expect(Number(tags?.after)).toBeLessThanOrEqual(before)
        }
      }
    }
  })
})
