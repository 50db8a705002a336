/** RSS of the server per idle subscriber, against raw `Bun.serve` and what others made. */
import { openAudience } from './audience.ts'
import { availablePeers, peerNames, startPeer, type PeerName } from './peer.ts'

const subscribers = Number(process.env['SUBSCRIBERS'] ?? 15_000)

/** Warms the allocator up: what a first connection costs once is not a connection's price. */
const warmUp = 200

const wanted = (process.env['PEERS']?.split(',') ?? peerNames) as readonly PeerName[]

export async function run(): Promise<void> {
  const rows: Record<string, string | number>[] = []
  for (const name of await availablePeers(wanted)) {
    const peer = await startPeer(name)
    try {
      const few = await openAudience(peer, warmUp)
      const before = await peer.rssBytes()
      const cpu = await peer.cpuSeconds()
      const audience = await openAudience(peer, subscribers)
      const used = (await peer.cpuSeconds()) - cpu
      // Garbage of connecting goes, and the allocator returns its pages, within a second or two.
      let after = Infinity
      for (let n = 0; n < 5; n += 1) {
        await Bun.sleep(400)
        after = Math.min(after, await peer.rssBytes())
      }
      rows.push({
        peer: name,
        'bytes per idle subscriber': Math.round((after - before) / subscribers),
        'server µs per connect': Math.round((used * 1e6) / subscribers),
      })
      audience.close()
      few.close()
    } finally {
      peer.stop()
    }
  }
  console.log(`${subscribers} idle subscribers of one topic`)
  console.table(rows)
}

if (import.meta.main) await run()
