/** 64 bits over the whole body, quoted: a strong ETag. Good for telling versions of one thing apart, not a signature. */
export function etagOf(body: Uint8Array | string): string {
  return `"${Bun.hash(body).toString(36)}"`
}
