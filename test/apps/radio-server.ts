/** The radio app on a port. Its first day is there once this resolves. */
import radio from '../../src/apps/radio.ts'
import type { Env } from '../../src/config.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import type { TempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'

const { name: _, page: __, ...app } = radio.options

export async function runRadio(
  folder: TempFolder,
  env: Env = {},
  clock: Clock = systemClock,
): Promise<TestServer> {
  const server = await runServer({ app, folder, env, clock })
  await server.rooms.feeds.tick('on-air')
  return server
}
