/**
 * The house rules that no compiler checks, as pure functions: a tree of files in, problems out.
 * Each problem names its remedy. `tidy.test.ts` runs them on the repository, and on tiny fake trees
 * that break one rule each.
 *
 *   0 lib fault version client → 1 config observe db → 2 store → 3 engines → 4 collections feeds backup
 *   → 5 declare.ts kit plan apps page → 6 http cli → 7 server → 8 main     (values: downward only)
 */
import { posix } from 'node:path'
import { codeOf, importsOf, lineAt, type Import, type SourceFile } from './source.ts'

export type { SourceFile }
export type Rule = (files: readonly SourceFile[]) => string[]

const levels: Readonly<Record<string, number>> = {
  ...{ lib: 0, fault: 0, version: 0, client: 0 },
  ...{ config: 1, observe: 1, db: 1 },
  ...{ store: 2 },
  ...{ cache: 3, limits: 3, auth: 3, realtime: 3, overload: 3, jobs: 3, upstream: 3 },
  ...{ collections: 4, feeds: 4, backup: 4 },
  ...{ kit: 5, plan: 5, apps: 5, page: 5 },
  ...{ http: 6, cli: 6 },
  ...{ server: 7, main: 8 },
}
const engineLevel = 3
const portLevel = 4
const declareLevel = 5

/** External package → the rooms that may import its values; `declare.ts` files stand for a room. */
const homes: Readonly<Record<string, readonly string[]>> = {
  elysia: ['http', 'plan', 'apps'],
  '@elysiajs/cors': ['http'],
  jose: ['auth'],
  ioredis: ['store'],
  libsql: ['store'],
  '@libsql/client': ['store'],
  '@libsql/hrana-client': ['store'],
  'lru-cache': ['cache', 'auth', 'limits', 'upstream'],
  'drizzle-orm': ['store', 'collections', 'db', 'apps', 'plan', 'declare.ts'],
  centrifuge: ['client', 'page'],
}

/** Hands the binary's own packages to app files, so it names them all. */
const loader = 'src/cli/load.ts'

const linesMax = 500
/** Path → why it may be longer. */
const longFiles: Readonly<Record<string, string>> = {}

const isSource = ({ path }: SourceFile): boolean => /^(src|db)\/.*\.ts$/.test(path)
const isDeclare = (path: string): boolean => path.endsWith('/declare.ts')
const isTypesOnly = (path: string): boolean => path.endsWith('.d.ts')

/** `src/store/log.ts` → store, `src/kit.ts` → kit, `db/system.ts` → db. */
function roomOf(path: string): string {
  const [top = '', second = '', third] = path.split('/')
  if (top === 'db') return 'db'
  return third === undefined ? second.replace(/\.ts$/, '') : second
}

function levelOf(path: string): number | undefined {
  return isDeclare(path) ? declareLevel : levels[roomOf(path)]
}

/** Rooms of independent files, without a face. */
const openRooms: ReadonlySet<string> = new Set(['lib', 'observe', 'apps'])

/** A path that another room may import: its face, its declarations, or a file that is no room's inside. */
function isFace(path: string): boolean {
  const room = roomOf(path)
  if (!path.startsWith('src/') || path === `src/${room}.ts`) return true
  if (!path.endsWith('.ts') || openRooms.has(room)) return true
  return isDeclare(path) || path === `src/${room}/${room}.ts`
}

interface Edge extends Import {
  readonly from: string
  /** Repository path, for relative imports. */
  readonly to: string
}

function* edges(files: readonly SourceFile[]): Generator<Edge> {
  for (const file of files.filter(isSource)) {
    for (const found of importsOf(file)) {
      if (!found.specifier.startsWith('.')) continue
      const to = posix.join(posix.dirname(file.path), found.specifier)
      yield { ...found, from: file.path, to }
    }
  }
}

export const importLevels: Rule = (files) => {
  const problems: string[] = []
  for (const { path } of files.filter(isSource)) {
    if (levelOf(path) === undefined) {
      problems.push(`${path}: "${roomOf(path)}" has no import level; give it one in test/tidy.ts`)
    }
  }
  for (const edge of edges(files)) {
    const reason = edge.isType ? undefined : misstep(edge.from, edge.to)
    if (reason) problems.push(`${edge.from}:${edge.line} may not import ${edge.to}: ${reason}`)
  }
  return problems
}

