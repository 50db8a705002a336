/** The stock client where it lives: in Chromium, with the browser's own WebSocket, EventSource and fetch. */
import { expect, test } from 'bun:test'
import { topic, type Routes } from '../../src/kit.ts'
import { launchBrowser } from '../browser.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'
import { requireService } from '../services.ts'
import { serve } from './serve.ts'
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

test.skipIf(isMissing)(
  "the browser's EventSource: sent away by a full line it comes back by itself, and by 503 it would not",
  async () => {
    // The line is full until it is not: one place each second, and nobody waits.
    const limits = { connectsPerSecond: 1, connectsBurst: 1, connectsWaitingMax: 0 }
    await using server = serve({ live: { subscribe: 'public', historySize: 10 } }, { limits })
    await using pages = Bun.serve({
      port: 0,
      // The page's own: the server's answer as it is for whoever is no EventSource.
      async fetch(request) {
        const { pathname, search } = new URL(request.url)
        if (pathname === '/') return new Response('<!doctype html>', html)
        const accept = pathname === '/plain' ? '*/*' : 'text/event-stream'
        const answer = await fetch(`${server.url}/api/stream${search}`, { headers: { accept } })
        if (!answer.ok || answer.body === null) return new Response(null, { status: answer.status })
        // Sooner than the server says: it is the browser that is asked here.
        const text = answer.body.pipeThrough(new TextDecoderStream())
        const soon = new TransformStream<string, string>({
          transform: (chunk, out) => out.enqueue(chunk.replaceAll(/retry: \d+/g, 'retry: 50')),
        })
        const body = text.pipeThrough(soon).pipeThrough(new TextEncoderStream())
        return new Response(body, { headers: { 'content-type': 'text/event-stream' } })
      },
    })
    await using browser = await launchBrowser()
    const page = await browser.newPage()
    await page.goto(pages.url.href)
    await page.evaluate(eventSources)
    const state = (name: string) => page.evaluate(`window.${name}`) as Promise<string[]>
    await until(async () => (await state('first')).includes('open'), 'the first is in')
    await page.evaluate(`window.second = listen('/stream'), window.third = listen('/plain')`)
    await until(async () => (await state('third')).includes('given up'), '503 is for ever')
    const back = async () => (await state('second')).filter((what) => what === 'comes back').length
    await until(async () => (await back()) > 0, 'sent away')
    await until(() => server.realtime.stats().streams === 2, 'let in', 20_000)
    server.realtime.publish('live', 'hello')
    await until(async () => (await state('second')).includes('hello'), 'heard')
    expect(await state('second')).not.toContain('given up')
  },
)

const html = { headers: { 'content-type': 'text/html' } }

const eventSources = `
  window.listen = (path) => {
    const told = []
    const source = new EventSource(path + '?topics=live')
    source.onopen = () => told.push('open')
    source.onmessage = ({ data }) => told.push(JSON.parse(data).data)
    source.onerror = () => told.push(source.readyState === 2 ? 'given up' : 'comes back')
    return told
  }
  window.first = window.listen('/stream')
`
