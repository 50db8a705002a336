/**
 * The page at `/` of the energy app. Changes come in whenever they come; the view is drawn at most once
 * per animation frame, from the state of that moment.
 *
 *   live.ts ──change──► state.ts ──state, once per frame──► view.ts, chart.ts
 */
import { createChart } from './chart.ts'
import { listen } from './live.ts'
import type { Change, State } from './state.ts'
import { initialState, reduce } from './state.ts'
import { createView } from './view.ts'

let state: State = initialState(window.location.hash.slice(1))
let shown: State | null = null
let isQueued = false

const view = createView(document, (region) => {
  window.history.replaceState(null, '', `#${region}`)
  send({ kind: 'select', region })
})
const chart = createChart(document)

function send(change: Change): void {
  state = reduce(state, change)
  if (isQueued || state === shown) return
  isQueued = true
  requestAnimationFrame(draw)
}

function draw(): void {
  isQueued = false
  const previous = shown
  shown = state
  view.draw(state, previous)
  const series = state.series[state.selected]
  if (series !== previous?.series[previous.selected] || state.selected !== previous.selected) {
    chart.show(series, state.selected)
  }
}

window.addEventListener('hashchange', () => {
  send({ kind: 'select', region: window.location.hash.slice(1) })
})

draw()
listen(send)
