/**
 * Breaks one rule after the other in a copy of the source, and asks who notices:
 * `bun run test/flows/consistency-mutants.ts [name]`. By hand, not in CI: half a minute for each.
 */
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

interface Mutant {
  readonly name: string
  readonly file: string
  readonly from: string
  readonly to: string
}

const inCache = (name: string, from: string, to: string): Mutant => ({
  ...{ name, from, to },
  file: 'cache/cache.ts',
})

const mutants: readonly Mutant[] = [
  {
    ...{ name: 'an entry outlives the next change', file: 'cache/tags.ts' },
    ...{ from: 'changedAt > asOf)', to: 'changedAt > asOf + 1)' },
  },
  {
    ...{ name: 'what is forgotten counts as unchanged', file: 'cache/tags.ts' },
    ...{ from: 'if (asOf < floor) return false', to: '' },
  },
  inCache(
    'kept is served',
    'if (validity.isGood(kept, tags, sourceOf(from))) return kept',
    'return kept',
  ),
  inCache(
    'any load is joined',
    'const joined = flights.find(key, isValid)',
    'const joined = flights.find(key, () => true)',
  ),
  inCache('any load is kept', 'if (isGood(entry)) {', 'if (entry) {'),
  inCache(
    'asOf is taken after the load',
    'const asOf = validity.applied\n      const loaded = await loadFrom(ask, validity.since(ask.tags))',
    'const loaded = await loadFrom(ask, validity.since(ask.tags))\n      const asOf = validity.applied',
  ),
  inCache('a load need see nothing', 'loadFrom(ask, validity.since(ask.tags))', 'loadFrom(ask, 0)'),
  inCache(
    'whatever Redis has is served',
    'return isAsked && isGood(kept) ? kept : repaired(kept)',
    'return kept',
  ),
  inCache(
    'an entry of Redis is judged by its own tags only',
    'const isAsked = sourceOf(ask.from) !== undefined || validity.isUntouched(found.asOf, ask.tags)',
    'const isAsked = true',
  ),
  inCache('an invalid entry stands in', 'isGood(spare) && clock', 'clock'),
  {
    ...{ name: 'nothing enters a range', file: 'cache/validity.ts' },
    ...{ from: 'if (range === undefined) return true', to: 'return true' },
  },
  {
    ...{ name: 'a forgotten change entered nothing', file: 'cache/changes.ts' },
    ...{ from: 'if (since < this.#floor) return true', to: '' },
  },
  {
    ...{
      name: 'a row is mended, and what it refers to is not looked at',
      file: 'cache/validity.ts',
    },
    from: 'if (!tags.isValid(provenSeq, source.others(entry.tags))) return undefined',
    to: '',
  },
  {
    ...{ name: 'what enters a page does not stop its being mended', file: 'collections/repair.ts' },
    ...{ from: 'if (entersPage(of, change, range)) return undefined', to: '' },
  },
  inCache(
    'promotion begins a new life',
    'Math.min(found.freshUntilMs, clock.now() + ask.policy.ttlMs)',
    'clock.now() + ask.policy.ttlMs',
  ),
  inCache(
    'all nodes refresh',
    'if (shared?.isUp && !(await shared.lease(lease, leaseMs))) return false',
    '',
  ),
  {
    ...{ name: 'a hole in the log is not told', file: 'store/follower.ts' },
    ...{ from: 'if (change.seq > applied + 1) jump(change.seq - 1)', to: '' },
  },
  {
    ...{ name: 'each tenth change is not told', file: 'store/follower.ts' },
    from: 'tell(changeListeners, change, change.seq)',
    to: 'if (change.seq % 10 > 0) tell(changeListeners, change, change.seq)',
  },
  {
    ...{ name: 'a copy that is behind answers', file: 'store/store.ts' },
    ...{ from: 'replica && replica.seq >= minSeq', to: 'replica' },
  },
  {
    ...{ name: 'nobody polls the primary', file: 'store/store.ts' },
    ...{ from: 'cancelPoll = clock.every(followMs, poll)', to: 'void poll' },
  },
  {
    ...{ name: 'a copy that was synced tells nobody', file: 'store/replica-embedded.ts' },
    from: 'await deps.synced(readLog)\n    } catch',
    to: '} catch',
  },
  {
    ...{ name: 'a change does not name its row', file: 'store/change.ts' },
    ...{ from: 'tags: [tableTag(table), rowTag(table, key)]', to: 'tags: [tableTag(table)]' },
  },
  {
    ...{ name: 'nobody gets a value that was looked up in vain', file: 'collections/depends.ts' },
    from: "return op !== 'remove' && maySame(",
    to: "return op === 'remove' && maySame(",
  },
  {
    ...{ name: 'an expanded row is not depended on', file: 'collections/page.ts' },
    ...{ from: 'tags.addReferred(target, column, rows[row]?.[at], raw)', to: '' },
  },
  {
    ...{ name: 'a page does not depend on its rows', file: 'collections/page.ts' },
    ...{ from: 'for (const raw of read) tags.addRow(plan, raw)', to: '' },
  },
  {
    ...{ name: 'a value does not depend on what its key is under', file: 'collections/values.ts' },
    from: "return parts.map((_, at) => `key:${parts.slice(0, at + 1).join(':')}`)",
    to: "return [`key:${parts.join(':')}`]",
  },
  {
    ...{ name: 'a value does not depend on its tags', file: 'collections/values.ts' },
    ...{ from: '[...prefixTags(parts), ...checked(tags).map(tagOf)]', to: 'prefixTags(parts)' },
  },
]

/** Who may notice, cheapest first. */
const judges = [
  ['test/cache/races.test.ts', 'test/cache/cache.test.ts'],
  ['test/flows/simulation.test.ts'],
  ['test/collections/depends.test.ts'],
  ['test/flows/hints.test.ts'],
  ['test/flows/consistency.test.ts', '-t', 'never'],
] as const

const root = resolve(import.meta.dir, '../..')
const wanted = process.argv[2] ?? ''
const noticed = (text: string): string =>
  [...text.matchAll(/"rule": "(\w+)"/g)].map(([, rule]) => rule).find(Boolean) ?? 'failed'

for (const { name, file, from, to } of mutants.filter((one) => one.name.includes(wanted))) {
  const copy = await mkdtemp(join(tmpdir(), 'belfry-mutant-'))
  try {
    for (const part of ['src', 'test', 'db', 'package.json', 'tsconfig.json']) {
      await cp(join(root, part), join(copy, part), { recursive: true })
    }
    await symlink(join(root, 'node_modules'), join(copy, 'node_modules'))
    const path = join(copy, 'src', file)
    const source = await Bun.file(path).text()
    if (source.split(from).length !== 2) throw new Error(`${name}: not found once in ${file}`)
    await Bun.write(
      path,
      source.replace(from, () => to),
    )
    const verdicts: string[] = []
    for (const [test = '', ...args] of judges) {
      const child = Bun.spawn([process.execPath, 'test', '--timeout', '30000', test, ...args], {
        cwd: copy,
        env: { ...process.env, CONSISTENCY_MS: '6000', CONSISTENCY_READS: '10000' },
        stdout: 'pipe',
        stderr: 'pipe',
      })
      const said = await new Response(child.stderr).text()
      const isCaught = (await child.exited) !== 0
      verdicts.push(`${test.slice(5, -8)}: ${isCaught ? noticed(said) : 'silent'}`)
    }
    console.log(`${name.padEnd(50)} ${verdicts.join('  ')}`)
  } finally {
    await rm(copy, { recursive: true, force: true })
  }
}
