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
  inCache('kept is served', 'kept && isValid(kept) ? kept : undefined', 'kept'),
  inCache(
    'any load is joined',
    'const joined = flights.find(key, isValid)',
    'const joined = flights.find(key, () => true)',
  ),
  inCache('any load is kept', 'if (isValid(entry)) {', 'if (entry) {'),
  inCache(
    'asOf is taken after the load',
    'const asOf = tags.applied\n      const body = await load(tags.since(entryTags))',
    'const body = await load(tags.since(entryTags))\n      const asOf = tags.applied',
  ),
  inCache('a load need see nothing', 'load(tags.since(entryTags))', 'load(0)'),
  inCache(
    'whatever Redis has is served',
    'return isValid(found) && tags.isValid(found.asOf, entryTags) ? found : undefined',
    'return found',
  ),
  inCache(
    'an entry of Redis is judged by its own tags only',
    'return isValid(found) && tags.isValid(found.asOf, entryTags) ? found : undefined',
    'return isValid(found) ? found : undefined',
  ),
  inCache('an invalid entry stands in', 'isValid(spare) && clock', 'clock'),
  inCache(
    'promotion begins a new life',
    'Math.min(found.freshUntilMs, clock.now() + policy.ttlMs)',
    'clock.now() + policy.ttlMs',
  ),
  inCache(
    'all nodes refresh',
    'if (shared?.isUp && !(await shared.lease(key, leaseMs))) return',
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
    from: 'seq = reached\n      await deps.synced(reached)',
    to: 'seq = reached',
  },
  {
    ...{ name: 'a change does not name its row', file: 'store/change.ts' },
    ...{ from: 'tags: [tableTag(table), rowTag(table, key)]', to: 'tags: [tableTag(table)]' },
  },
  {
    ...{ name: 'a lookup does not depend on its table', file: 'collections/collections.ts' },
    from: 'const tags = [tableTag(plan.tableName), anyRowTag(plan.tableName)]',
    to: 'const tags = [anyRowTag(plan.tableName)]',
  },
  {
    ...{
      name: 'an expanded row does not depend on what it shows',
      file: 'collections/collections.ts',
    },
    ...{ from: '[...one.tags, ...query.tags]', to: 'one.tags' },
  },
]

/** Who may notice, cheapest first. */
const judges = [
  ['test/cache/races.test.ts', 'test/cache/cache.test.ts'],
  ['test/flows/simulation.test.ts'],
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
