/** The stock client where it lives: in Chromium, with the browser's own WebSocket, EventSource and fetch. */
import { expect, test } from 'bun:test'
import { topic, type Routes } from '../../src/kit.ts'
import { launchBrowser } from '../browser.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'
import { requireService } from '../services.ts'
import { transports } from './stock.ts'

const isMissing = requireService('chromium') === undefined

const routes: Routes = (server) => server.get('/api/answer', () => ({ answer: 42 }))

const app = {
  topics: {
    'room:{name}': topic({
      subscribe: 'public',
      publish: 'public',
      presence: true,
      history: { size: 100, ttl: '1h' },
    }),
  },
  routes,
}

/** `window.start(transport)` in the page; what it hears is in `window.heard`. */
const script = `
  import { Centrifuge } from 'centrifuge'
  window.heard = []
  window.start = async (transport) => {
    const base = transport === 'websocket' ? location.origin.replace('http', 'ws') : location.origin
    const client = new Centrifuge(
      [{ transport, endpoint: base + '/connection/' + transport }],
      { emulationEndpoint: location.origin + '/emulation', minReconnectDelay: 1 },
    )
    window.client = client
    client.on('connected', (context) => window.heard.push(['connected', context.transport]))
    client.on('connecting', ({ code }) => code && window.heard.push(['connecting', code]))
    const room = client.newSubscription('room:a', { joinLeave: true })
    room.on('publication', ({ data, offset }) => window.heard.push([offset, data]))
    room.on('subscribed', ({ recovered }) => window.heard.push(['subscribed', recovered]))
    room.subscribe()
    client.connect()
    await room.ready()
    await room.publish({ text: 'grüß\\n"dich"' })
    const { data } = await client.rpc('GET /api/answer', null)
    return { data, stats: await room.presenceStats() }
  }
`

test.skipIf(isMissing)(
  'the stock client in Chromium, over each transport: heard, answered, sent away, recovered',
  async () => {
    using folder = tempFolder()
    await Bun.write(folder.file('page.js'), script)
    const built = await Bun.build({
      entrypoints: [folder.file('page.js')],
      root: folder.path,
      format: 'iife',
      plugins: [
        {
          name: 'centrifuge',
          setup(build) {
            const path = Bun.resolveSync('centrifuge', import.meta.dir)
            build.onResolve({ filter: /^centrifuge$/ }, () => ({ path }))
          },
        },
      ],
    })
    const content = await built.outputs[0]?.text()
    await using server = await runServer({ app, folder })
    const { realtime } = server.rooms
    await using browser = await launchBrowser()
    let said = 0
    for (const transport of transports) {
      const page = await browser.newPage()
      await page.goto(server.url)
      await page.addScriptTag({ content: content ?? '' })
      const heard = () => page.evaluate('window.heard') as Promise<unknown[]>
      const answers = await page.evaluate(`window.start('${transport}')`)
      expect(answers).toEqual({
        data: { answer: 42 },
        stats: { numClients: 1, numUsers: 1 },
      })
      said += 1
      realtime.publish('room:a', 'before')
      await until(async () => (await heard()).length === 4, 'heard')

      // Sent away; what it misses meanwhile comes when it is back.
      const isAway = () => realtime.stats().connections === 0
      await page.evaluate('window.client.disconnect()')
      await until(isAway, 'away')
      for (const text of ['one', 'two']) realtime.publish('room:a', text)
      await page.evaluate('window.client.connect()')
      await until(async () => (await heard()).length === 8, 'recovered')
      expect(await heard()).toEqual([
        ['connected', transport],
        ['subscribed', false],
        [said, { text: 'grüß\n"dich"' }],
        [said + 1, 'before'],
        ['connected', transport],
        ['subscribed', true],
        [said + 2, 'one'],
        [said + 3, 'two'],
      ])
      said += 3
      // The page is closed without a word: nothing is left.
      await page.close()
      await until(isAway, 'gone')
      expect(realtime.stats().subscriptions).toBe(0)
    }
  },
  120_000,
)
