/**
 * What nodes were shown, against what had been committed. The log is replayed into versions of every view
 * (a row, a list, a lookup); each value read is found among them, and must have been current late enough:
 *
 *   version   v1 ──────── v2 ──────── v3 ───►        a read that showed v1 is wrong if the node that showed it
 *   seq       3           7           9              had to know 7 already
 *
 *   own       7 was written by this node and answered before the read began
 *   applied   7 was handed to this node's listeners before the read began
 *   bound     7 could be seen in the database longer ago than the bound
 *   unknown   no such value was ever committed: half of a write, or of two moments
 *
 * A route's own value (`cache.get`) depends on nothing but its key and tags: what ends it is not the change but
 * the first invalidation after it.
 */
export type Rule = 'own' | 'applied' | 'bound' | 'unknown'

export interface Entry {
  readonly seq: number
  readonly table: string
  readonly op: string
  readonly row: Readonly<Record<string, unknown>>
  /** Of no row: an invalidation by name. */
  readonly tags?: readonly string[]
}

type Row = Entry['row']

/** One that was answered. Its log entries are those of `seqs`; nobody may see some of them. */
export interface Written {
  readonly seqs: readonly number[]
  readonly sentMs: number
  readonly ackedMs: number
}

export interface Seen {
  readonly node: string
  readonly view: string
  readonly text: string
  readonly state: string
  readonly fromMs: number
  readonly toMs: number
  /** The newest that this node was answered, and the newest it had applied, when the read began. */
  readonly acked: number
  readonly applied: number
}

export interface Violation {
  readonly rule: Rule
  readonly text: string
}

export interface Checked {
  readonly violations: readonly Violation[]
  /** How long after its successor was answered a value was still shown, of reads that showed such a one. */
  readonly stalenessMs: readonly number[]
}

interface Version {
  readonly seq: number
  readonly text: string
}

interface Versions {
  readonly all: Version[]
  readonly byText: Map<string, number[]>
}

export const absent = 'absent'

const texts = (row: Row, ...names: readonly string[]): string =>
  names.map((name) => String(row[name])).join(',')
export const postText = (row: Row): string => texts(row, 'id', 'groupId', 'slug', 'mark')
export const groupText = (row: Row): string => texts(row, 'id', 'mark')

/** What ends the value of a group's mark, as the run keeps it. */
const valueTags = (id: number): readonly string[] => [
  ...['key:marks', `key:marks:${id}`],
  `tag:${id % 2 === 0 ? 'even' : 'odd'}`,
]

export interface CheckInput {
  readonly log: readonly Entry[]
  readonly written: readonly Written[]
  readonly seen: readonly Seen[]
  /** When somebody who only looks saw how far the log was, in order. */
  readonly sightings: readonly { readonly seq: number; readonly ms: number }[]
  readonly boundMs: number
}

export function check({ log, written, seen, sightings, boundMs }: CheckInput): Checked {
  const views = versionsOf(log, new Set(written.flatMap(({ seqs }) => seqs.slice(0, -1))))
  const endOf = endsOf(log)
  const sentMs = new Map(written.flatMap(({ seqs, sentMs: at }) => seqs.map((seq) => [seq, at])))
  const ackedMs = new Map(written.flatMap(({ seqs, ackedMs: at }) => seqs.map((seq) => [seq, at])))
  const known = sightedBy(sightings)
  const violations: Violation[] = []
  const stalenessMs: number[] = []

  for (const one of seen) {
    const versions = views.get(one.view) ?? neverThere
    const candidates = versions.byText.get(one.text) ?? []
    // Of equal ones the newest that can have been there when the read ended.
    const at = candidates.findLast(
      (index) => (sentMs.get(versions.all[index]?.seq ?? 0) ?? 0) <= one.toMs,
    )
    const wrong = (rule: Rule, seq = 0): void =>
      void violations.push({ rule, text: told(one, rule, seq) })
    if (at === undefined) {
      wrong('unknown')
      continue
    }
    const next = endOf(one.view, versions.all[at + 1]?.seq)
    if (next === undefined) continue
    const late = one.fromMs - (ackedMs.get(next) ?? Infinity)
    if (late > 0) stalenessMs.push(late)
    if (next <= one.acked) wrong('own', next)
    else if (next <= one.applied) wrong('applied', next)
    else if (next <= known(one.fromMs - boundMs)) wrong('bound', next)
  }
  return { violations, stalenessMs }
}

