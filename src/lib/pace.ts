/** How long what waits will take, told from how long the last took: for a refusal with an honest wait. */

/** Nobody is sent away for less, nor for longer: then it is worth asking again. */
const waitMs = { least: 50, most: 30_000 } as const

/** Of what was known before, kept each time. */
const memory = 0.8

export class Pace {
  #msPerPiece: number

  /** `msPerPiece`: until it is known. */
  constructor(msPerPiece: number) {
    this.#msPerPiece = msPerPiece
  }

  took(pieces: number, ms: number): void {
    if (pieces <= 0) return
    this.#msPerPiece = memory * this.#msPerPiece + ((1 - memory) * ms) / pieces
  }

  waitMs(pieces: number): number {
    return Math.min(waitMs.most, Math.max(waitMs.least, pieces * this.#msPerPiece))
  }
}
