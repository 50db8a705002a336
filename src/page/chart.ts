/**
 * The large chart, drawn by hand on a canvas: price in steps with its area to the zero line (left
 * axis), demand as a thin line (right axis, not from zero), the market's hours below. When an interval
 * arrives the whole picture glides to its new place; readers who want no motion get it at once.
 */
import { formatDate, formatPower, formatPrice, formatTime } from './format.ts'
import { nearest, segments } from './path.ts'
import type { Scale } from './scale.ts'
import { linearScale, priceScale, timeMarks } from './scale.ts'
import type { Point, Region } from './wire.ts'
import { recordedAt, regionNames } from './wire.ts'

const hourMs = 60 * 60_000
const intervalMs = hourMs / 12

/** So that the first few intervals do not fill the width. */
const spanMsMin = 2 * hourMs

const glideMs = 500

const margin = { top: 14, right: 54, bottom: 26, left: 58 } as const

/** A time needs 34 px, and as much again to stand free. */
const timeMarkPx = 58

const font = '12px system-ui, sans-serif'

export interface Chart {
  readonly show: (series: readonly Point[], region: Region) => void
}

/** What is drawn, in values; gliding is a mix of two of these. */
interface Frame {
  readonly from: number
  readonly to: number
}

export function createChart(document: Document): Chart {
  const canvas = must(document.querySelector<HTMLCanvasElement>('#chart'))
  const readout = must(document.querySelector<HTMLElement>('#readout'))
  const waiting = must(document.querySelector<HTMLElement>('#waiting'))
  const note = must(document.querySelector<HTMLElement>('#scale-note'))
  const paint = must(canvas.getContext('2d'))
  const stillness = window.matchMedia('(prefers-reduced-motion: reduce)')

  let series: readonly Point[] = []
  let region: Region | null = null
  let target: Frame = { from: 0, to: 1 }
  let origin = target
  let startedMs = 0
  /** Market time under the pointer; the nearest interval is read out. */
  let pointedAt: number | null = null
  let isQueued = false

  const frameNow = (nowMs: number): Frame => {
    const part = stillness.matches ? 1 : Math.min(1, (nowMs - startedMs) / glideMs)
    const eased = 1 - (1 - part) ** 3
    const mix = (left: number, right: number): number => left + (right - left) * eased
    return { from: mix(origin.from, target.from), to: mix(origin.to, target.to) }
  }

  const queue = (): void => {
    if (isQueued) return
    isQueued = true
    requestAnimationFrame((nowMs) => {
      isQueued = false
      render(nowMs)
      if (!stillness.matches && nowMs - startedMs < glideMs) queue()
    })
  }

  const render = (nowMs: number): void => {
    const size = fit(canvas, paint)
    const hasData = series.length > 0
    waiting.hidden = hasData
    if (!hasData) return
    const prices = priceScale(series.map(({ price }) => price))
    const demands = linearScale(
      series.map(({ demand }) => demand),
      4,
    )
    note.textContent = prices.kind === 'logarithmic' ? ' (log scale)' : ''
    const area = areaOf(size, frameNow(nowMs), prices, demands)
    const colours = coloursOf(canvas)
    drawAxes(paint, area, colours)
    paint.save()
    paint.beginPath()
    paint.rect(area.left, 0, area.right - area.left, size.height)
    paint.clip()
    drawPrice(paint, area, series, colours)
    drawDemand(paint, area, series, colours)
    paint.restore()
    drawNow(paint, area, series, colours)
    drawPointed(area, colours)
  }

  const drawPointed = (area: Area, colours: Colours): void => {
    const point = pointedAt === null ? undefined : series[nearest(series, pointedAt)]
    readout.hidden = !point
    if (!point) return
    const x = area.x(point.at)
    line(paint, colours.text, 1, [
      [x, area.top],
      [x, area.bottom],
    ])
    dot(paint, x, area.price(point.price), colours.price, colours.surface)
    dot(paint, x, area.demand(point.demand), colours.demand, colours.surface)
    const when = recordedAt(point.source) ?? point.at
    readout.textContent = `${formatTime(when)} · ${formatDate(when)}\n${formatPrice(point.price)}/MWh\n${formatPower(point.demand)}`
    // On the far side of the line, so that neither finger nor card hides it.
    const isRight = x > (area.left + area.right) / 2
    readout.style.left = isRight ? '' : `${x + 12}px`
    readout.style.right = isRight ? `${area.width - x + 12}px` : ''
  }

  const point = (event: PointerEvent): void => {
    const box = canvas.getBoundingClientRect()
    const inner = Math.max(1, box.width - margin.left - margin.right)
    const part = (event.clientX - box.left - margin.left) / inner
    pointedAt = target.from + Math.min(1, Math.max(0, part)) * (target.to - target.from)
    queue()
  }
  const leave = (): void => {
    pointedAt = null
    queue()
  }
  canvas.addEventListener('pointerdown', point)
  canvas.addEventListener('pointermove', point)
  // A finger that is lifted leaves too: what it pointed at stays until the focus goes elsewhere.
  canvas.addEventListener('pointerleave', (event) => {
    if (event.pointerType === 'mouse') leave()
  })
  canvas.addEventListener('blur', leave)
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    if (event.key === 'Escape') leave()
    if (step === undefined || series.length === 0) return
    event.preventDefault()
    const last = series.length - 1
    const from = pointedAt === null ? last + (step < 0 ? 1 : 0) : nearest(series, pointedAt)
    pointedAt = series[Math.min(last, Math.max(0, from + step))]?.at ?? null
    queue()
  })
  new ResizeObserver(queue).observe(canvas)
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', queue)

  return {
    show(next, nextRegion) {
      const now = performance.now()
      const isSame = nextRegion === region && series.length > 0
      if (!isSame) pointedAt = null
      origin = frameNow(now)
      series = next
      region = nextRegion
      target = frameOf(next)
      if (!isSame) origin = target
      startedMs = now
      describe(canvas, next, nextRegion)
      queue()
    },
  }
}

