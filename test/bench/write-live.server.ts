/** Belfry for write-live.bench.ts: `bun write-live.server.ts <folder>`. Prints its port. */
import { collection, topic } from '../../src/kit.ts'
import { createLog } from '../../src/observe/log.ts'
import { runServer } from '../server.ts'
import { liveTopic } from './listeners.ts'
import { notes } from './notes.ts'

const [path = ''] = process.argv.slice(2)

const server = await runServer({
  folder: { path, file: (file) => `${path}/${file}`, [Symbol.dispose]() {} },
  log: createLog({ level: 'error', now: Date.now }),
  writePolicy: { name: 'writes', quota: 10_000_000, windowMs: 60_000 },
  app: {
    collections: {
      notes: collection(notes, {
        read: 'public',
        create: () => ({ createdAt: Date.now() }),
        live: () => liveTopic,
      }),
    },
    topics: { [liveTopic]: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }) },
  },
})
console.log(JSON.stringify({ port: server.port }))
