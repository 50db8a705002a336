/** The house rules (`tidy.ts`): the repository keeps them, and each of them can be broken. */
import { describe, expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { importsOf } from './source.ts'
import * as tidy from './tidy.ts'
import type { Rule, SourceFile } from './tidy.ts'

const root = resolve(import.meta.dir, '..')
const isText = (path: string): boolean => /\.(ts|json|html|css|sql|md|toml)$/.test(path)

async function readTree(): Promise<SourceFile[]> {
  const paths: string[] = []
  for (const top of ['src', 'db', 'test', '.ci']) {
    for await (const path of new Bun.Glob(`${top}/**`).scan({ cwd: root, dot: true }))
      paths.push(path)
  }
  for (const path of ['README.md', 'drizzle.config.ts']) {
    if (await Bun.file(resolve(root, path)).exists()) paths.push(path)
  }
  return Promise.all(
    paths.toSorted().map(async (path) => ({
      path,
      text: isText(path) ? await Bun.file(resolve(root, path)).text() : '',
    })),
  )
}

const named: Readonly<Record<string, Rule>> = { ...tidy }
const rules = Object.entries(named)
const files = await readTree()

describe('the repository', () => {
  test.each(rules)('keeps %s', (_name, rule) => {
    expect(rule(files)).toEqual([])
  })
})

function ruleNamed(name: string): Rule {
  const rule = named[name]
  if (!rule) throw new Error(`no rule ${name}`)
  return rule
}

/** `{ path: text }` → problems. */
function check(rule: Rule, tree: Readonly<Record<string, string>>): string[] {
  return rule(Object.entries(tree).map(([path, text]) => ({ path, text })))
}

describe('importLevels', () => {
  const allowed: [from: string, line: string][] = [
    ['src/store/store.ts', "import { a } from '../config.ts'"],
    ['src/store/store.ts', "import { a } from '../../db/system.ts'"],
    ['src/cache/cache.ts', "import { a } from './flight.ts'"],
    ['src/cache/cache.ts', "import type { A } from '../auth/auth.ts'"],
    ['src/fault.ts', "import { a } from './lib/assert.ts'"],
    ['src/feeds/feeds.ts', "import type { A } from '../cache/cache.ts'"],
    ['src/feeds/feeds.ts', "import { type A, type B } from '../cache/cache.ts'"],
    ['src/feeds/declare.ts', "import { a } from '../auth/declare.ts'"],
    ['src/collections/declare.ts', "import { a } from './where.ts'"],
    ['src/kit.ts', "export * from './feeds/declare.ts'"],
    ['src/plan/plan.ts', "import { a } from '../feeds/declare.ts'"],
    ['src/apps/energy.ts', "import { a } from '../kit.ts'"],
    ['src/apps/energy.ts', "import page from '../page/index.html'"],
    ['src/page/page.ts', "import { a } from '../lib/duration.ts'"],
    ['src/cli/serve.ts', "import { a } from '../server.ts'"],
    ['src/cli/serve.ts', "const { a } = await import('../server.ts')"],
    ['src/server.ts', "import { a } from './http/http.ts'"],
    ['src/main.ts', "import { a } from './cli/cli.ts'"],
    ['src/store/log.ts', "// import { a } from '../http/http.ts'"],
    ['src/store/log.ts', "const text = `\nimport { a } from '../http/http.ts'\n`"],
  ]
  test.each(allowed)('%s may have %s', (path, line) => {
    expect(check(tidy.importLevels, { [path]: line })).toEqual([])
  })

  const refused: [from: string, line: string, message: string][] = [
    ['src/store/log.ts', "import { a } from '../http/http.ts'", 'let src/server.ts fit it'],
    [
      'src/store/log.ts',
      "import {\n  type A,\n  b,\n} from '../http/http.ts'",
      'lower levels only',
    ],
    ['src/store/log.ts', "import '../http/http.ts'", 'lower levels only'],
    ['src/store/log.ts', "export { a } from '../http/http.ts'", 'lower levels only'],
    ['src/store/log.ts', "await import('../http/http.ts')", 'lower levels only'],
    ['src/lib/ring.ts', "import { a } from '../fault.ts'", 'lower levels only'],
    ['src/cache/cache.ts', "import { a } from '../auth/auth.ts'", 'declare a small port'],
    ['src/feeds/feeds.ts', "import { a } from '../cache/cache.ts'", 'handed in'],
    ['src/feeds/feeds.ts', "import { a } from '../collections/collections.ts'", 'small port'],
    ['src/feeds/declare.ts', "import { a } from '../store/store.ts'", 'own room only'],
    ['src/kit.ts', "export { a } from './feeds/feeds.ts'", 'declare it in one'],
    ['src/page/page.ts', "import { a } from '../cache/cache.ts'", 'runs in a browser'],
    ['src/http/http.ts', "import { a } from '../server.ts'", 'lower levels only'],
    ['src/http/http.ts', "import { a } from '../../test/harness.ts'", 'only src and db'],
    ['src/http/http.ts', "import { a } from '../cli/cli.ts'", 'lower levels only'],
    ['src/manager/manager.ts', '', 'has no import level'],
  ]
  test.each(refused)('%s may not have %s', (path, line, message) => {
    expect(check(tidy.importLevels, { [path]: line })).toEqual([expect.stringContaining(message)])
  })
})

/** Rule, a tree that breaks it once, and the start of what it says. */
type Case = [name: string, tree: Record<string, string>, says: string]

const broken: Case[] = [
  [
    'facesOnly',
    { 'src/http/http.ts': "import type { A } from '../store/log.ts'" },
    'src/http/http.ts:1 reaches into src/store/log.ts; import src/store/store.ts or its declare.ts',
  ],
  [
    'noValueCycles',
    { 'src/lib/a.ts': "import { b } from './b.ts'", 'src/lib/b.ts': "import { a } from './a.ts'" },
    'src/lib/a.ts → src/lib/b.ts → src/lib/a.ts: a value cycle; move what both need',
  ],
  [
    'packageHomes',
    { 'src/http/http.ts': "\nimport { jwtVerify } from 'jose'" },
    'src/http/http.ts:2 may not import jose: its home is auth; ask that room',
  ],
  [
    'packageHomes',
    { 'src/feeds/feeds.ts': "import { eq } from 'drizzle-orm/sql'" },
    'src/feeds/feeds.ts:1 may not import drizzle-orm: its home is store, collections',
  ],
  [
    'packageHomes',
    { 'src/lib/a.ts': "import pad from 'left-pad'" },
    'src/lib/a.ts:1 may not import left-pad: it has no home; name one',
  ],
  [
    'environmentInConfig',
    { 'src/http/http.ts': 'const port = process.env.PORT' },
    'src/http/http.ts:1 has `process.env`; read the environment in src/config.ts',
  ],
  [
    'timeInClock',
    { 'src/cache/cache.ts': 'const a = /"/\nsetTimeout(run, 5)' },
    'src/cache/cache.ts:2 has `setTimeout`; take a `Clock`',
  ],
  [
    'timeInClock',
    { 'src/cache/cache.ts': 'const text = `${new Date()}`' },
    'src/cache/cache.ts:1 has `new Date()`; take a `Clock`',
  ],
  [
    'faultsOnly',
    { 'src/jobs/cron.ts': "throw new TypeError('no')" },
    'src/jobs/cron.ts:1 has `throw new TypeError`; throw a `Fault`',
  ],
  [
    'consoleAtTheEdges',
    { 'src/http/http.ts': "console.log('here')" },
    'src/http/http.ts:1 has `console.log`; take a logger',
  ],
  [
    'noStarExports',
    { 'src/feeds/feeds.ts': "export * from './source.ts'" },
    'src/feeds/feeds.ts:1 has `export *`; name what is exported',
  ],
  [
    'noDefaultExports',
    { 'src/feeds/feeds.ts': 'export default 1' },
    'src/feeds/feeds.ts:1 has `export default`; export it by name',
  ],
  [
    'noIndexFiles',
    { 'src/feeds/index.ts': '' },
    'src/feeds/index.ts: name the file after what it does',
  ],
  [
    'shortFiles',
    { 'test/long.test.ts': '\n'.repeat(501) },
    'test/long.test.ts has 501 lines, more than 500; split it',
  ],
  [
    'nothingLeft',
    { 'src/lib/a.ts': `\n\n// ${'TO' + 'DO'}: later` },
    `src/lib/a.ts:3 has ${'TO' + 'DO'}; do it now`,
  ],
  [
    'readmePathsExist',
    { 'README.md': 'See\n`src/store/` and `src/gone.ts`.', 'src/store/log.ts': '' },
    'README.md:2 names src/gone.ts, which does not exist; correct the tour',
  ],
  [
    'noDeadFiles',
    { 'src/lib/a.ts': "import { b } from './b.ts'", 'src/lib/b.ts': '' },
    'src/lib/a.ts is imported by nothing in src; use it or delete it',
  ],
]

describe('a broken rule', () => {
  test.each(broken)('%s: %j', (name, tree, says) => {
    expect(check(ruleNamed(name), tree)).toEqual([expect.stringContaining(says)])
  })

  test('every rule has a case here', () => {
    const covered = new Set<string>(['importLevels', ...broken.map(([name]) => name)])
    expect(rules.map(([name]) => name).filter((name) => !covered.has(name))).toEqual([])
  })
})

describe('what the rules let through', () => {
  const kept: [name: string, tree: Record<string, string>][] = [
    ['facesOnly', { 'src/http/http.ts': "import type { A } from '../store/store.ts'" }],
    ['facesOnly', { 'src/http/http.ts': "import page from '../page/index.html'" }],
    [
      'noValueCycles',
      {
        'src/lib/a.ts': "import { b } from './b.ts'",
        'src/lib/b.ts': "import type { A } from './a.ts'",
      },
    ],
    ['packageHomes', { 'src/http/http.ts': "import type { JWTPayload } from 'jose'" }],
    ['packageHomes', { 'src/feeds/declare.ts': "import { eq } from 'drizzle-orm'" }],
    ['packageHomes', { 'src/cli/load.ts': "import * as elysia from 'elysia'" }],
    ['packageHomes', { 'src/lib/a.ts': "import { join } from 'node:path'" }],
    ['environmentInConfig', { 'src/config.ts': 'process.env.PORT' }],
    ['timeInClock', { 'src/lib/clock.ts': 'Date.now()', 'src/page/page.ts': 'setTimeout(a, 1)' }],
    ['timeInClock', { 'src/cache/cache.ts': "// Date.now()\nnew Date(5)\nconst a = 'Date.now'" }],
    ['noDefaultExports', { 'src/apps/energy.ts': 'export default app({})' }],
    [
      'noDeadFiles',
      {
        'src/page/index.html': '<script type="module" src="./page.ts"></script>',
        'src/page/page.ts': '',
      },
    ],
  ]
  test.each(kept)('%s: %j', (name, tree) => {
    expect(check(ruleNamed(name), tree)).toEqual([])
  })
})

test('importsOf() sees every way to import, and nothing in comments and strings', () => {
  const text = [
    "import a, { type B } from 'one' /* import 'no' */",
    "import type C from 'two'",
    "import * as d from 'three'",
    "import text from './x.sql' with { type: 'text' }",
    "const e = a / 2 + `${await import('four')} import('no')` / 2 // import 'no'",
    "type F = typeof import('five')",
    "type G = import('six').G",
    "new Worker(new URL('./thread.ts', import.meta.url))",
    'const h = "import \'no\'"',
    "export type { I } from 'seven'",
  ].join('\n')
  const seen = importsOf({ path: 'x.ts', text }).map(
    ({ line, specifier, isType }) => `${line} ${specifier}${isType ? ' type' : ''}`,
  )
  expect(seen.toSorted()).toEqual([
    '1 one',
    '10 seven type',
    '2 two type',
    '3 three',
    '4 ./x.sql',
    '5 four',
    '6 five type',
    '7 six type',
    '8 ./thread.ts',
  ])
})
