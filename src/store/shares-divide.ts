/** Who is to have how many units: the same on every node that knows the same, and a wish only; the ledger decides. */

export interface Claim {
  readonly holder: string
  readonly units: number
  /** What it could use; 0: nothing. */
  readonly wants: number
}

/**
 * Everybody who wants any has at least one while units last; beyond that the smallest wants are met first; what nobody
 * wants is spread evenly. With fewer units than who wants them: who has one keeps it, or by `turn`, those whose turn it is.
 */
export function divide(
  capacity: number,
  claims: readonly Claim[],
  turn?: number,
): ReadonlyMap<string, number> {
  const wanting = claims
    .filter(({ wants }) => wants > 0)
    .toSorted((a, b) => (a.holder < b.holder ? -1 : 1))
  const count = wanting.length
  if (capacity < count) {
    const chosen =
      turn === undefined
        ? wanting.toSorted((a, b) => Number(b.units > 0) - Number(a.units > 0))
        : wanting.map((_, at) => wanting[(at + turn * capacity) % count] as Claim)
    return new Map(chosen.slice(0, capacity).map(({ holder }) => [holder, 1]))
  }
  const shares = new Map<string, number>()
  let left = capacity
  for (const [at, { holder, wants }] of wanting.toSorted((a, b) => a.wants - b.wants).entries()) {
    const given = Math.min(Math.max(1, wants), Math.floor(left / (count - at)))
    shares.set(holder, given)
    left -= given
  }
  for (const [at, { holder }] of wanting.entries()) {
    const more = Math.floor(left / (count - at))
    shares.set(holder, (shares.get(holder) ?? 0) + more)
    left -= more
  }
  return shares
}
