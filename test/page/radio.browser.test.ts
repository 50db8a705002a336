import { expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { launchBrowser, refusalsIn, tellRefusals } from '../browser.ts'
import { tempFolder, until } from '../harness.ts'
import { spawnBelfry } from '../process.ts'
import { requireService } from '../services.ts'

const isMissing = requireService('chromium') === undefined

const secret = 'a secret of at least thirty-two bytes'

test.skipIf(isMissing)(
  'two listeners see what is on, each other, and what is said, also what was said while one was away',
  async () => {
    using folder = tempFolder()
    const serve = (port: string) =>
      spawnBelfry({
        args: ['serve', '--app', 'radio'],
        cwd: folder.path,
        env: { PORT: port, JWT_SECRET: secret },
      })
    await using browser = await launchBrowser()
    const [ann, bob] = [await browser.newPage(), await browser.newPage()]
    const failures: string[] = []
    for (const page of [ann, bob]) {
      page.on('pageerror', ({ message }) => failures.push(message))
      await page.addInitScript(tellRefusals)
    }

    let server = await serve('0')
    const port = String(server.port)
    try {
      for (const page of [ann, bob]) await page.goto(server.url)
      const text = async (page: typeof ann, id: string): Promise<string> =>
        (await page.getByTestId(id).textContent()) ?? ''
      const isLive = async (page: typeof ann) =>
        (await page.getByTestId('connection').getAttribute('data-state')) === 'live'
      const lines = (page: typeof ann) =>
        page.getByTestId('messages').locator('li').allTextContents()

      await until(() => isLive(ann), 'ann is live')
      await until(async () => (await text(ann, 'listeners')) === '2', 'both listen')
      await until(async () => (await text(ann, 'artist')) !== '', 'a track is on')
      expect(await ann.getByTestId('recent').locator('li').count()).toBe(8)
      const titles = new Set<string>()
      const another = async () => titles.add(await text(bob, 'title')).size > 1
      await until(another, 'another track comes', 20_000)

      await ann.getByTestId('token').fill('no token')
      await ann.getByTestId('enter').click()
      await until(async () => (await text(ann, 'refusal')).startsWith('Signed out'), 'refused')
      const times = { nowMs: Date.now(), ttlMs: 600_000 }
      await ann.getByTestId('token').fill(await signToken(secret, { sub: 'ann' }, times))
      await ann.getByTestId('enter').click()
      const say = async (said: string) => {
        await ann.getByTestId('text').fill(said)
        await ann.getByTestId('send').click()
      }
      await until(() => isLive(ann), 'ann is live again')
      await say('<img src=x onerror=alert(1)>')
      for (const page of [ann, bob]) {
        await until(async () => (await lines(page)).length === 1, 'it is heard')
        expect(await lines(page)).toEqual(['ann<img src=x onerror=alert(1)>'])
      }
      await say('   ')
      await until(async () => (await text(ann, 'refusal')).includes('not valid'), 'refused')
      await say('two')
      for (const page of [ann, bob]) {
        await until(async () => (await lines(page)).at(-1) === 'anntwo', 'it is heard')
      }
      expect(await text(ann, 'refusal')).toBe('')

      server.kill('SIGKILL')
      await server.exited
      for (const page of [ann, bob]) await until(async () => !(await isLive(page)), 'it says so')
      server = await serve(port)
      // Before the pages are back.
      const sent = await fetch(`${server.url}/api/chat/lobby`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${await signToken(secret, { sub: 'eve' }, times)}`,
          'content-type': 'application/json',
        },
        body: '{"text":"while you were away"}',
      })
      expect(sent.status).toBe(201)
      for (const page of [ann, bob]) {
        await until(() => isLive(page), 'it is live again', 30_000)
        await until(async () => (await lines(page)).length === 3, 'nothing is missing')
        expect((await lines(page)).at(-1)).toBe('evewhile you were away')
      }

      await bob.getByTestId('room').selectOption('gigs')
      await until(async () => (await lines(bob)).length === 0, 'another room is empty')
      await ann.setViewportSize({ width: 360, height: 740 })
      const overflow = await ann.evaluate('document.documentElement.scrollWidth - innerWidth')
      expect(overflow).toBeLessThanOrEqual(0)
      expect([...failures, ...(await refusalsIn(ann))]).toEqual([])
      if (process.env['SHOT']) {
        await ann.setViewportSize({ width: 1280, height: 800 })
        await ann.screenshot({ path: process.env['SHOT'], fullPage: true })
      }
    } finally {
      await server[Symbol.asyncDispose]()
    }
  },
  120_000,
)
