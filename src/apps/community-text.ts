/**
 * HTML of the sample → plain text. No markup survives: what it says is kept as a writer of text would put it
 * (a link's address after its words, code in backticks, lists by lines), tags and attributes are dropped, of
 * `script` and `style` also what is within. Formulas (`$…$`) are text already. What was written to be
 * seen, as `&lt;b&gt;` is, is a `<b>` of the text then: a page shows text as text.
 *
 * Not a parser of all HTML: an end tag nobody opened, or a tag nobody closed, does no harm, because nothing
 * is nested in the result.
 */

/** As HTML has them, those that the sample uses; another one stays as it is written. */
const entities: Readonly<Record<string, string>> = {
  ...{ amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: ' ' },
  ...{ ndash: '–', mdash: '—', hellip: '…', minus: '−', times: '×' },
  ...{ ensp: ' ', emsp: ' ', thinsp: ' ', middot: '·', bull: '•' },
  ...{ lsquo: '‘', rsquo: '’', ldquo: '“', rdquo: '”', laquo: '«', raquo: '»' },
  ...{ auml: 'ä', ouml: 'ö', uuml: 'ü', Auml: 'Ä', Ouml: 'Ö', Uuml: 'Ü', szlig: 'ß', eacute: 'é' },
  ...{ alpha: 'α', beta: 'β', gamma: 'γ', psi: 'ψ', phi: 'φ', pi: 'π', dagger: '†' },
  ...{ in: '∈', ne: '≠', le: '≤', ge: '≥', sube: '⊆', subseteq: '⊆', rarr: '→', infin: '∞' },
}

/** Stands on lines of its own, with an empty one before it. */
const paragraphs = new Set([
  ...['p', 'div', 'pre', 'blockquote', 'ul', 'ol', 'table', 'hr'],
  ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6'],
])

const hidden = new Set(['script', 'style', 'template', 'iframe', 'object', 'noscript'])

/**
 * A comment, a declaration, or a tag with its attributes; of a quote that nobody closed, up to the next `>`.
 * A `<` that begins none of these is a sign like others.
 */
const markup =
  /<!--[\s\S]*?(?:-->|$)|<[!?][^>]*(?:>|$)|<(\/?)([a-z][a-z0-9-]*)((?:"[^"]*"|'[^']*'|[^"'>])*>|[^>]*(?:>|$))/gi

interface Writer {
  text: string
  /** Within `pre`, whitespace is kept. */
  isPre: boolean
  /** The address of the link that is open. */
  href: string | undefined
  linkStart: number
}

export function plainText(html: string): string {
  const writer: Writer = { text: '', isPre: false, href: undefined, linkStart: 0 }
  let at = 0
  let skipped: string | undefined
  for (const match of html.matchAll(markup)) {
    if (skipped === undefined) write(writer, html.slice(at, match.index))
    at = match.index + match[0].length
    const [, slash = '', name, attributes = ''] = match
    if (name === undefined) continue
    const tag = name.toLowerCase()
    if (skipped !== undefined) {
      if (slash === '/' && tag === skipped) skipped = undefined
    } else if (slash === '' && hidden.has(tag)) {
      skipped = tag
    } else if (slash === '') {
      open(writer, tag, attributes)
    } else {
      close(writer, tag)
    }
  }
  if (skipped === undefined) write(writer, html.slice(at))
  return writer.text
    .replaceAll(/[ \t]+\n/g, '\n')
    .replaceAll(/\n{3,}/g, '\n\n')
    .trim()
}

function write(writer: Writer, raw: string): void {
  const text = decoded(raw)
  if (writer.isPre) {
    writer.text += text
    return
  }
  const flowing = text.replaceAll(/[ \t\r\n]+/g, ' ')
  writer.text += isLineStart(writer.text) ? flowing.trimStart() : flowing
}

function open(writer: Writer, tag: string, attributes: string): void {
  if (paragraphs.has(tag)) endParagraph(writer)
  switch (tag) {
    case 'pre':
      writer.text += '```\n'
      writer.isPre = true
      break
    case 'code':
      if (!writer.isPre) writer.text += '`'
      break
    case 'br':
      writer.text += '\n'
      break
    case 'hr':
      writer.text += '---\n\n'
      break
    case 'blockquote':
      writer.text += '> '
      break
    case 'li':
      endLine(writer)
      writer.text += '- '
      break
    case 'sup':
      writer.text += '^'
      break
    case 'sub':
      // `<sub>` around a whole paragraph is how the site writes small print.
      if (/\w$/.test(writer.text)) writer.text += '_'
      break
    case 'a':
      writer.href = attributeOf(attributes, 'href')
      writer.linkStart = writer.text.length
      break
    case 'img': {
      const source = addressOf(attributeOf(attributes, 'src'))
      const says = attributeOf(attributes, 'alt') ?? 'image'
      writer.text += source === undefined ? `[${says}]` : `[${says}: ${source}]`
      break
    }
    default:
  }
}

function close(writer: Writer, tag: string): void {
  if (tag === 'a') {
    const address = addressOf(writer.href)
    const words = writer.text.slice(writer.linkStart)
    writer.href = undefined
    if (address !== undefined && !words.includes(address)) writer.text += ` (${address})`
  }
  if (tag === 'code' && !writer.isPre) writer.text += '`'
  if (tag === 'pre' && writer.isPre) {
    writer.isPre = false
    endLine(writer)
    writer.text += '```'
  }
  if (paragraphs.has(tag)) endParagraph(writer)
}

function endLine(writer: Writer): void {
  if (writer.text !== '' && !writer.text.endsWith('\n')) writer.text += '\n'
}

/** What begins with `- ` or `> ` has its first paragraph on that line. */
function endParagraph(writer: Writer): void {
  const { text } = writer
  if (text.endsWith('\n\n') || (isLineStart(text) && !text.endsWith('\n'))) return
  writer.text += text.endsWith('\n') ? '\n' : '\n\n'
}

function isLineStart(text: string): boolean {
  if (text === '' || text.endsWith('\n')) return true
  return ['- ', '> '].some((mark) => text === mark || text.endsWith(`\n${mark}`))
}

function attributeOf(attributes: string, name: string): string | undefined {
  const found = new RegExp(`\\s${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)'|([^\\s"'>]+))`, 'i').exec(
    attributes,
  )
  const value = found?.[1] ?? found?.[2] ?? found?.[3]
  return value === undefined ? undefined : decoded(value).trim()
}

/** Addresses that a reader may follow; `javascript:`, `data:` and the like are left out. */
function addressOf(href: string | undefined): string | undefined {
  return href !== undefined && /^https?:\/\/\S+$/i.test(href) ? href : undefined
}

/** Once, from left to right: `&amp;lt;` is `&lt;`. */
function decoded(text: string): string {
  return text.replaceAll(
    /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z]+));/gi,
    (whole, hex, decimal, name) => {
      if (name !== undefined)
        return Object.hasOwn(entities, name) ? (entities[name] ?? whole) : whole
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16)
      const isSign = code >= 32 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)
      return isSign || code === 9 || code === 10 ? String.fromCodePoint(code) : '\ufffd'
    },
  )
}
