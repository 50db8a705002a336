import { expect, test } from 'bun:test'
import { launchBrowser } from '../browser.ts'
import { tempFolder, until } from '../harness.ts'
import { spawnBelfry } from '../process.ts'
import { requireService } from '../services.ts'

const isMissing = requireService('chromium') === undefined

test.skipIf(isMissing)(
  'a board of prices that change, a search that asks for what it finds, and the day of the one that is clicked',
  async () => {
    using folder = tempFolder()
    await using server = await spawnBelfry({
      args: ['serve', '--app', 'tokens'],
      cwd: folder.path,
    })
    await using browser = await launchBrowser()
    const page = await browser.newPage()
    const failures: string[] = []
    page.on('pageerror', ({ message }) => failures.push(message))
    await page.goto(server.url)
    const text = async (id: string): Promise<string> =>
      (await page.getByTestId(id).textContent()) ?? ''
    const priceOf = async (symbol: string): Promise<string> =>
      (await page.getByTestId(`token-${symbol}`).locator('td').nth(1).textContent()) ?? ''

    const isLive = async () =>
      (await page.getByTestId('connection').getAttribute('data-state')) === 'live'
    await until(isLive, 'live', 20_000)
    await until(async () => (await page.getByTestId('rows').locator('tr').count()) === 60, 'rows')
    await until(async () => /\d/.test(await priceOf('SOL')), 'a price', 20_000)
    const seen = new Set<string>()
    await until(async () => seen.add(await priceOf('SOL')).size > 2, 'it changes', 20_000)

    // The first one is chosen, and its day is drawn.
    expect(await text('chosen')).toBe('SOL')
    const points = async (): Promise<number> =>
      ((await page.locator('#line').getAttribute('d')) ?? '').split('L').length
    await until(async () => (await points()) > 280, 'the day is drawn', 30_000)

    const feed = async (): Promise<number> => {
      const metrics = await (await fetch(`${server.url}/api/metrics`)).text()
      return Number(/belfry_feed_keys\{feed="prices"\} (\d+)/.exec(metrics)?.[1])
    }
    expect(await feed()).toBe(60)
    await page.getByTestId('search').fill('jito staked')
    await until(async () => (await page.getByTestId('rows').locator('tr').count()) === 1, 'found')
    await until(async () => /\d/.test(await priceOf('JitoSOL')), 'a price of it')
    await page.getByTestId('token-JitoSOL').click()
    await until(async () => (await text('chosen')) === 'JitoSOL', 'chosen')
    await until(async () => /\d/.test(await text('chosen-price')), 'its price')

    await page.getByTestId('search').fill('no such token')
    await until(async () => (await page.getByTestId('rows').locator('tr').count()) === 0, 'none')
    await page.getByTestId('search').fill('')
    await until(async () => (await page.getByTestId('rows').locator('tr').count()) === 60, 'all')
    await page.setViewportSize({ width: 360, height: 740 })
    const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
    expect(overflow).toBeLessThanOrEqual(0)
    expect(failures).toEqual([])
    if (process.env['SHOT']) {
      await page.setViewportSize({ width: 1280, height: 800 })
      await page.screenshot({ path: process.env['SHOT'] })
    }
  },
  120_000,
)
