import { expect, test } from 'bun:test'
import { launchBrowser, refusalsIn, tellRefusals } from '../browser.ts'
import { tempFolder, until } from '../harness.ts'
import { spawnBelfry } from '../process.ts'
import { requireService } from '../services.ts'

const isMissing = requireService('chromium') === undefined

test.skipIf(isMissing)(
  'the page shows live prices, says when the server is gone, and recovers when it is back',
  async () => {
    using folder = tempFolder()
    const serve = (port: string) =>
      spawnBelfry({ args: ['serve', '--app', 'energy'], cwd: folder.path, env: { PORT: port } })
    await using browser = await launchBrowser()
    const page = await browser.newPage()
    const failures: string[] = []
    page.on('pageerror', ({ message }) => failures.push(message))
    await page.addInitScript(tellRefusals)

    let server = await serve('0')
    const port = String(server.port)
    try {
      await page.goto(server.url)
      const text = async (id: string): Promise<string> =>
        (await page.getByTestId(id).textContent()) ?? ''
      const state = () => page.getByTestId('connection').getAttribute('data-state')
      const time = () => text('time')

      await until(async () => (await state()) === 'live', 'it is live')
      await until(async () => /\d/.test(await text('price-NSW1')), 'a price is there')
      for (const region of ['QLD1', 'SA1', 'TAS1', 'VIC1']) {
        await until(async () => /\d/.test(await text(`price-${region}`)), `a price of ${region}`)
      }
      const prices = new Set<string>()
      await until(
        async () => prices.add(await text('price-NSW1')).size > 1,
        'a price changes',
        20_000,
      )
      await until(async () => /\d/.test(await text('stats')), 'the stats arrive')

      server.kill('SIGKILL')
      await server.exited
      await until(async () => (await state()) !== 'live', 'it says that the server is gone')
      const before = await time()

      server = await serve(port)
      await until(async () => (await state()) === 'live', 'it is live again', 30_000)
      await until(async () => (await time()) !== before, 'a new interval arrives', 20_000)

      await page.setViewportSize({ width: 360, height: 740 })
      const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
      expect(overflow).toBeLessThanOrEqual(0)
      expect([...failures, ...(await refusalsIn(page))]).toEqual([])
      if (process.env['SHOT']) await page.screenshot({ path: process.env['SHOT'], fullPage: true })
    } finally {
      await server[Symbol.asyncDispose]()
    }
  },
  120_000,
)