function frameOf(series: readonly Point[]): Frame {
  const first = (series[0]?.at ?? 0) - intervalMs
  const last = series.at(-1)?.at ?? 0
  return { from: Math.max(first, last - 24 * hourMs), to: Math.max(last, first + spanMsMin) }
}

function describe(canvas: HTMLCanvasElement, series: readonly Point[], region: Region): void {
  const last = series.at(-1)
  const now = last
    ? `${formatPrice(last.price)} per megawatt hour, demand ${formatPower(last.demand)}`
    : 'no interval yet'
  canvas.setAttribute('aria-label', `Price and demand of ${regionNames[region]}: ${now}`)
}

interface Area {
  readonly left: number
  readonly right: number
  readonly top: number
  readonly bottom: number
  readonly width: number
  readonly frame: Frame
  readonly prices: Scale
  readonly demands: Scale
  readonly x: (ms: number) => number
  readonly price: (value: number) => number
  readonly demand: (value: number) => number
}

function areaOf(
  { width, height }: { readonly width: number; readonly height: number },
  frame: Frame,
  prices: Scale,
  demands: Scale,
): Area {
  const left = margin.left
  const right = width - margin.right
  const top = margin.top
  const bottom = height - margin.bottom
  const perMs = (right - left) / (frame.to - frame.from)
  return {
    left,
    right,
    top,
    bottom,
    width,
    frame,
    prices,
    demands,
    x: (ms) => left + (ms - frame.from) * perMs,
    price: (value) => bottom - prices.toUnit(value) * (bottom - top),
    demand: (value) => bottom - demands.toUnit(value) * (bottom - top),
  }
}

const colourNames = ['text', 'quiet', 'grid', 'surface', 'price', 'below', 'demand'] as const
type Colours = Readonly<Record<(typeof colourNames)[number], string>>

/** Read each time: the reader may switch between light and dark while the page is open. */
function coloursOf(canvas: HTMLCanvasElement): Colours {
  const style = getComputedStyle(canvas)
  const entries = colourNames.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])
  return Object.fromEntries(entries) as Colours
}

function drawAxes(paint: CanvasRenderingContext2D, area: Area, colours: Colours): void {
  paint.font = font
  paint.textBaseline = 'middle'
  for (const mark of area.prices.marks) {
    const y = area.price(mark)
    line(paint, mark === 0 ? colours.quiet : colours.grid, 1, [
      [area.left, y],
      [area.right, y],
    ])
    label(paint, formatPrice(mark).replace('.00', ''), area.left - 8, y, 'right', colours.price)
  }
  for (const mark of area.demands.marks) {
    const text = mark.toLocaleString('en-AU')
    label(paint, text, area.right + 8, area.demand(mark), 'left', colours.demand)
  }
  const count = Math.max(2, Math.floor((area.right - area.left) / timeMarkPx))
  for (const mark of timeMarks(area.frame.from, area.frame.to, count)) {
    const x = area.x(mark)
    line(paint, colours.grid, 1, [
      [x, area.bottom],
      [x, area.bottom + 4],
    ])
    label(paint, formatTime(mark), x, area.bottom + 15, 'center', colours.quiet)
  }
}

