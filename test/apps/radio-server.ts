/** The radio app on a port. Its first day is there once this resolves; what comes next is asked for, not waited for. */
import { loadRadio } from '../../src/apps/radio-replay.ts'
import radio from '../../src/apps/radio.ts'
import type { Env } from '../../src/config.ts'
import { feed } from '../../src/kit.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import type { TempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'

const { name: _, page: __, feeds: ___, ...app } = radio.options

/** On a busy machine five seconds pass between any two reads. */
const onAir = feed({ every: '1h', into: ['plays', 'events', 'mixes'], load: loadRadio })

export async function runRadio(
  folder: TempFolder,
  env: Env = {},
  clock: Clock = systemClock,
): Promise<TestServer> {
  const server = await runServer({
    app: { ...app, feeds: { 'on-air': onAir } },
    folder,
    env,
    clock,
  })
  await server.rooms.feeds.tick('on-air')
  return server
}
