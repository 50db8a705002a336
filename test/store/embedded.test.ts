/** An embedded replica whose threads do as they are told here: what it makes of failures. */
import { expect, test } from 'bun:test'
import { rmSync, writeFileSync } from 'node:fs'
import { systemClock } from '../../src/lib/clock.ts'
import { createEmbeddedReplica } from '../../src/store/replica-embedded.ts'
import type { ThreadClient } from '../../src/store/thread-client.ts'
import { insertNote, storeTables } from '../contracts/store.ts'
import { createTestLog, openStore, tempFolder, until } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'

test('what could not be followed at once is followed by the next step', async () => {
  using folder = tempFolder()
  let primary = 3
  const threadOf = (): ThreadClient => ({
    ask: async ({ kind }) => (kind === 'sync' ? { id: 1, seq: primary } : { id: 1, done: true }),
    pending: 0,
    isDead: false,
    stop: async () => {},
  })
  const told: number[] = []
  let failures = 0
  const replica = createEmbeddedReplica({
    clock: systemClock,
    log: createTestLog(),
    file: folder.file('replica.db'),
    readers: 1,
    openReplica: async () => threadOf(),
    openReader: async () => threadOf(),
    primarySeq: async () => primary,
    async synced() {
      if (failures++ < 1) throw new Error('a reader was away')
      told.push(replica.seq)
    },
  })
  await replica.start()
  primary = 4
  replica.hint()
  await until(() => told.length > 0, 'the store followed')
  expect(told).toEqual([4])
  await replica.stop()
})

test.skipIf(!requireService('sqld'))(
  'without its replica a node hears of others from the primary',
  async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    const remote = { kind: 'remote', primary: { url: primary.url }, replicas: [] } as const
    const replicaFile = folder.file('a/replica.db')
    await using a = await openStore({ ...remote, replicaFile }, storeTables)
    await using b = await openStore(remote, storeTables)
    const heard: string[] = []
    a.onChange(({ key }) => void heard.push(key))
    // Its own sync can never succeed again: the copy is damaged, and its folder a file.
    rmSync(folder.file('a'), { recursive: true })
    writeFileSync(folder.file('a'), 'no folder')
    await until(async () => {
      await b.write([insertNote(Date.now(), 'x')])
      await a.read({ sql: 'select count(*) from notes', params: [] }).catch(() => {})
      await Bun.sleep(100)
      return a.stats().replicas[0]?.seq === -1
    }, 'the replica is out')
    await b.write([insertNote(7, 'seven')])
    await until(() => heard.includes('7'), 'a heard of it')
  },
)

test.skipIf(!requireService('sqld'))(
  'an idle node keeps knowing that it has heard of everything',
  async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    await using store = await openStore(
      {
        kind: 'remote',
        primary: { url: primary.url },
        replicas: [],
        replicaFile: folder.file('replica.db'),
      },
      storeTables,
    )
    let msAgo = 0
    const hasLooked = (): boolean => {
      const before = msAgo
      msAgo = store.followedMsAgo()
      return msAgo < before
    }
    for (let time = 0; time < 3; time++) await until(hasLooked, 'it has looked again')
  },
)
