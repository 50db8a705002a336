/**
 * A process that asks a memory tier for ever new keys, and says what it weighs:
 * `bun memory-fixture.ts <requests> <body bytes> <entries max> <bytes max>`.
 */
import { etagOf } from '../../src/lib/etag.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createMemoryTier } from '../../src/cache/tier-memory.ts'

const [requests = 0, bodyBytes = 0, entriesMax = 0, bytesMax = 0] = process.argv
  .slice(2)
  .map(Number)
/** Asked in one turn of the event loop. */
const turnRequests = 10
const tier = createMemoryTier({ entriesMax, bytesMax, entryBytesMax: 1024 * 1024 }, systemClock)

function ask(path: string, n: number): void {
  const key = `public ${path}?filter[at]=${n}&limit=100`
  if (tier.get(key)) return
  const body = new Uint8Array(bodyBytes).fill(n)
  const tags = [`posts/${n}`, `posts?by=${n}`, 'posts']
  const [asOf, storedAtMs, freshUntilMs, staleUntilMs] = [n, n + 0.5, n + 1.5, n + 2.5]
  tier.set(key, { body, etag: etagOf(body), asOf, tags, storedAtMs, freshUntilMs, staleUntilMs })
}

async function settled(): Promise<number> {
  let least = Infinity
  for (let n = 0; n < 10; n++) {
    Bun.gc(true)
    await Bun.sleep(50)
    least = Math.min(least, process.memoryUsage.rss())
  }
  return least
}

// What the code itself and the allocator's first pages cost is not the entries' price.
for (let n = 0; n < 20; n++) ask('/warm', n)
for (const key of [...tier.keys()]) tier.delete(key)
const before = await settled()

let peak = 0
for (let n = 0; n < requests; n++) {
  ask('/api/posts', n)
  if (n % turnRequests !== 0) continue
  peak = Math.max(peak, process.memoryUsage.rss() - before)
  // Requests come one by one, and the loop turns between them.
  await Bun.sleep(0)
}
const after = (await settled()) - before
const { size, bytes, evictions } = tier
console.log(JSON.stringify({ bytesMax, after, peak, size, bytes, evictions }))
