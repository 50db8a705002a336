/** What an operator says about differences that Belfry will not guess at, each used or complained about. */

/** As they stand after the flags of `belfry migrate`. */
export interface MigrationAnswers {
  /** `table.old=new`, by the declared name of the table. */
  readonly rename?: readonly string[] | undefined
  /** `old=new` */
  readonly renameTable?: readonly string[] | undefined
  /** `table.column`: with its values. */
  readonly drop?: readonly string[] | undefined
  /** `table`: with its rows. */
  readonly dropTable?: readonly string[] | undefined
  readonly dropIndex?: readonly string[] | undefined
  /** `table`: it is no renamed one. */
  readonly newTable?: readonly string[] | undefined
}

export type AnswerKind = keyof MigrationAnswers

/** What each answers to; a flag that matches nothing is told so. */
export const answerFlags: Readonly<
  Record<AnswerKind, { readonly flag: string; readonly form: string; readonly answers: string }>
> = {
  rename: {
    flag: '--rename',
    form: 'table.old=new',
    answers: 'a column that is stored and not declared, = one that is declared and not stored',
  },
  renameTable: {
    flag: '--rename-table',
    form: 'old=new',
    answers: 'a table that is stored and not declared, = one that is declared and not stored',
  },
  drop: {
    flag: '--drop',
    form: 'table.column',
    answers: 'a column that is stored and not declared',
  },
  dropTable: {
    flag: '--drop-table',
    form: 'table',
    answers: 'a table that is stored and not declared',
  },
  dropIndex: {
    flag: '--drop-index',
    form: 'index',
    answers: 'an index that is stored and not declared',
  },
  newTable: {
    flag: '--new-table',
    form: 'table',
    answers: 'a new table that could be a renamed one',
  },
}

export interface Taker {
  /** Whether this was said. It counts as used then. */
  (kind: AnswerKind, text: string): boolean
  /** The same, without using it. */
  peek(kind: AnswerKind, text: string): boolean
}

export function createTaker(answers: MigrationAnswers): {
  readonly take: Taker
  readonly unmatched: () => readonly string[]
} {
  const used = new Set<string>()
  const peek = (kind: AnswerKind, text: string): boolean => answers[kind]?.includes(text) ?? false
  const take = (kind: AnswerKind, text: string): boolean => {
    if (!peek(kind, text)) return false
    used.add(`${kind} ${text}`)
    return true
  }
  const unmatched = (): readonly string[] =>
    (Object.keys(answerFlags) as AnswerKind[]).flatMap((kind) =>
      (answers[kind] ?? [])
        .filter((text) => !used.has(`${kind} ${text}`))
        .map((text) => {
          const { flag, answers: what } = answerFlags[kind]
          return `${flag} ${text} matches nothing: it takes ${what}`
        }),
    )
  return { take: Object.assign(take, { peek }), unmatched }
}
