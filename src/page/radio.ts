/**
 * The page at `/` of the radio app: what is on air, who listens, and rooms to talk in. It is made with the
 * client that every page can have from `/belfry.js`, and with nothing that others could not do.
 */
import { createClient, Problem, type Client, type Row, type State } from '../client/client.ts'
import { enterRoom, type Radio, type Room, type Shout } from './radio-chat.ts'

type Play = Row<Radio, 'plays'>

const rooms = ['lobby', 'requests', 'gigs'] as const

/** Tracks before the one on air. */
const recentMax = 8

/** Who listens is asked when somebody comes or goes, but not more often, and now and then anyway. */
const countMs = { least: 500, most: 15_000 } as const

const stateTexts: Readonly<Record<State, string>> = {
  connecting: 'Connecting',
  connected: 'Live',
  closed: 'Offline',
}

const tokenKey = 'belfry-token'

function at<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id)
  if (found instanceof kind) return found
  throw new Error(`the page has no ${id}`)
}

const text = (id: string, value: string): void => {
  at(id, HTMLElement).textContent = value
}

/** In Sydney, where it was played. */
const clock = new Intl.DateTimeFormat('en-AU', {
  ...{ timeZone: 'Australia/Brisbane', hour: '2-digit', minute: '2-digit', hour12: false },
})

// On air

let tracks: readonly Play[] = []

function played(more: readonly Play[]): void {
  const byTime = new Map([...tracks, ...more].map((play) => [play.at, play]))
  tracks = [...byTime.values()].toSorted((a, b) => b.at.localeCompare(a.at)).slice(0, recentMax + 1)
  const [now, ...before] = tracks
  if (!now) return
  text('title', now.title)
  text('artist', now.artist)
  text('about', [now.album, now.program, now.source].filter(Boolean).join(' · '))
  at('recent', HTMLElement).replaceChildren(
    ...before.map((play) => {
      const line = document.createElement('li')
      const time = document.createElement('span')
      time.className = 'quiet'
      time.textContent = clock.format(new Date(play.at))
      const what = document.createElement('span')
      what.textContent = `${play.title} – ${play.artist}`
      line.append(time, what)
      return line
    }),
  )
}

function listen(client: Client<Radio>): () => void {
  const load = (): void => {
    client
      .collection('plays')
      .list({ order: 'newest', limit: recentMax + 1 })
      .then(({ items }) => played(items))
      .catch(fail)
  }
  let planned: ReturnType<typeof setTimeout> | undefined
  const plan = (ms: number): void => {
    clearTimeout(planned)
    planned = setTimeout(count, ms)
  }
  const count = (): void => {
    plan(countMs.most)
    onAir
      .presenceStats()
      .then(({ clients }) => text('listeners', String(clients)))
      // Between two connections nobody can say.
      .catch(() => text('listeners', '–'))
  }
  const soon = (): void => plan(countMs.least)
  const onAir = client.subscribe(
    'live-stream',
    {
      message: ({ op, row }) => {
        if (op !== 'remove') played([row])
      },
      gap: load,
      subscribed: soon,
      join: soon,
      leave: soon,
    },
    { attendance: true },
  )
  load()
  return () => clearTimeout(planned)
}

// Chat

function show(shouts: readonly Shout[]): void {
  const list = at('messages', HTMLElement)
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40
  list.replaceChildren(
    ...shouts.map(({ name, text: said, at: when }) => {
      const line = document.createElement('li')
      line.title = new Date(when).toLocaleString()
      const author = document.createElement('b')
      author.textContent = name
      // Text, never markup.
      line.append(author, said)
      return line
    }),
  )
  if (isAtEnd) list.scrollTop = list.scrollHeight
}

function refused(why: unknown): void {
  text('refusal', why instanceof Problem ? `${why.detail}.` : 'That did not work.')
}

function fail(why: unknown): void {
  const problem = at('problem', HTMLElement)
  problem.hidden = false
  const detail = why instanceof Problem ? why.detail : 'something went wrong'
  problem.textContent = `Not everything could be loaded: ${detail}.`
}

// Whoever signs in or out is another client.

interface Session {
  say(text: string): Promise<void>
  /** Another room instead of this one. */
  enter(name: string): void
  end(): void
}

function begin(token: string | null): Session {
  const client = createClient<Radio>({
    ...(token === null ? {} : { token }),
    state(state, { code, reason }) {
      at('connection', HTMLElement).dataset['state'] = state === 'connected' ? 'live' : state
      text('connection-text', stateTexts[state])
      if (state === 'connected') at('problem', HTMLElement).hidden = true
      // Not by us: the token is no good, or no longer.
      if (state === 'closed' && code !== 0) {
        sessionStorage.removeItem(tokenKey)
        restart(null)
        text('refusal', `Signed out: ${reason}.`)
      }
    },
  })
  let room: Room | undefined
  const stop = listen(client)
  at('say', HTMLFormElement).hidden = token === null
  at('enter', HTMLFormElement).hidden = token !== null
  return {
    async say(said) {
      await room?.say(said)
    },
    enter(name) {
      room?.close()
      show([])
      room = enterRoom({ client, show, fail }, name)
    },
    end() {
      stop()
      client.close()
    },
  }
}

const chosen = at('room', HTMLSelectElement)
chosen.append(...rooms.map((name) => new Option(name)))

let session = begin(sessionStorage.getItem(tokenKey))
session.enter(chosen.value)

function restart(token: string | null): void {
  session.end()
  text('refusal', '')
  session = begin(token)
  session.enter(chosen.value)
}

chosen.addEventListener('change', () => session.enter(chosen.value))

at('enter', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault()
  const field = at('token', HTMLInputElement)
  const token = field.value.trim()
  field.value = ''
  sessionStorage.setItem(tokenKey, token)
  restart(token)
})

at('leave', HTMLButtonElement).addEventListener('click', () => {
  sessionStorage.removeItem(tokenKey)
  restart(null)
})

at('say', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault()
  const field = at('text', HTMLInputElement)
  const said = field.value
  text('refusal', '')
  session
    .say(said)
    .then(() => {
      if (field.value === said) field.value = ''
    })
    .catch(refused)
})
