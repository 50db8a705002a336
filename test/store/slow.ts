/** SQL that keeps a reader busy: about 0.1 µs a step and more. */
export function slowQuery(steps: number): string {
  return `with recursive n(i) as (select 1 union all select i + 1 from n where i < ${steps}) select count(*) from n`
}
