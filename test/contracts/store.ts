/**
 * What every shape of a database must do, said once and run on each (`test/store/shapes.test.ts`): a file,
 * a file with shipped copies, a remote primary, a remote primary with an embedded replica.
 */
import { expect, test } from 'bun:test'
import { eq } from 'drizzle-orm'
import { integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { toFault } from '../../src/fault.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { transactionMsMax, type Change, type Query } from '../../src/store/store.ts'
import { faultOf, until, type OpenOptions, type TestStore } from '../harness.ts'

export const notes = sqliteTable('notes', {
  id: integer().primaryKey({ autoIncrement: true }),
  text: text().notNull(),
  price: real(),
  slug: text().unique(),
})

export const replies = sqliteTable('replies', {
  id: integer().primaryKey(),
  noteId: integer('note_id')
    .notNull()
    .references(() => notes.id, { onDelete: 'cascade' }),
})

export const storeTables = [notes, replies]

/** A fresh database in this shape. `open` opens a node on it; where only one may, the others must be closed. */
export interface Shape extends AsyncDisposable {
  open(options?: OpenOptions): Promise<TestStore>
}

export const insertNote = (id: number, body: string | null): Query => ({
  sql: 'insert into notes (id, text) values (?, ?)',
  params: [id, body],
})

const count = async (store: TestStore, table = 'notes'): Promise<number> =>
  Number((await store.read({ sql: `select count(*) from ${table}`, params: [] }))[0]?.[0])

export function storeContract(start: () => Promise<Shape>): void {
  const contract = (name: string, run: (store: TestStore, shape: Shape) => Promise<void>): void =>
    test(name, async () => {
      await using shape = await start()
      await using store = await shape.open()
      await run(store, shape)
    })

  contract('a write is logged, listeners hear of it before it is answered', async (store) => {
    const told: Change[] = []
    store.onChange((change) => void told.push(change))
    const before = store.stats().seq
    const changes = await store.write([insertNote(1, 'one')])
    expect(told).toEqual([...changes])
    expect(changes).toMatchObject([
      { seq: before + 1, table: 'notes', op: 'create', key: '1', row: [1, 'one', null, null] },
    ])
    expect(changes[0]?.tags).toEqual(['notes', 'notes:1'])
  })

  contract('whoever wrote reads what it wrote, every time', async (store) => {
    for (let id = 1; id <= 60; id++) {
      await store.write([insertNote(id, `note ${id}`)])
      const rows = await store.read({ sql: 'select text from notes where id = ?', params: [id] })
      expect(rows).toEqual([[`note ${id}`]])
    }
  })

  contract(
    'a write that fails is undone alone; its neighbours stay; seq has no hole',
    async (store) => {
      const before = store.stats().seq
      const outcomes = await Promise.allSettled([
        store.write([insertNote(1, 'one')]),
        store.write([insertNote(2, 'two'), insertNote(1, 'again')]),
        store.write([insertNote(3, null)]),
        store.write([insertNote(4, 'four')]),
      ])
      const statuses = outcomes.map(({ status }) => status)
      expect(statuses).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled'])
      const ids = await store.read({ sql: 'select id from notes order by id', params: [] })
      expect(ids).toEqual([[1], [4]])
      expect(store.stats().seq).toBe(before + 2)
    },
  )

  contract('a constraint names its columns', async (store) => {
    await store.write([insertNote(1, 'one')])
    const taken = await faultOf(() => store.write([insertNote(1, 'one')]))
    expect([taken.code, taken.fields]).toEqual(['conflict', [{ field: 'id', message: 'is taken' }]])
    const missing = await faultOf(() => store.write([insertNote(2, null)]))
    expect([missing.code, missing.fields?.[0]?.field]).toEqual(['invalid', 'text'])
    const orphan = { sql: 'insert into replies (id, note_id) values (1, 99)', params: [] }
    expect((await faultOf(() => store.write([orphan]))).code).toBe('conflict')
  })

  contract('values come back as they were', async (store) => {
    const values = [1, 'é 漢 🎉 "quoted" \\ \n', 0.1 + 0.2, 'a']
    const told: Change[] = []
    store.onChange((change) => void told.push(change))
    const sql = 'insert into notes (id, text, price, slug) values (?, ?, ?, ?)'
    await store.write([{ sql, params: values }])
    expect(await store.read({ sql: 'select * from notes', params: [] })).toEqual([values])
    expect(told[0]?.row).toEqual(values)
  })

  contract('what a cascade deletes is logged too', async (store) => {
    await store.write([
      insertNote(1, 'one'),
      { sql: 'insert into replies (id, note_id) values (7, 1), (8, 1)', params: [] },
    ])
    const changes = await store.write([{ sql: 'delete from notes where id = 1', params: [] }])
    const seen = changes.map(({ table, op, key }) => `${op} ${table} ${key}`)
    expect(seen.toSorted()).toEqual(['remove notes 1', 'remove replies 7', 'remove replies 8'])
    expect(await count(store, 'replies')).toBe(0)
  })

  contract('a write of 1,000 statements happens whole, or not at all', async (store) => {
    const many = Array.from({ length: 1_000 }, (_, at) => insertNote(at + 1, 'x'.repeat(200)))
    expect((await store.write(many)).length).toBe(1_000)
    const bad = [
      ...many.map(({ sql }, at) => ({ sql, params: [at + 2_000, 'x'] })),
      insertNote(1, 'x'),
    ]
    expect((await faultOf(() => store.write(bad))).code).toBe('conflict')
    expect(await count(store)).toBe(1_000)
  })

  contract('one statement that changes 5,000 rows: each is heard of, in order', async (store) => {
    const many = `insert into notes (text) with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
      select 'note ' || i || '${'x'.repeat(1_000)}' from n`
    const seqs: number[] = []
    store.onChange(({ seq }) => void seqs.push(seq))
    const before = store.stats().seq
    const changes = await store.write([{ sql: many, params: [] }])
    expect(changes).toHaveLength(5_000)
    expect(seqs).toEqual(Array.from({ length: 5_000 }, (_, at) => before + 1 + at))
    await store.transaction((tx) => tx.delete(notes))
    expect([seqs.length, store.stats().seq]).toEqual([10_000, before + 10_000])
  })

  test('rows of 13 MB in one transaction are heard of, and the next write', async () => {
    // Two seconds are little for that on a busy machine; that they are the bound is another test.
    const after: Clock['after'] = (ms, run) =>
      systemClock.after(ms === transactionMsMax ? 10 * ms : ms, run)
    await using shape = await start()
    await using store = await shape.open({ clock: { ...systemClock, after } })
    const told: string[] = []
    store.onChange(({ op, key, row }) => void told.push(`${op} ${key} ${row.length}`))
    const ids = Array.from({ length: 14 }, (_, at) => at + 1)
    await store.transaction(async (tx) => {
      for (const id of ids) await tx.insert(notes).values({ id, text: '漢'.repeat(320_000) })
    })
    expect(told).toEqual(ids.map((id) => `create ${id} 4`))
    await Promise.all(ids.map((id) => store.write([insertNote(id + 20, '漢'.repeat(320_000))])))
    expect(told).toHaveLength(28)
  })

  contract('300 writes at once are all there, in order, in few commits', async (store) => {
    const seqs: number[] = []
    store.onChange(({ seq }) => void seqs.push(seq))
    const before = store.stats().seq
    await Promise.all(
      Array.from({ length: 300 }, (_, at) => store.write([insertNote(at + 1, 'x')])),
    )
    expect(seqs).toEqual(Array.from({ length: 300 }, (_, at) => before + 1 + at))
    expect(await count(store)).toBe(300)
    expect(store.stats().commits).toBeLessThan(30)
  })

  contract(
    'a transaction reads what it wrote; it happens whole, and is heard of',
    async (store) => {
      const told: Change[] = []
      store.onChange((change) => void told.push(change))
      const id = await store.transaction(async (tx) => {
        const [row] = await tx.insert(notes).values({ text: 'one' }).returning()
        await tx
          .update(notes)
          .set({ price: 1.5 })
          .where(eq(notes.id, row?.id ?? 0))
        const [read] = await tx.select().from(notes)
        expect(read).toMatchObject({ text: 'one', price: 1.5 })
        return read?.id
      })
      expect(told.map(({ op, key }) => `${op} ${key}`)).toEqual([`create ${id}`, `update ${id}`])
      // As it was, on every shape.
      expect(told.map(({ was }) => was)).toEqual([undefined, told[0]?.row])
      expect(await store.db.select().from(notes)).toHaveLength(1)
    },
  )

  contract('a transaction that throws leaves nothing, and others go on', async (store) => {
    const outcome = store.transaction(async (tx) => {
      await tx.insert(notes).values({ text: 'gone' })
      throw new Error('changed my mind')
    })
    const meanwhile = store.write([insertNote(5, 'meanwhile')])
    await expect(outcome).rejects.toThrow('changed my mind')
    await meanwhile
    expect(await store.read({ sql: 'select id from notes', params: [] })).toEqual([[5]])
    for (const sql of [
      'commit',
      '/* now */ commit',
      '-- now\n;commit',
      ';pragma query_only = on',
    ]) {
      const refused = await faultOf(() => store.transaction((tx) => tx.run(sql)))
      expect(refused.code).toBe('invalid')
    }
  })

  contract(
    'what was done once gives the same result again, also when that is nothing',
    async (store) => {
      let runs = 0
      const once = (key: string, result: unknown) =>
        store.transaction(
          async () => {
            runs++
            return result
          },
          { scope: 'test', key, request: null },
        )
      for (const result of [undefined, null, 0, { a: [1] }]) {
        const key = `key-${JSON.stringify(result) ?? ''}`.slice(0, 6)
        expect(await once(key, result)).toEqual(result as never)
        expect(await once(key, 'another')).toEqual(result as never)
      }
      expect(runs).toBe(4)
    },
  )

  contract('what the database itself has rolled back is not gone on with', async (store) => {
    await store.write([insertNote(1, 'one')])
    const outcome = store.transaction(async (tx) => {
      await tx.insert(notes).values({ id: 2, text: 'before' })
      const taken = "insert or rollback into notes (id, text) values (1, 'again')"
      await tx.run(taken).catch(() => {})
      await tx
        .insert(notes)
        .values({ id: 3, text: 'after' })
        .catch(() => {})
    })
    expect((await faultOf(() => outcome)).code).not.toBe('timeout')
    // One that fails without ending it does not.
    await store.transaction(async (tx) => {
      await tx.run("insert into notes (id, text) values (1, 'again')").catch(() => {})
      await tx.insert(notes).values({ id: 4, text: 'four' })
    })
    expect(await store.read({ sql: 'select id from notes', params: [] })).toEqual([[1], [4]])
  })

  contract('db only reads, wherever that is', async (store) => {
    const refused = [
      'begin',
      '/**/ pragma query_only = off',
      "insert into notes (text) values ('x')",
      "with one as (select 'delete') insert into notes (text) select * from one",
    ]
    for (const sql of refused) {
      const failure: unknown = await store.db.all(sql).catch((thrown: unknown) => thrown)
      expect(toFault(failure).code).toBe('invalid')
    }
    const read = "with one(a) as (select replace('delete', 'e', 'i')) select a from one"
    expect(await store.db.all(read)).toEqual([['diliti']])
    expect(await count(store)).toBe(0)
  })

  contract('no transaction holds others back for longer than its bound', async (store) => {
    const never = Promise.withResolvers<never>()
    const endless = store.transaction(async (tx) => {
      await tx.insert(notes).values({ text: 'never' })
      await never.promise
    })
    const waiting = store.write([insertNote(2, 'two')])
    expect((await faultOf(() => endless)).code).toBe('timeout')
    await waiting
    expect(await store.read({ sql: 'select text from notes', params: [] })).toEqual([['two']])
  })

  contract('a transaction that is over takes nothing more; one statement is one', async (store) => {
    let kept: Parameters<Parameters<TestStore['transaction']>[0]>[0] | undefined
    await store.transaction(async (tx) => void (kept = tx))
    const late = await faultOf(() => kept?.insert(notes).values({ text: 'late' }))
    expect(late.message).toBe('the transaction is over')
    const two = "insert into notes (text) values ('a;b'); insert into notes (text) values ('c')"
    const refused = await faultOf(() => store.transaction((tx) => tx.run(two)))
    expect([refused.code, await count(store)]).toEqual(['invalid', 0])
    await store.transaction((tx) => tx.run("insert into notes (text) values ('a;b') ; "))
    expect(await count(store)).toBe(1)
  })

  contract('seq and rows outlive the node', async (store, shape) => {
    await store.write([insertNote(1, 'one')])
    const { seq } = store.stats()
    await store.stop()
    await using again = await shape.open()
    expect(again.stats().seq).toBe(seq)
    const [change] = await again.write([insertNote(2, 'two')])
    expect(change?.seq).toBe(seq + 1)
    expect(await count(again)).toBe(2)
    expect(again.secret()).toEqual(store.secret())
  })
}

/** Of shapes that several nodes share. */
export function sharedStoreContract(start: () => Promise<Shape>): void {
  test('a node hears of what another one wrote, in order, and reads it then', async () => {
    await using shape = await start()
    await using a = await shape.open()
    await using b = await shape.open()
    const heard: number[] = []
    let seen: Promise<unknown> | undefined
    b.onChange(({ seq, key }) => {
      heard.push(seq)
      if (key === '50') seen = b.read({ sql: 'select count(*) from notes', params: [] })
    })
    for (let id = 1; id <= 50; id++) await a.write([insertNote(id, 'from a')])
    await until(() => heard.length >= 50, 'b heard of all of them')
    expect(heard).toEqual(Array.from({ length: 50 }, (_, at) => (heard[0] ?? 0) + at))
    expect(await seen).toEqual([[50]])
  })

  test('two nodes that write at once: each hears of all, in one order', async () => {
    await using shape = await start()
    await using a = await shape.open()
    await using b = await shape.open()
    const pair = [a, b]
    const heard = pair.map((store) => {
      const keys: string[] = []
      store.onChange(({ key }) => void keys.push(key))
      return keys
    })
    await Promise.all(
      pair.flatMap((store, node) =>
        Array.from({ length: 40 }, (_, at) => store.write([insertNote(node * 100 + at + 1, 'x')])),
      ),
    )
    await until(() => heard.every((keys) => keys.length === 80), 'both heard of all')
    expect(heard[0]).toEqual(heard[1] ?? [])
  })
}
