/** A copy that is made while its rows change: it is read only when it is equal. */
import { expect, test } from 'bun:test'
import { insertNote, storeTables } from '../contracts/store.ts'
import { openStore, tempFolder, until } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { requireService, startSqld } from '../services.ts'

/** Beside the copy. */
const roundsLeast = 20

test.skipIf(!requireService('sqld'))(
  'rows that go, swap what is unique and come back while they are copied',
  async () => {
    using folder = tempFolder()
    await using copy = await startSqld()
    // So slow that it is not over before some rounds are.
    await using link = await startProxy({ target: copy.port, delayMs: 300 })
    const file = folder.file('a.db')
    {
      await using store = await openStore(file, storeTables)
      const insert = `insert into notes (id, text, slug) with recursive n(i) as
        (select 1 union all select i + 1 from n where i < 5000) select i, 'note', 's' || i from n`
      await store.write([{ sql: insert, params: [] }])
    }
    const database = { kind: 'file', file, replicas: [{ url: link.url }] } as const
    await using store = await openStore(database, storeTables)
    let rounds = 0
    for (let id = 1; store.stats().replicas[0]?.seq === -1 && id < 4_900; id += 7, rounds++) {
      if (rounds === roundsLeast) link.setDelay(20)
      const [low, high] = [id, 5_001 - id]
      const slug = (of: number, text: string) => ({
        sql: 'update notes set slug = ? where id = ?',
        params: [text, of],
      })
      await store.write([slug(low, 'free'), slug(high, `s${low}`), slug(low, `s${high}`)])
      await store.write([
        { sql: 'delete from notes where id in (?, ?)', params: [id + 1, high - 1] },
      ])
      await store.write([insertNote(id + 1, 'back')])
    }
    expect(rounds).toBeGreaterThan(roundsLeast)
    await until(() => store.stats().replicas[0]?.seq === store.stats().seq, 'the copy is in step')
    const all = { sql: 'select id, text, slug from notes order by id', params: [] }
    const { replicaReads } = store.stats()
    const copied = await store.read(all)
    expect(store.stats().replicaReads).toBe(replicaReads + 1)
    expect(copied).toEqual(await store.read(all, { from: 'primary' }))
  },
)
