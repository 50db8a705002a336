/** Loaded into a belfry process before belfry (`spawnWithLag`): a monitor, and a socket that asks it. */
import { isMainThread } from 'node:worker_threads'
import { startLagMonitor } from './lag.ts'

const unix = process.env['LAG_SOCKET']

if (isMainThread && unix !== undefined) {
  const monitor = startLagMonitor()
  Bun.serve({ unix, fetch: () => Response.json(monitor.take()) }).unref()
}
