/** Ten million addresses, asking once and then twice: what a take costs, and the memory they leave behind. */
import { systemClock } from '../../src/lib/clock.ts'
import { createLimits } from '../../src/limits/limits.ts'
import { rounded } from './load.ts'

const addresses = Number(process.env['ADDRESSES'] ?? 10_000_000)
const parts = 4

function addressOf(n: number): string {
  return `address:${n >> 24}.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`
}

export async function run(): Promise<void> {
  const limits = createLimits({ clock: systemClock }, { name: 'api', quota: 100, windowMs: 60_000 })
  const rows: Record<string, number>[] = []
  for (const times of [1, 2]) {
    for (let part = 0; part < parts; part++) {
      const before = process.cpuUsage()
      for (let n = 0; n < addresses / parts; n++) {
        const key = addressOf(n + (part * addresses) / parts)
        for (let take = 0; take < times; take++) limits.take(key)
      }
      const { user, system } = process.cpuUsage(before)
      // A server has turns in which memory goes back.
      await Bun.sleep(1)
      Bun.gc(true)
      rows.push({
        addresses: ((part + 1) * addresses) / parts,
        'takes each': times,
        'CPU µs a take': rounded(((user + system) * parts) / addresses / times),
        'keys kept': limits.keys,
        'RSS MiB': Math.round(process.memoryUsage().rss / 1024 / 1024),
      })
    }
  }
  console.log('a flood of addresses, all in one minute')
  console.table(rows)
}
