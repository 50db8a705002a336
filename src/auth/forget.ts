/** Deletes rows whose time is over, all of them, in steps: other writers wait for each. */
import type { Store } from '../store/store.ts'

/** In one statement. */
const atOnce = 500

/** `id`: a column of texts that tells them apart. `over`: one of ms since 1970; null: never. */
export async function forgetOver(
  store: Pick<Store, 'read' | 'write'>,
  { table, id, over }: { readonly table: string; readonly id: string; readonly over: string },
  nowMs: number,
): Promise<void> {
  for (;;) {
    const sql = `select ${id} from ${table} where ${over} < ? limit ${atOnce}`
    const rows = await store.read({ sql, params: [nowMs] }, { from: 'primary' })
    if (rows.length === 0) return
    const ids = JSON.stringify(rows.map(([one]) => one))
    await store.write([
      {
        sql: `delete from ${table} where ${over} < ? and ${id} in (select value from json_each(?))`,
        params: [nowMs, ids],
      },
    ])
    if (rows.length < atOnce) return
  }
}
