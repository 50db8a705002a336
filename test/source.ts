/**
 * Reads TypeScript just well enough for the house rules: what is code, what is comment or string,
 * and what a file imports. Offsets stay: whatever is left out becomes spaces.
 */
export interface SourceFile {
  /** From the repository's root, with slashes. */
  readonly path: string
  readonly text: string
}

export interface Code {
  /** Without comments. */
  readonly code: string
  /** Without comments and without what stands inside strings and regular expressions. */
  readonly bare: string
}

export interface Import {
  readonly specifier: string
  /** Gone at run time. */
  readonly isType: boolean
  /** Not an import but `new URL('./x.ts', import.meta.url)`: a thread's program. */
  readonly isWorker: boolean
  readonly line: number
}

const known = new WeakMap<SourceFile, Code>()

export function codeOf(file: SourceFile): Code {
  let found = known.get(file)
  if (!found) known.set(file, (found = blank(file.text)))
  return found
}

export function lineAt(text: string, index: number): number {
  let line = 1
  for (let at = text.indexOf('\n'); at >= 0 && at < index; at = text.indexOf('\n', at + 1))
    line += 1
  return line
}

const names = String.raw`\{[^}]*\}|\*(?:\s*as\s+[\w$]+)?`
const clause = String.raw`(?:${names}|[\w$]+(?:\s*,\s*(?:${names}))?)`
const statement = new RegExp(
  String.raw`\b(import|export)\b(\s+type\b(?!\s*(?:,|from\b)))?\s*(?:(${clause})\s*from\s*)?['"]([^'"\n]+)['"]`,
  'g',
)
const dynamic = /(\btypeof\s+)?\bimport\s*\(\s*['"`]([^'"`\n]+)['"`]\s*\)(\s*\.\s*[A-Z])?/g
const worker = /\bnew\s+URL\s*\(\s*['"]([^'"\n]+)['"]\s*,\s*import\.meta\.url/g

export function importsOf(file: SourceFile): Import[] {
  const { code, bare } = codeOf(file)
  const found: Import[] = []
  const add = (match: RegExpExecArray, specifier = '', isType = false, isWorker = false): void => {
    // A program inside a string keeps its words in `code` but not in `bare`.
    if (bare[match.index] !== code[match.index]) return
    found.push({ specifier, isType, isWorker, line: lineAt(file.text, match.index) })
  }
  for (const match of code.matchAll(statement)) {
    const [, keyword, type, what, specifier] = match
    if (keyword === 'export' && what === undefined) continue
    add(match, specifier, type !== undefined || isAllTypes(what))
  }
  for (const match of code.matchAll(dynamic)) {
    add(match, match[2], match[1] !== undefined || match[3] !== undefined)
  }
  for (const match of code.matchAll(worker)) add(match, match[1], false, true)
  return found
}

/** `{ type A, type B }`; the linter asks for `import type` there. */
function isAllTypes(what: string | undefined): boolean {
  const inside = /^\{([^}]*)\}$/.exec(what ?? '')?.[1]
  const each = inside?.split(',').map((name) => name.trim()) ?? []
  return each.some(Boolean) && each.every((name) => name === '' || /^type\s+\S/.test(name))
}

/** After these a slash begins a regular expression, after all else it divides. */
const beforeRegExp = /(?:^|[(,=:[!&|?{;+\-*%~^<>]|\b(?:return|typeof|case|of|in|await|void))$/

function blank(text: string): Code {
  const code = text.split('')
  const bare = text.split('')
  /** Open braces in each `${` we are inside of; the outermost is the file's own. */
  const braces = [0]
  let at = 0

  const hide = (end: number, ...from: string[][]): void => {
    for (; at < end; at += 1) if (text[at] !== '\n') for (const chars of from) chars[at] = ' '
  }
  const skip = (pattern: RegExp, ...from: string[][]): void => {
    pattern.lastIndex = at
    hide(at + (pattern.exec(text)?.[0].length ?? 1), ...from)
  }
  /** From after the opening backtick, or after the `}` of a `${`. */
  const template = (): void => {
    while (at < text.length) {
      if (text[at] === '`') return void (at += 1)
      if (text.startsWith('${', at)) {
        at += 2
        return void braces.push(0)
      }
      hide(at + (text[at] === '\\' ? 2 : 1), bare)
    }
  }

  while (at < text.length) {
    const char = text[at]
    const depth = braces.length - 1
    if (text.startsWith('//', at)) skip(/\/\/[^\n]*/y, code, bare)
    else if (text.startsWith('/*', at)) skip(/\/\*[^]*?(?:\*\/|$)/y, code, bare)
    else if (char === "'" || char === '"') {
      at += 1
      skip(char === "'" ? /(?:\\[^]|[^'\\\n])*/y : /(?:\\[^]|[^"\\\n])*/y, bare)
      at += 1
    } else if (char === '`') {
      at += 1
      template()
    } else if (
      char === '/' &&
      beforeRegExp.test(
        bare
          .slice(Math.max(0, at - 80), at)
          .join('')
          .trimEnd(),
      )
    ) {
      skip(/\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\//y, bare)
    } else if (char === '}' && braces[depth] === 0 && depth > 0) {
      at += 1
      braces.pop()
      template()
    } else {
      if (char === '{') braces[depth]! += 1
      if (char === '}') braces[depth]! -= 1
      at += 1
    }
  }
  return { code: code.join(''), bare: bare.join('') }
}
