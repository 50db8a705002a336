/** A real Chromium with a profile of its own, gone at the end of the `await using` block. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium, type Page } from 'playwright-core'
import { requireService } from './services.ts'

const flags = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
]

export interface Browser extends AsyncDisposable {
  newPage(): Promise<Page>
}

export async function launchBrowser(): Promise<Browser> {
  const executablePath = requireService('chromium')
  if (!executablePath) throw new Error("chromium is missing: ask requireService('chromium') first")
  const profile = await mkdtemp(join(tmpdir(), 'belfry-chromium-'))
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: flags,
  })
  return {
    newPage: () => context.newPage(),
    async [Symbol.asyncDispose]() {
      await context.close()
      await rm(profile, { recursive: true, force: true })
    },
  }
}

/** For `addInitScript`: what the page's Content-Security-Policy refuses is remembered. */
export const tellRefusals = `
  window.refusals = []
  document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
    window.refusals.push(violatedDirective + ' ' + blockedURI)
  })
`

export async function refusalsIn(page: Page): Promise<readonly string[]> {
  return (await page.evaluate('window.refusals')) as string[]
}
