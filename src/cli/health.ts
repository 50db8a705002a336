/** `belfry health`: asks the server on this machine, for container health checks without curl. */
import { reachableHost, readConfig } from '../config.ts'
import type { Verb } from './cli.ts'

/** A server that takes longer is not healthy. */
const timeoutMs = 2_000

export const health: Verb = {
  usage: 'health',
  about: 'exit 0 if the server on PORT answers that it is well',
  async run() {
    const { host, port } = readConfig('belfry')
    try {
      const response = await fetch(`http://${reachableHost(host)}:${port}/api/health`, {
        signal: AbortSignal.timeout(timeoutMs),
      })
      console.log(await response.text())
      return response.ok ? 0 : 1
    } catch (cause) {
      console.error(`belfry health: ${cause instanceof Error ? cause.message : String(cause)}`)
      return 1
    }
  },
}
