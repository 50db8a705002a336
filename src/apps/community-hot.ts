/**
 * How hot a post is, as SQL: `sign(score) · log10(max(|score|, 1)) + seconds since 2005-12-08 / 45000`.
 *
 * Ten times the votes weigh as much as being 12.5 hours younger. Time is in it as a date and not as an age:
 * the number changes only with a vote, so it is stored and indexed, and nothing ever goes over the table
 * to make it anew. (The formula is Reddit's of 2005 to 2017, its epoch included.)
 */
import { sql, type SQL, type SQLWrapper } from 'drizzle-orm'

const epochS = 1_134_028_003

/** Younger by so many seconds is as good as ten times the votes. */
const tenfoldS = 45_000

/** Both numbers go into the statement as text: a default cannot have parameters. */
const constants = { epoch: sql.raw(String(epochS)), tenfold: sql.raw(`${tenfoldS}.0`) }

/** Ms since 1970, by the database's clock; the same for all of one statement. */
export const nowMs = sql`cast(unixepoch('subsec') * 1000 as integer)`

/** `score` and `createdAtMs` are columns, values, or what a statement makes of them. */
export function hotOf(score: SQLWrapper, createdAtMs: SQLWrapper): SQL<number> {
  const { epoch, tenfold } = constants
  const age = sql`(${createdAtMs} / 1000.0 - ${epoch}) / ${tenfold}`
  return sql<number>`(sign(${score}) * log10(max(abs(${score}), 1)) + ${age})`
}
