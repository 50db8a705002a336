/**
 * The page at `/` of the token app: a board of prices that flash when they change, and the last day of the one that
 * was clicked. Only what is shown is subscribed to, and only what somebody is subscribed to is asked upstream.
 */
import type tokensApp from '../apps/tokens.ts'
import {
  createClient,
  Problem,
  type Client,
  type Row,
  type State,
  type Subscription,
} from '../client/client.ts'
import { lineOf, type Point } from './tokens-chart.ts'

type App = typeof tokensApp
type Token = Row<App, 'tokens'>
type Candle = Row<App, 'candles'>

/** As the feed publishes it; `stale`: the provider has not been heard since `as_of`. */
interface Price {
  readonly usdPrice: number
  readonly priceChange24h: number
  readonly stale?: boolean
}

/** Rows of the board: a connection may hear 128 topics. */
const shownMax = 60

/** Ten minutes of them. */
const pricesMax = 600

/** Of one page of the list. */
const pageMax = 100

const candleMs = 5 * 60_000
const dayMs = 24 * 60 * 60_000

const stateTexts: Readonly<Record<State, string>> = {
  connecting: 'Connecting',
  connected: 'Live',
  closed: 'Offline',
}

function at<T extends Element>(id: string, kind: new () => T): T {
  const found = document.getElementById(id)
  if (found instanceof kind) return found
  throw new Error(`the page has no ${id}`)
}

const text = (id: string, value: string): void => {
  at(id, HTMLElement).textContent = value
}

const client: Client<App> = createClient<App>({
  state(state) {
    const place = at('connection', HTMLElement)
    place.dataset['state'] = state === 'connected' ? 'live' : state === 'closed' ? 'offline' : state
    text('connection-text', stateTexts[state])
    if (state === 'connected') at('problem', HTMLElement).hidden = true
  },
})

function fail(why: unknown): void {
  const problem = at('problem', HTMLElement)
  problem.hidden = false
  const detail = why instanceof Problem ? why.detail : 'something went wrong'
  problem.textContent = `Not everything could be loaded: ${detail}.`
}

/** Enough digits to see it move. */
function usd(price: number): string {
  const digits =
    price >= 1_000 ? 2 : price >= 1 ? 4 : Math.min(12, 4 - Math.floor(Math.log10(price)))
  return price.toLocaleString('en', {
    minimumFractionDigits: Math.min(digits, 12),
    maximumFractionDigits: digits,
  })
}

function percent(change: number): string {
  return `${change > 0 ? '+' : change < 0 ? '−' : ''}${Math.abs(change).toFixed(2)} %`
}

const directionOf = (change: number): string => (change > 0 ? 'up' : change < 0 ? 'down' : 'none')

// The board

interface Line {
  readonly token: Token
  readonly row: HTMLTableRowElement
  readonly price: HTMLTableCellElement
  readonly change: HTMLTableCellElement
  readonly subscription: Subscription<Price, never>
  now: Price | undefined
}

const lines = new Map<string, Line>()
let tokens: readonly Token[] = []
let chosen: Token | undefined

function cell(row: HTMLTableRowElement, className: string): HTMLTableCellElement {
  const made = row.insertCell()
  made.className = className
  return made
}

function open(token: Token): Line {
  const row = document.createElement('tr')
  row.dataset['testid'] = `token-${token.symbol}`
  const what = cell(row, '')
  const symbol = document.createElement('button')
  symbol.className = 'symbol'
  symbol.textContent = token.symbol
  const name = document.createElement('span')
  name.className = 'name'
  name.textContent = token.name
  what.append(symbol, name)
  row.addEventListener('click', () => choose(token))
  const line: Line = {
    ...{ token, row, price: cell(row, 'number'), change: cell(row, 'number') },
    subscription: client.subscribe(`price:${token.mint}`, {
      message: (price) => heard(line, price as unknown as Price),
    }) as unknown as Subscription<Price, never>,
    now: undefined,
  }
  line.price.textContent = '–'
  return line
}

function heard(line: Line, price: Price): void {
  const before = line.now?.usdPrice
  line.now = price
  line.price.textContent = usd(price.usdPrice)
  line.change.textContent = percent(price.priceChange24h)
  line.change.dataset['direction'] = directionOf(price.priceChange24h)
  line.row.classList.toggle('is-stale', price.stale === true)
  if (before !== undefined && before !== price.usdPrice) {
    line.price.classList.remove('rose', 'fell')
    // Read, so that the same animation begins anew.
    void line.price.offsetWidth
    line.price.classList.add(price.usdPrice > before ? 'rose' : 'fell')
  }
  if (line.token.mint !== chosen?.mint) return
  // Of those without candles this is all there is.
  if (prices.push({ at: Date.now(), price: price.usdPrice }) > pricesMax) prices.shift()
  draw()
}

