/** `belfry mode`: what a running server gives up under load, asked and set through its admin socket. */
import { Fault } from '../fault.ts'
import { modes, type OverloadStatus } from '../overload/overload.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { findServer, requireServer } from './local.ts'
import { targetOf } from './target.ts'

export const mode: Verb = {
  usage: `mode [${modes.join('|')}] <app.ts>|--app <name> [--for 10m]`,
  about:
    'what the running server gives up under load, and why; with a name: what it is to give up, on all nodes, until\n' +
    '      told otherwise. emergency: low priorities off, stale answers longer, slower feeds. auto: by its own signals',
  async run(args) {
    const { values, positionals } = parseOptions('mode', {
      args: [...args],
      options: { app: { type: 'string' }, for: { type: 'string' } },
      allowPositionals: true,
    })
    const isMode = modes.some((one) => one === positionals[0])
    const wanted = isMode ? positionals.shift() : undefined
    if (values.for !== undefined && wanted === undefined) {
      throw new Fault('invalid', `--for is for one of ${modes.join(', ')}`)
    }
    const { plan, config } = await targetOf(appSource(positionals, values.app))
    const server = requireServer(await findServer(config, plan.name))
    const answer = await server.post('/mode', JSON.stringify({ mode: wanted, for: values.for }))
    console.log(describe(answer as OverloadStatus))
    return 0
  },
}

function describe({ mode: said, untilMs, stage, why, forMs, signals, refused }: OverloadStatus) {
  const until = untilMs === undefined ? '' : ` until ${new Date(untilMs).toISOString()}`
  const pairs = (values: object): string =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${value}`)
      .join(', ')
  return [
    `mode ${said}${until}`,
    `stage ${stage} for ${Math.round(forMs / 1_000)} s (${why})`,
    pairs(signals),
    `refused: ${pairs(refused)}`,
  ].join('\n')
}
