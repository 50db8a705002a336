/** `import path from '….csv.gz' with { type: 'file' }`: a path that `Bun.file` opens, on disk or inside the binary. */
declare module '*.csv.gz' {
  const path: string
  export default path
}

/** AEMO's own files are in capitals. */
declare module '*.CSV.gz' {
  const path: string
  export default path
}
