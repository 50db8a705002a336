/** A node of redis-down.bench.ts: `bun redis-down.server.ts <database> <redis>` serves the community app until it is killed. */
import { communityApp, tickUntil, whole } from '../apps/community-server.ts'
import { tempFolder } from '../harness.ts'
import { runServer } from '../server.ts'

const [database = '', redis = ''] = process.argv.slice(2)
const env = { DATABASE_URL: database, REDIS_URL: redis }
const server = await runServer({ app: communityApp, folder: tempFolder(), env })
await tickUntil(server, ({ batches }) => batches === whole.batches)
console.log(JSON.stringify({ port: Number(new URL(server.url).port) }))