function told(
  { node, view, text, state, fromMs, toMs, acked, applied }: Seen,
  rule: Rule,
  seq: number,
): string {
  return (
    `${rule}: ${node} at ${Math.round(fromMs)}–${Math.round(toMs)} ms showed ${view} (${state}) as ` +
    `"${text.slice(0, 80)}", though ${seq} had changed it; it was answered ${acked}, had applied ${applied}`
  )
}

/** The newest seq that had been sighted by then. */
function sightedBy(sightings: CheckInput['sightings']): (ms: number) => number {
  return (ms) => {
    let [low, high] = [0, sightings.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((sightings[middle]?.ms ?? 0) <= ms) low = middle + 1
      else high = middle
    }
    return sightings[low - 1]?.seq ?? 0
  }
}

/** What ended a version whose successor is that: itself, or what has invalidated a value since. */
function endsOf(log: readonly Entry[]) {
  const invalidated = new Map<string, number[]>()
  return (view: string, successor: number | undefined): number | undefined => {
    const id = /^value (\d+)$/.exec(view)?.[1]
    if (id === undefined || successor === undefined) return successor
    let seqs = invalidated.get(id)
    if (!seqs) {
      const all = valueTags(Number(id))
      seqs = log.filter(({ tags }) => tags?.some((tag) => all.includes(tag))).map(({ seq }) => seq)
      invalidated.set(id, seqs)
    }
    return seqs.find((seq) => seq > successor)
  }
}

const emptyText = (view: string): string => (/^(post|slug|group|value) /.test(view) ? absent : '')
/** Both spellings of nothing: of a row, and of a list. */
const neverThere: Versions = {
  all: [{ seq: 0, text: absent }],
  byText: new Map([
    [absent, [0]],
    ['', [0]],
  ]),
}

/** `inside`: entries after which nobody may look, because more of the same write follows. */
function versionsOf(log: readonly Entry[], inside: ReadonlySet<number>): Map<string, Versions> {
  const views = new Map<string, Versions>()
  const posts = new Map<number, Row>()
  const groups = new Map<number, Row>()
  const changed = new Set<string>()

  const textOf = (view: string): string => {
    const [kind = '', name = ''] = view.split(' ')
    const sorted = () => [...posts.values()].toSorted((a, b) => Number(a['id']) - Number(b['id']))
    const found = (row: Row | undefined): string => (row ? postText(row) : absent)
    if (kind === 'post') return found(posts.get(Number(name)))
    if (kind === 'slug') return found(sorted().find(({ slug }) => slug === name))
    if (kind === 'posts') return sorted().map(postText).join(';')
    if (kind === 'in') {
      const isIn = (row: Row): boolean => row['groupId'] === Number(name)
      return sorted().filter(isIn).map(postText).join(';')
    }
    const group = groups.get(Number(name))
    if (kind === 'value') return group ? String(group['mark']) : absent
    return group ? groupText(group) : absent
  }

  const touch = (row: Row): void => {
    changed.add(`post ${texts(row, 'id')}`).add(`slug ${texts(row, 'slug')}`)
    changed.add(`in ${texts(row, 'groupId')}`).add('posts all')
  }

  for (const { seq, table, op, row, tags } of log) {
    if (tags) continue
    const id = Number(row['id'])
    const rows = table === 'posts' ? posts : groups
    if (table === 'posts') {
      const before = posts.get(id)
      if (before) touch(before)
      touch(row)
    } else changed.add(`group ${id}`).add(`value ${id}`)
    if (op === 'remove') rows.delete(id)
    else rows.set(id, row)
    if (inside.has(seq)) continue
    for (const view of changed) append(views, view, { seq, text: textOf(view) })
    changed.clear()
  }
  return views
}

function append(views: Map<string, Versions>, view: string, version: Version): void {
  let versions = views.get(view)
  if (!versions) {
    const first = { seq: 0, text: emptyText(view) }
    versions = { all: [first], byText: new Map([[first.text, [0]]]) }
    views.set(view, versions)
  }
  if (versions.all.at(-1)?.text === version.text) return
  const at = versions.all.push(version) - 1
  const same = versions.byText.get(version.text)
  if (same) same.push(at)
  else versions.byText.set(version.text, [at])
}
