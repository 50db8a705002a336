/**
 * The page's ear: list answers for what has been, topics for what comes. Reconnecting and recovery are
 * the centrifuge client's own; only when it says that a gap could not be filled is a list read again.
 *
 *   subscribed, first time or not recovered → resync → GET list, all pages → loaded
 *   publication                             → spot | fcas | stats
 */
import { Centrifuge } from 'centrifuge'
import type { SubscribedContext } from 'centrifuge'
import type { Change } from './state.ts'
import { pointsMax } from './state.ts'
import type { Region } from './wire.ts'
import { fcasRegions, readList, readPublication, readStats, regions } from './wire.ts'

/** The server's page limit. */
const pageItems = 100

const retryMs = { first: 1_000, max: 30_000 } as const

type Send = (change: Change) => void

export function listen(send: Send): void {
  const { protocol, host } = window.location
  const client = new Centrifuge(
    `${protocol === 'https:' ? 'wss' : 'ws'}://${host}/connection/websocket`,
  )
  const histories = createLoader(send)

  client.on('connecting', () => send({ kind: 'connection', to: 'connecting' }))
  client.on('connected', () => send({ kind: 'connection', to: 'live' }))
  client.on('disconnected', () => send({ kind: 'connection', to: 'offline' }))
  // Behind a proxy without WebSocket the page still shows what a GET can give.
  client.on('error', () => regions.forEach((region) => histories.ensure(region)))

  for (const region of regions) {
    const prices = client.newSubscription(`prices:${region}`)
    prices.on('publication', ({ data }) => {
      const publication = readPublication(data)
      if (publication) send({ kind: 'spot', publication })
    })
    prices.on('subscribed', (context) => {
      if (!isGap(context, histories.has(region))) return
      send({ kind: 'resync', region })
      histories.load(region)
    })
    prices.subscribe()
  }

  for (const region of fcasRegions) {
    const services = client.newSubscription(`fcas:${region}`)
    services.on('publication', ({ data }) => {
      const publication = readPublication(data)
      if (publication && publication.op !== 'remove') {
        send({ kind: 'fcas', region, row: publication.row, isLive: true })
      }
    })
    services.on('subscribed', () => void loadFcas(region, send))
    services.subscribe()
  }

  const stats = client.newSubscription('stats')
  stats.on('publication', ({ data }) => {
    const read = readStats(data)
    if (read) send({ kind: 'stats', stats: read })
  })
  stats.subscribe()

  client.connect()
}

/** Nothing held yet, or held but the server could not say what was missed. */
function isGap(context: SubscribedContext, hasHistory: boolean): boolean {
  return !hasHistory || !(context.wasRecovering && context.recovered)
}

interface Loader {
  readonly has: (region: Region) => boolean
  /** Loads unless that was done or is being done. */
  readonly ensure: (region: Region) => void
  /** Loads again; an earlier load of the same region is given up. */
  readonly load: (region: Region) => void
}

function createLoader(send: Send): Loader {
  const loaded = new Set<Region>()
  const running = new Map<Region, AbortController>()

  const load = (region: Region): void => {
    running.get(region)?.abort()
    const controller = new AbortController()
    running.set(region, controller)
    void attempt(region, controller.signal, retryMs.first)
  }

  const attempt = async (region: Region, signal: AbortSignal, waitMs: number): Promise<void> => {
    try {
      const rows = await fetchHistory(region, signal)
      if (signal.aborted) return
      loaded.add(region)
      send({ kind: 'loaded', region, rows })
      send({ kind: 'problem', text: null })
    } catch (cause) {
      if (signal.aborted) return
      const why = cause instanceof Error ? cause.message : 'no answer'
      send({ kind: 'problem', text: `Earlier prices could not be loaded (${why}). Trying again.` })
      // Half of it at random, so that a thousand pages do not come back in one moment.
      const pauseMs = waitMs * (0.5 + Math.random() / 2)
      setTimeout(() => {
        if (!signal.aborted) void attempt(region, signal, Math.min(waitMs * 2, retryMs.max))
      }, pauseMs)
    }
  }

  return {
    has: (region) => loaded.has(region),
    ensure: (region) => {
      if (!running.has(region)) load(region)
    },
    load,
  }
}

async function fetchHistory(region: Region, signal: AbortSignal): Promise<unknown[]> {
  const rows: unknown[] = []
  let after: string | null = null
  do {
    const query = new URLSearchParams({ region, limit: String(pageItems) })
    if (after !== null) query.set('after', after)
    const page = await fetchList(`/api/prices/live?${query}`, signal)
    rows.push(...page.items)
    after = page.next
  } while (after !== null && rows.length < pointsMax)
  return rows
}

async function loadFcas(region: Region, send: Send): Promise<void> {
  try {
    const page = await fetchList(`/api/prices/fcas?region=${region}&limit=1`, null)
    const [row] = page.items
    if (row !== undefined) send({ kind: 'fcas', region, row, isLive: false })
  } catch {
    // The next interval brings these values anyway; the table keeps its dashes until then.
  }
}

async function fetchList(url: string, signal: AbortSignal | null) {
  const response = await fetch(url, { signal, headers: { accept: 'application/json' } })
  if (!response.ok) throw new Error(`answer ${response.status}`)
  const page = readList(await response.json())
  if (!page) throw new Error('not a list')
  return page
}
