/** State → document. Only what differs from the last drawn state is touched. */
import type { Change } from './format.ts'
import {
  formatChange,
  formatCount,
  formatDate,
  formatPower,
  formatPrice,
  formatShare,
  formatTime,
} from './format.ts'
import { stepPath } from './path.ts'
import { sparkScale } from './scale.ts'
import type { Connection, Series, State } from './state.ts'
import { newestPoint, summarise } from './state.ts'
import type { Region, ServicePrice } from './wire.ts'
import { fcasRegions, recordedAt, regionNames, regions, services } from './wire.ts'

const connectionTexts: Readonly<Record<Connection, string>> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  offline: 'Offline',
}

const serviceNames: Readonly<Record<(typeof services)[number], string>> = {
  '1sec': '1 second',
  '6sec': '6 seconds',
  '60sec': '60 seconds',
  '5min': '5 minutes',
  reg: 'Regulation',
}

/** The sparkline's own coordinates; CSS stretches them. */
const spark = { width: 120, height: 36, margin: 3 } as const

const dash = '\u2014'

export interface View {
  readonly draw: (state: State, previous: State | null) => void
}

export function createView(document: Document, onSelect: (region: Region) => void): View {
  const cards = createCards(document, onSelect)
  const table = createFcasTable(document)
  const at = (id: string): HTMLElement => element(document, id)

  return {
    draw(state, previous) {
      if (state.connection !== previous?.connection) {
        at('connection').dataset.state = state.connection
        at('connection-text').textContent = connectionTexts[state.connection]
      }
      for (const region of regions) {
        const card = cards[region]
        const series = state.series[region]
        if (series !== previous?.series[region]) drawCard(card, series)
        card.button.setAttribute('aria-pressed', String(region === state.selected))
      }
      if (state.series !== previous?.series) {
        drawClock(at, state)
      }
      if (state.series !== previous?.series || state.selected !== previous.selected) {
        drawSelected(at, state)
      }
      if (state.fcas !== previous?.fcas) drawFcas(at, table, state)
      if (state.stats !== previous?.stats && state.stats) {
        setText(at('stat-connections'), formatCount(state.stats.connections))
        setText(at('stat-subscriptions'), formatCount(state.stats.subscriptions))
        setText(at('stat-share'), formatShare(state.stats.cacheHitShare))
      }
      if (state.problem !== previous?.problem) {
        at('problem').hidden = state.problem === null
        at('problem').textContent = state.problem ?? ''
      }
    },
  }
}

interface Card {
  readonly button: HTMLElement
  readonly price: HTMLElement
  readonly change: HTMLElement
  readonly demand: HTMLElement
  readonly line: Element
  readonly zero: Element
}

function createCards(
  document: Document,
  onSelect: (region: Region) => void,
): Readonly<Record<Region, Card>> {
  const home = element(document, 'cards')
  const make = (region: Region): Card => {
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'card'
    button.dataset.region = region
    // Fixed text only: nothing from outside is ever written as HTML.
    button.innerHTML = `
      <span class="place"><b>${region}</b> <span class="quiet">${regionNames[region]}</span></span>
      <svg class="spark" viewBox="0 0 ${spark.width} ${spark.height}" preserveAspectRatio="none" aria-hidden="true">
        <path class="zero"></path><path class="line"></path>
      </svg>
      <span class="value"><span class="price" data-testid="price-${region}">${dash}</span><span class="unit">/MWh</span></span>
      <span class="change" data-testid="change-${region}" data-direction="same"></span>
      <span class="demand quiet" data-testid="demand-${region}"></span>`
    button.addEventListener('click', () => onSelect(region))
    home.append(button)
    const part = (name: string): HTMLElement => {
      const found = button.querySelector<HTMLElement>(name)
      if (!found) throw new Error(`card has no ${name}`)
      return found
    }
    return {
      button,
      price: part('.price'),
      change: part('.change'),
      demand: part('.demand'),
      line: part('.line'),
      zero: part('.zero'),
    }
  }
  const cards = {
    NSW1: make('NSW1'),
    QLD1: make('QLD1'),
    SA1: make('SA1'),
    TAS1: make('TAS1'),
    VIC1: make('VIC1'),
  }
  home.addEventListener('keydown', (event) => moveFocus(event, cards, onSelect))
  return cards
}

const keySteps: Readonly<Record<string, number>> = {
  ArrowRight: 1,
  ArrowDown: 1,
  ArrowLeft: -1,
  ArrowUp: -1,
}

function moveFocus(
  event: KeyboardEvent,
  cards: Readonly<Record<Region, Card>>,
  onSelect: (region: Region) => void,
): void {
  const step = keySteps[event.key]
  const from = regions.findIndex((region) => cards[region].button === event.target)
  if (step === undefined || from === -1) return
  const region = regions[(from + step + regions.length) % regions.length]
  if (!region) return
  event.preventDefault()
  cards[region].button.focus()
  onSelect(region)
}

