import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Clock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { faultOf, tempFolder, until } from '../harness.ts'
import { fakeBackups, namesIn } from './setup.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs

function setUp(folder: { file(name: string): string }, keep = 7) {
  const clock = createTestClock(Date.UTC(2026, 0, 1))
  const databaseFile = folder.file('notes.db')
  const own = folder.file('backups')
  let seq = 0
  /** As a new process would: nothing is known but what is on the disk. */
  const started = async () => {
    let planned = 0
    const counting: Clock = {
      ...clock,
      after(ms, run) {
        planned++
        return clock.after(ms, run)
      },
    }
    const made = fakeBackups({ databaseFile, clock: counting, plan: { keep }, seq })
    await made.backups.start()
    const settle = async (count: number, event = 'backup.made') => {
      await until(() => made.count(event) === count, `${count} × ${event}`)
      // What comes next is planned some time after the line of each run; the first one at the start.
      const runs = () => made.count('backup.made') + made.count('backup.failed')
      await until(() => planned > runs(), 'the next one is planned')
      seq = made.snapshot.seq
    }
    return { ...made, settle }
  }
  return { clock, own, started, databaseFile }
}

describe('the schedule', () => {
  test('begins at once when there is none, then goes by the time of the newest file', async () => {
    using folder = tempFolder()
    const { clock, own, started } = setUp(folder)
    const { backups, settle, count } = await started()
    clock.advance(0)
    await settle(1)
    expect(namesIn(own)).toEqual(['notes-20260101T000000000Z-1.db.zst'])
    clock.advance(dayMs - 1)
    await Bun.sleep(20)
    expect(count('backup.made')).toBe(1)
    clock.advance(1)
    await settle(2)
    expect(namesIn(own)[1]).toBe('notes-20260102T000000000Z-2.db.zst')
    expect(backups.stats()).toMatchObject({ lastAtMs: Date.UTC(2026, 0, 2), failures: 0 })
    await backups.stop()
  })

  test('a restart neither brings the next one forward nor puts it off', async () => {
    using folder = tempFolder()
    const { clock, own, started } = setUp(folder)
    const first = await started()
    clock.advance(0)
    await first.settle(1)
    for (let restart = 0; restart < 3; restart++) {
      clock.advance(7 * hourMs)
      await (await started()).backups.stop()
    }
    await first.backups.stop()
    const second = await started()
    clock.advance(3 * hourMs - 1)
    await Bun.sleep(20)
    expect(namesIn(own).length).toBe(1)
    clock.advance(1)
    await second.settle(1)
    expect(namesIn(own).length).toBe(2)
    await second.backups.stop()

    // Days without a server are made up for by one backup, at once.
    clock.advance(5 * dayMs)
    const third = await started()
    clock.advance(0)
    await third.settle(1)
    clock.advance(hourMs)
    await Bun.sleep(20)
    expect(namesIn(own).length).toBe(3)
    await third.backups.stop()
  })

  test('one made by hand counts; a file from the future does not stop the clock', async () => {
    using folder = tempFolder()
    const { clock, own, started } = setUp(folder)
    await Bun.write(join(own, 'notes-20990101T000000000Z-9.db.zst'), '')
    const { backups, settle, count } = await started()
    clock.advance(dayMs)
    await settle(1)
    clock.advance(20 * hourMs)
    await backups.run()
    await settle(2)
    clock.advance(dayMs - 1)
    await Bun.sleep(20)
    expect(count('backup.made')).toBe(2)
    clock.advance(1)
    await settle(3)
    await backups.stop()
  })

  test('a failure is told, tried again a quarter of an hour later, and leaves nothing', async () => {
    using folder = tempFolder()
    const { clock, own, started } = setUp(folder)
    const { backups, snapshot, settle, log } = await started()
    const { run } = snapshot
    snapshot.run = async (to) => {
      await Bun.write(to, 'half of it')
      throw Object.assign(new Error('write failed'), { code: 'ENOSPC' })
    }
    clock.advance(0)
    await settle(1, 'backup.failed')
    expect(namesIn(own)).toEqual([])
    expect(log.lines.find(({ event }) => event === 'backup.failed')?.fields['error']).toMatchObject(
      {
        code: 'unavailable',
        message: `the backup cannot be made in ${own}: the disk is full`,
      },
    )
    expect(backups.stats()).toMatchObject({ failures: 1, lastAtMs: undefined })
    snapshot.run = run
    clock.advance(15 * 60_000 - 1)
    await Bun.sleep(20)
    expect(namesIn(own)).toEqual([])
    clock.advance(1)
    await settle(1)
    expect(namesIn(own).length).toBe(1)
    await backups.stop()
  })
})