/** Corners of the steps of one run; each price holds for the interval that ends at its stamp. */
function corners(area: Area, run: readonly Point[]): [number, number][] {
  return run.flatMap((point, index): [number, number][] => {
    const from = run[index - 1]?.at ?? point.at - intervalMs
    const y = area.price(point.price)
    return [
      [area.x(from), y],
      [area.x(point.at), y],
    ]
  })
}

function drawPrice(
  paint: CanvasRenderingContext2D,
  area: Area,
  series: readonly Point[],
  colours: Colours,
): void {
  // Zero may lie outside of a day that was dear throughout.
  const zero = Math.min(area.bottom, Math.max(area.top, area.price(0)))
  for (const run of segments(series)) {
    const steps = corners(area, run)
    const first = steps[0]
    const last = steps.at(-1)
    if (!first || !last) continue
    const shape = new Path2D()
    shape.moveTo(first[0], zero)
    for (const [x, y] of steps) shape.lineTo(x, y)
    shape.lineTo(last[0], zero)
    for (const [colour, top, bottom] of [
      [colours.price, 0, zero],
      [colours.below, zero, area.bottom + margin.bottom],
    ] as const) {
      paint.save()
      paint.beginPath()
      paint.rect(0, top, area.width, bottom - top)
      paint.clip()
      paint.globalAlpha = 0.16
      paint.fillStyle = colour
      paint.fill(shape)
      paint.restore()
    }
    line(paint, colours.price, 2, steps)
  }
}

function drawDemand(
  paint: CanvasRenderingContext2D,
  area: Area,
  series: readonly Point[],
  colours: Colours,
): void {
  for (const run of segments(series)) {
    const places = run.map(({ at, demand }): [number, number] => [area.x(at), area.demand(demand)])
    line(paint, colours.demand, 1.5, places)
  }
}

function drawNow(
  paint: CanvasRenderingContext2D,
  area: Area,
  series: readonly Point[],
  colours: Colours,
): void {
  const last = series.at(-1)
  if (!last) return
  const x = Math.min(area.right, area.x(last.at))
  dot(paint, x, area.demand(last.demand), colours.demand, colours.surface)
  dot(paint, x, area.price(last.price), colours.price, colours.surface)
}

function line(
  paint: CanvasRenderingContext2D,
  colour: string,
  width: number,
  places: readonly (readonly [number, number])[],
): void {
  paint.beginPath()
  for (const [x, y] of places) paint.lineTo(x, y)
  paint.strokeStyle = colour
  paint.lineWidth = width
  paint.lineJoin = 'round'
  paint.stroke()
}

function dot(
  paint: CanvasRenderingContext2D,
  x: number,
  y: number,
  colour: string,
  ring: string,
): void {
  paint.beginPath()
  paint.arc(x, y, 4, 0, 2 * Math.PI)
  paint.fillStyle = colour
  paint.fill()
  paint.strokeStyle = ring
  paint.lineWidth = 2
  paint.stroke()
}

function label(
  paint: CanvasRenderingContext2D,
  text: string,
  x: number,
  y: number,
  align: CanvasTextAlign,
  colour: string,
): void {
  paint.textAlign = align
  paint.fillStyle = colour
  paint.fillText(text, x, y)
}

/** Canvas pixels follow the screen's, so that lines are sharp on a phone. */
function fit(
  canvas: HTMLCanvasElement,
  paint: CanvasRenderingContext2D,
): { width: number; height: number } {
  const width = canvas.clientWidth
  const height = canvas.clientHeight
  const ratio = window.devicePixelRatio || 1
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)]
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across
    canvas.height = down
  }
  paint.setTransform(ratio, 0, 0, ratio, 0, 0)
  paint.clearRect(0, 0, width, height)
  return { width, height }
}

function must<T>(value: T | null): T {
  if (value === null) throw new Error('the page lacks a part of the chart')
  return value
}