/** Why the value import is not allowed. */
function misstep(from: string, to: string): string | undefined {
  const [room, toRoom] = [roomOf(from), roomOf(to)]
  if (from === 'src/version.ts' && to === 'package.json') return undefined
  if (!/^(src|db)\//.test(to)) return 'src imports only src and db; move what it needs there'
  const [level, toLevel] = [levelOf(from), levelOf(to)]
  if (level === undefined || toLevel === undefined) return undefined

  // A page, a migration's text, a sample: data has no level.
  if (!to.endsWith('.ts')) return undefined
  if (room === 'page' && toRoom !== 'page' && toLevel > 0) {
    return 'the page runs in a browser and has values from lib and client only'
  }
  if (room === 'kit') {
    return isDeclare(to) ? undefined : 'kit.ts only re-exports declare.ts files; declare it in one'
  }
  if (room === toRoom || (toRoom === 'lib' && room !== 'lib')) return undefined
  if (isDeclare(from)) {
    if (isDeclare(to) || toLevel === 0) return undefined
    return 'a declare.ts has values from lib, fault, other declare.ts and its own room only; use `import type`'
  }
  if (level === declareLevel && (isDeclare(to) || toRoom === 'kit')) return undefined
  if (room === 'cli' && toRoom === 'server') return undefined
  if (level === portLevel && toLevel === engineLevel) {
    return `${room} gets engines handed in; use \`import type\` and take it as a dependency`
  }
  if (toLevel < level) return undefined
  return (
    `values come from lower levels only (${room} is ${level}, ${toRoom} is ${toLevel}); ` +
    'use `import type`, or declare a small port here and let src/server.ts fit it'
  )
}

export const facesOnly: Rule = (files) =>
  [...edges(files)]
    .filter(({ from, to }) => roomOf(from) !== roomOf(to) && !isFace(to))
    .map(
      ({ from, line, to }) =>
        `${from}:${line} reaches into ${to}; import src/${roomOf(to)}/${roomOf(to)}.ts or its ` +
        'declare.ts, and export there what others need',
    )

export const noValueCycles: Rule = (files) => {
  const next = new Map<string, string[]>()
  for (const { from, to, isType, isWorker } of edges(files)) {
    if (!isType && !isWorker) next.set(from, [...(next.get(from) ?? []), to])
  }
  const problems: string[] = []
  const done = new Set<string>()
  const trail: string[] = []
  const visit = (path: string): void => {
    const at = trail.indexOf(path)
    if (at >= 0) {
      const cycle = [...trail.slice(at), path].join(' → ')
      problems.push(`${cycle}: a value cycle; move what both need into a third file`)
    }
    if (at >= 0 || done.has(path)) return
    trail.push(path)
    for (const to of next.get(path) ?? []) visit(to)
    trail.pop()
    done.add(path)
  }
  for (const path of next.keys()) visit(path)
  return problems
}

export const packageHomes: Rule = (files) => {
  const problems: string[] = []
  for (const file of files.filter(isSource)) {
    if (file.path === loader) continue
    for (const { specifier, isType, line } of importsOf(file)) {
      if (isType || /^(\.|node:|bun$|bun:)/.test(specifier)) continue
      const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
      const rooms = homes[name]
      if (rooms?.includes(roomOf(file.path))) continue
      if (isDeclare(file.path) && rooms?.includes('declare.ts')) continue
      const remedy = rooms
        ? `its home is ${rooms.join(', ')}; ask that room, or use \`import type\``
        : 'it has no home; name one in test/tidy.ts, or do without it'
      problems.push(`${file.path}:${line} may not import ${name}: ${remedy}`)
    }
  }
  return problems
}

/** A rule of words: where they stand in code (not in comments or strings), outside their home. */
function banned(words: RegExp, isAllowed: (path: string) => boolean, remedy: string): Rule {
  return (files) =>
    files
      .filter(({ path }) => path.endsWith('.ts') && !isAllowed(path))
      .flatMap((file) =>
        [...codeOf(file).bare.matchAll(words)].map(
          (match) =>
            `${file.path}:${lineAt(file.text, match.index)} has \`${match[0].trim()}\`; ${remedy}`,
        ),
      )
}

const outsideSource = (path: string): boolean => !/^(src|db)\//.test(path)
const isIn = (path: string, ...rooms: string[]): boolean =>
  outsideSource(path) || rooms.some((room) => path.startsWith(`src/${room}/`))

export const environmentInConfig: Rule = banned(
  /\b(?:process|Bun|import\.meta)\s*\.\s*env\b/g,
  (path) => outsideSource(path) || path === 'src/config.ts',
  'read the environment in src/config.ts and pass the value in',
)

export const timeInClock: Rule = banned(
  /(?<!typeof )\b(?:set(?:Timeout|Interval|Immediate)|Bun\.sleep(?:Sync)?|Date\.now|performance\.now)\b|\bnew Date(?:\(\s*\)|\b(?!\s*\())/g,
  (path) => isIn(path, 'page', 'client') || path === 'src/lib/clock.ts',
  'take a `Clock` (src/lib/clock.ts) as a dependency',
)

export const faultsOnly: Rule = banned(
  /\bthrow\s+new\s+(?:Error|TypeError|RangeError)\b/g,
  (path) => isIn(path, 'lib', 'page'),
  'throw a `Fault` (src/fault.ts), or assert (src/lib/assert.ts) if it is our own bug',
)

export const consoleAtTheEdges: Rule = banned(
  /\bconsole\s*\.\s*\w+/g,
  (path) => isIn(path, 'cli', 'observe', 'page'),
  'take a logger (src/observe/log.ts) as a dependency',
)

export const noStarExports: Rule = banned(
  /^[ \t]*export\s+(?:type\s+)?\*/gm,
  (path) => path === 'src/kit.ts',
  'name what is exported; only src/kit.ts re-exports whole files',
)

export const noDefaultExports: Rule = banned(
  /^[ \t]*export\s+(?:default\b|\{[^}]*\bas\s+default\b)/gm,
  (path) => isTypesOnly(path) || /^src\/apps\/[^/]+\.ts$/.test(path) || path.endsWith('.config.ts'),
  'export it by name; only app files and configuration have a default export',
)

export const noIndexFiles: Rule = (files) =>
  files
    .filter(({ path }) => /(^|\/)index\.tsx?$/.test(path))
    .map(
      ({ path }) => `${path}: name the file after what it does; a room's face is <room>/<room>.ts`,
    )

export const shortFiles: Rule = (files) =>
  files
    .filter(({ path }) => !path.endsWith('.md'))
    .flatMap(({ path, text }) => {
      const lines = text.split('\n').length - (text.endsWith('\n') ? 1 : 0)
      if (lines > linesMax && !(path in longFiles)) {
        return [
          `${path} has ${lines} lines, more than ${linesMax}; split it by what it decides, or list it ` +
            'in test/tidy.ts with the reason',
        ]
      }
      if (lines <= linesMax && path in longFiles) {
        return [`${path} is short again; take it out of longFiles in test/tidy.ts`]
      }
      return []
    })

// In two halves, so that this file passes its own rule.
const leftWords = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b`, 'g')

export const nothingLeft: Rule = (files) =>
  files.flatMap(({ path, text }) =>
    [...text.matchAll(leftWords)].map(
      ({ 0: word, index }) =>
        `${path}:${lineAt(text, index)} has ${word}; do it now, or write an issue and say here how it is`,
    ),
  )

export const readmePathsExist: Rule = (files) => {
  const readme = files.find(({ path }) => path === 'README.md')
  if (!readme) return []
  const exists = (wanted: string): boolean =>
    files.some(({ path }) => path === wanted || path.startsWith(`${wanted.replace(/\/$/, '')}/`))
  return [...readme.text.matchAll(/`((?:src|db|test|\.ci)\/[\w./-]*)`/g)]
    .filter(({ 1: path = '' }) => !exists(path))
    .map(
      ({ 1: path, index }) =>
        `README.md:${lineAt(readme.text, index)} names ${path}, which does not exist; correct the tour`,
    )
}

export const noDeadFiles: Rule = (files) => {
  const used = new Set([...edges(files)].filter(({ from, to }) => from !== to).map(({ to }) => to))
  for (const { path, text } of files.filter((file) => /^src\/.*\.html$/.test(file.path))) {
    for (const { 1: source = '' } of text.matchAll(/<script\b[^>]*\bsrc="([^"]+)"/g)) {
      used.add(posix.join(posix.dirname(path), source))
    }
  }
  const isEntry = (path: string): boolean =>
    path === 'src/main.ts' || path === 'src/store/thread.ts' || path.startsWith('src/apps/')
  return files
    .filter(({ path }) => /^src\/.*\.ts$/.test(path) && !isTypesOnly(path))
    .filter(({ path }) => !isEntry(path) && !used.has(path))
    .map(({ path }) => `${path} is imported by nothing in src; use it or delete it`)
}
