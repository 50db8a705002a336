/**
 *   GET /api/ask?q=…        a question about what was on: answered from the log, by the artists and titles it names
 *   POST /api/studio {code}  what comes next, for whoever knows STUDIO_CODE
 */
import { timingSafeEqual } from 'node:crypto'
import { desc } from 'drizzle-orm'
import { t } from 'elysia'
import type { Db, Routes } from '../kit.ts'
import { Fault } from '../fault.ts'
import { playAfter, recording } from './radio-replay.ts'
import { plays } from './radio-tables.ts'

/** So far back a question is answered: three days of tracks, read at once. */
const knownMax = 1_000
const questionLengthMax = 300

/** Titles like "Go" are in every other sentence. */
const nameLengthLeast = 4

const toldMax = 5
const nextMax = 5

export const deskRoutes: Routes = (server, { db, env }) =>
  server
    .get('/api/ask', async ({ query }) => await answerTo(db, query.q), {
      query: t.Object({ q: t.String({ minLength: 1, maxLength: questionLengthMax }) }),
      limit: 'ai',
    })
    .post(
      '/api/studio',
      async ({ body }) => {
        if (!isCode(env['STUDIO_CODE'], body.code)) {
          throw new Fault('denied', "this is not the studio's code")
        }
        return { next: await comingNext(db) }
      },
      { body: t.Object({ code: t.String({ maxLength: 100 }) }), limit: 'login' },
    )

async function answerTo(db: Db, question: string) {
  const asked = question.toLowerCase()
  const isNamed = (name: string): boolean =>
    name.length >= nameLengthLeast && asked.includes(name.toLowerCase())
  const { at, artist, title } = plays
  const known = await db.select({ at, artist, title }).from(plays).orderBy(desc(at)).limit(knownMax)
  const found = known.filter((play) => isNamed(play.artist) || isNamed(play.title))
  const [last] = found
  const times = found.length === 1 ? 'once' : `${found.length} times`
  return {
    answer: last
      ? `${times} in the last ${known.length} tracks: ${last.artist} with ${last.title} at ${last.at.toISOString()}`
      : `none of the last ${known.length} tracks is named in this question`,
    plays: found.slice(0, toldMax),
  }
}

async function comingNext(db: Db) {
  const [newest] = await db.select({ at: plays.at }).from(plays).orderBy(desc(plays.at)).limit(1)
  const tracks = await recording()
  const next: { readonly title: string; readonly artist: string }[] = []
  for (let after = newest?.at ?? new Date(0); next.length < nextMax;) {
    const [play] = playAfter(tracks, after).plays
    if (!play?.at) break
    next.push({ title: play.title, artist: play.artist })
    after = play.at
  }
  return next
}

/** Without one set nobody is let in; no length and no first letters are told by the time it takes. */
function isCode(code: string | undefined, given: string): boolean {
  const hash = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest()
  return code !== undefined && code !== '' && timingSafeEqual(hash(code), hash(given))
}
