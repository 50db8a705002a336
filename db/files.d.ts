/** Files that are imported and so travel inside the binary. */

/** `with { type: 'text' }`: the text itself. */
declare module '*.sql' {
  const text: string
  export default text
}

/** `with { type: 'file' }`: a path that `Bun.file` opens, on disk or inside the binary. */
declare module '*.csv.gz' {
  const path: string
  export default path
}

declare module '*.CSV.gz' {
  const path: string
  export default path
}

declare module '*.jsonl.gz' {
  const path: string
  export default path
}