function drawCard(card: Card, series: Series): void {
  const last = series.at(-1)
  const before = series.at(-2)
  card.button.classList.toggle('is-empty', !last)
  if (!last) {
    setText(card.price, dash)
    setText(card.change, '')
    setText(card.demand, '')
    card.line.setAttribute('d', '')
    card.zero.setAttribute('d', '')
    return
  }
  const price = formatPrice(last.price)
  const isNews = card.price.textContent !== price && card.price.textContent !== dash
  setText(card.price, price)
  card.price.classList.toggle('is-negative', last.price < 0)
  if (before) drawChange(card.change, formatChange(last.price, before.price))
  setText(card.demand, formatPower(last.demand))
  if (isNews && before) flash(card.button, last.price >= before.price ? 'up' : 'down')
  drawSpark(card, series)
}

function drawChange(where: HTMLElement, change: Change): void {
  where.dataset.direction = change.direction
  setText(where, change.text)
  where.setAttribute('aria-label', change.spoken)
}

/** Restarted for each change; left out for readers who want no motion. */
function flash(where: HTMLElement, direction: 'up' | 'down'): void {
  for (const animation of where.getAnimations()) animation.cancel()
  if (window.matchMedia('(prefers-reduced-motion: reduce)').matches) return
  const style = getComputedStyle(where)
  const tint = style.getPropertyValue(`--${direction}`).trim()
  const ground = style.getPropertyValue('--surface').trim()
  where.animate(
    [
      { backgroundColor: `color-mix(in srgb, ${tint} 12%, ${ground})` },
      { backgroundColor: ground },
    ],
    { duration: 900, easing: 'ease-out' },
  )
}

function drawSpark(card: Card, series: Series): void {
  const scale = sparkScale(series.map(({ price }) => price))
  const first = series[0]?.at ?? 0
  const span = Math.max(1, (series.at(-1)?.at ?? 0) - first)
  const room = spark.height - 2 * spark.margin
  const x = (ms: number): number => Math.max(0, ((ms - first) / span) * spark.width)
  const y = (price: number): number => spark.margin + (1 - scale.toUnit(price)) * room
  card.line.setAttribute('d', stepPath(series, x, y))
  const isInside = scale.low <= 0 && scale.high >= 0
  card.zero.setAttribute('d', isInside ? `M0 ${y(0).toFixed(1)}H${spark.width}` : '')
}

function drawClock(at: (id: string) => HTMLElement, state: State): void {
  const newest = newestPoint(state)
  const replay = at('replay')
  if (!newest) {
    replay.hidden = true
    return
  }
  const recorded = recordedAt(newest.source)
  const shown = recorded ?? newest.at
  setText(at('time'), formatTime(shown))
  setText(at('date'), formatDate(shown))
  replay.hidden = recorded === null
  if (recorded !== null) {
    setText(
      replay,
      `Recorded day, replayed: real AEMO dispatch of ${formatDate(recorded)}, ${formatTime(recorded)} market time (UTC+10), not the market of today.`,
    )
  }
  const demands = regions.map((region) => state.series[region].at(-1)?.demand)
  const isWhole = demands.every((demand) => demand !== undefined)
  const total = demands.reduce<number>((sum, demand) => sum + (demand ?? 0), 0)
  setText(at('demand'), isWhole ? formatPower(total) : dash)
}

function drawSelected(at: (id: string) => HTMLElement, state: State): void {
  const series = state.series[state.selected]
  const summary = summarise(series)
  setText(at('chart-title'), regionNames[state.selected])
  for (const name of ['low', 'average', 'high'] as const) {
    setText(at(name), summary ? formatPrice(summary[name]) : dash)
  }
  const flow = series.at(-1)?.interchange ?? null
  setText(at('flow-label'), flow === null || flow === 0 ? 'Flow' : flow > 0 ? 'Exports' : 'Imports')
  setText(at('flow'), flow === null ? dash : formatPower(Math.abs(flow)))
}

type FcasCells = ReadonlyMap<string, HTMLElement>

const cellKey = (region: Region, service: ServicePrice): string => `${region} ${service}`

function createFcasTable(document: Document): FcasCells {
  const body = element(document, 'fcas')
  const cells = new Map<string, HTMLElement>()
  for (const service of services) {
    const row = document.createElement('tr')
    const head = document.createElement('th')
    head.scope = 'row'
    head.textContent = serviceNames[service]
    row.append(head)
    for (const region of fcasRegions) {
      for (const name of [`raise${service}`, `lower${service}`] as const) {
        const cell = document.createElement('td')
        cell.textContent = dash
        cell.dataset.testid = `fcas-${region}-${name}`
        cells.set(cellKey(region, name), cell)
        row.append(cell)
      }
    }
    body.append(row)
  }
  return cells
}

function drawFcas(at: (id: string) => HTMLElement, cells: FcasCells, state: State): void {
  for (const region of fcasRegions) {
    const point = state.fcas[region]
    if (!point) continue
    for (const service of services) {
      for (const name of [`raise${service}`, `lower${service}`] as const) {
        const cell = cells.get(cellKey(region, name))
        const price = point.prices[name]
        if (cell) setText(cell, price === undefined ? dash : price.toFixed(2))
      }
    }
    const recorded = recordedAt(point.source)
    const when = recorded ?? point.at
    const words = recorded === null ? '' : 'Recorded '
    setText(at('fcas-time'), `${words}${formatDate(when)}, ${formatTime(when)}`)
  }
}

function setText(where: Element, text: string): void {
  if (where.textContent !== text) where.textContent = text
}

function element(document: Document, id: string): HTMLElement {
  const found = document.getElementById(id)
  if (!found) throw new Error(`the page has no #${id}`)
  return found
}