describe('files', () => {
  test('retention keeps the newest, of this app, in its own folder', async () => {
    using folder = tempFolder()
    const { clock, own, started } = setUp(folder, 2)
    const others = ['notes-2-20250101T000000000Z-1.db.zst', 'notes-20250101.db.zst', 'readme']
    for (const name of others) await Bun.write(join(own, name), 'kept')
    await Bun.write(join(own, 'notes-20260101T000000000Z-0.db.zst'), '')
    const { backups } = await started()
    for (let day = 0; day < 4; day++) {
      clock.advance(hourMs)
      await backups.run()
    }
    expect(namesIn(own)).toEqual(
      [
        'notes-20250101.db.zst',
        'notes-20260101T030000000Z-3.db.zst',
        'notes-20260101T040000000Z-4.db.zst',
        'notes-2-20250101T000000000Z-1.db.zst',
        'readme',
      ].toSorted(),
    )

    const elsewhere = folder.file('elsewhere')
    for (let day = 0; day < 3; day++) {
      clock.advance(hourMs)
      await backups.run({ folder: elsewhere })
    }
    expect(namesIn(elsewhere).length).toBe(3)
    await backups.run({ folder: elsewhere, keep: 1 })
    expect(namesIn(elsewhere)).toEqual(['notes-20260101T070000000Z-8.db.zst'])
    await backups.stop()
  })

  test('the one just made stays, although the clock was set back', async () => {
    using folder = tempFolder()
    const { own, started } = setUp(folder, 1)
    await Bun.write(join(own, 'notes-20300101T000000000Z-1.db.zst'), '')
    const { backups } = await started()
    const { path } = await backups.run()
    expect(namesIn(own)).toEqual([path.slice(own.length + 1)])
    await backups.stop()
  })

  test('runs wait for each other, and what an interrupted one left is swept; not what others make', async () => {
    using folder = tempFolder()
    const { own, started } = setUp(folder)
    const { backups, snapshot } = await started()
    let [running, most] = [0, 0]
    let left = ''
    const { run } = snapshot
    snapshot.run = async (to) => {
      most = Math.max(most, ++running)
      left ||= to
      const copy = await run(to)
      await Bun.sleep(5)
      running--
      return copy
    }
    await Promise.all([backups.run(), backups.run(), backups.run()])
    expect(most).toBe(1)
    // Same database: ours. Another database of the same app, in the same folder: not ours.
    await Bun.write(left, 'left over')
    const others = join(own, '.notes-0123456789ab-x.db')
    await Bun.write(others, 'being made')
    await backups.run()
    expect(namesIn(own).filter((name) => name.startsWith('.'))).toEqual([
      '.notes-0123456789ab-x.db',
    ])
    await backups.stop()
  })

  test('a stop gives a backup up, and waits for it to have left nothing', async () => {
    using folder = tempFolder()
    const { own, started } = setUp(folder)
    const { backups, snapshot } = await started()
    const { run } = snapshot
    const copied = Promise.withResolvers<void>()
    snapshot.run = async (to) => {
      const copy = await run(to)
      await copied.promise
      return copy
    }
    const given = faultOf(() => backups.run())
    await until(() => namesIn(own).length === 1, 'it copies')
    const stopped = backups.stop()
    copied.resolve()
    await stopped
    expect(namesIn(own)).toEqual([])
    expect((await given).message).toContain('the server stops')
  })
})