function show(wanted: readonly Token[]): void {
  const shown = wanted.slice(0, shownMax)
  const kept = new Set(shown.map(({ mint }) => mint))
  for (const [mint, line] of lines) {
    if (kept.has(mint) || mint === chosen?.mint) continue
    line.subscription.close()
    lines.delete(mint)
  }
  const rows = shown.map((token) => {
    let line = lines.get(token.mint)
    if (!line) lines.set(token.mint, (line = open(token)))
    return line.row
  })
  at('rows', HTMLTableSectionElement).replaceChildren(...rows)
  text(
    'count',
    `${shown.length} of ${tokens.length} tokens are watched; nobody asks for the others`,
  )
}

function search(): void {
  const sought = at('search', HTMLInputElement).value.trim().toLowerCase()
  const isSought = ({ symbol, name }: Token): boolean =>
    symbol.toLowerCase().includes(sought) || name.toLowerCase().includes(sought)
  show(sought === '' ? tokens : tokens.filter(isSought))
}

// The one that was clicked

/** Heard since it was clicked. */
let prices: Point[] = []

/** By when they closed. */
const candles = new Map<number, number>()
let closing: Subscription<unknown, never> | undefined

function choose(token: Token): void {
  if (chosen?.mint === token.mint) return
  chosen = token
  candles.clear()
  const heardNow = lines.get(token.mint)?.now
  prices = heardNow ? [{ at: Date.now(), price: heardNow.usdPrice }] : []
  closing?.close()
  const load = (): void => void loadCandles(token).catch(fail)
  // Loaded when the topic listens, so that none closes unseen between the two.
  closing = client.subscribe(`candles:${token.mint}`, {
    message: ({ row }) => closed(token, [row]),
    subscribed: load,
    gap: load,
  }) as unknown as Subscription<unknown, never>
  for (const [mint, { row }] of lines)
    row.setAttribute('aria-selected', String(mint === token.mint))
  text('chosen-title', token.symbol)
  text('chosen-about', `${token.name} · ${token.mint}`)
  draw()
}

function closed(token: Token, rows: readonly Candle[]): void {
  if (chosen?.mint !== token.mint) return
  for (const { at: opened, close } of rows) candles.set(Date.parse(opened) + candleMs, close)
  for (const when of candles.keys()) if (when < Date.now() - dayMs) candles.delete(when)
  draw()
}

async function loadCandles(token: Token): Promise<void> {
  const found: Candle[] = []
  let after: string | undefined
  do {
    const query = { mint: token.mint, order: 'newest', limit: pageMax } as const
    const more = after === undefined ? {} : { after }
    const page = await client.collection('candles').list({ ...query, ...more })
    found.push(...page.items)
    after = page.next ?? undefined
  } while (after !== undefined && found.length < dayMs / candleMs)
  closed(token, found)
}

function draw(): void {
  const now = chosen && lines.get(chosen.mint)?.now
  text('chosen-price', now ? `$${usd(now.usdPrice)}` : '')
  const closes = Array.from(candles, ([when, price]): Point => ({ at: when, price }))
  const recent = [...closes, ...prices].toSorted((a, b) => a.at - b.at)
  const drawn = lineOf(recent)
  at('line', SVGPathElement).setAttribute('d', drawn?.line ?? '')
  at('area', SVGPathElement).setAttribute('d', drawn?.area ?? '')
  text('range', drawn ? `${usd(drawn.low)} – ${usd(drawn.high)}` : '')
  const [first] = recent
  text(
    'from',
    first ? new Date(first.at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : '',
  )
}

async function load(): Promise<void> {
  const all: Token[] = []
  let after: string | undefined
  do {
    const query = {
      order: 'rank',
      limit: pageMax,
      ...(after === undefined ? {} : { after }),
    } as const
    const page = await client.collection('tokens').list(query)
    all.push(...page.items)
    after = page.next ?? undefined
  } while (after !== undefined)
  tokens = all
  search()
  const [first] = tokens
  if (first && !chosen) choose(first)
  // The list comes a moment after the very first start.
  if (!first) setTimeout(() => void load().catch(fail), 1_000)
}

at('search', HTMLInputElement).addEventListener('input', search)
load().catch(fail)
