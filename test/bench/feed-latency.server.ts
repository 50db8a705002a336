/** `feed-latency.server.ts <url>`: one price, asked for each second, for whoever hears it. Prints `{"port":…}`. */
import { readConfig } from '../../src/config.ts'
import { app, feed, topic } from '../../src/kit.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { startServer } from '../../src/server.ts'
import { createTestLog, tempFolder } from '../harness.ts'
import { topicName } from './wire.ts'

const [, , url = ''] = process.argv
const folder = tempFolder()
const plan = compilePlan(
  app({
    name: 'latency',
    topics: { [topicName]: topic({ subscribe: 'public' }) },
    feeds: {
      price: feed({
        every: '1s',
        publish: topicName,
        load: async ({ fetch }) => await (await fetch(url)).json(),
      }),
    },
  }),
)
const config = readConfig(plan.name, {
  ...process.env,
  ...{ PORT: '0', HOST: '127.0.0.1', DATABASE_URL: `file:${folder.file('bench.db')}` },
})
const server = await startServer({ plan, config, log: createTestLog() })
process.on('exit', () => folder[Symbol.dispose]())
console.log(JSON.stringify({ port: server.port }))
