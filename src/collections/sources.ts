/**
 * A read as the cache asks it: how it is loaded, what could change it, how a change mends it. Made for each
 * read, hit or not: fields and methods, no closure.
 */
import type { CacheEntry, Loaded, Source } from '../cache/cache.ts'
import { tableTag, type Change } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import { entersPage, entersValue } from './depends.ts'
import type { ListRequest, Pages, RowRequest } from './page.ts'
import { othersOf, repairPage, repairRow } from './repair.ts'

abstract class Asked<Request extends { readonly plan: CollectionPlan }> {
  protected readonly pages: Pages
  protected readonly request: Request

  constructor(pages: Pages, request: Request) {
    this.pages = pages
    this.request = request
  }

  get group(): string {
    return tableTag(this.request.plan.tableName)
  }

  others(tags: readonly string[]): readonly string[] {
    return othersOf(this.request.plan, tags)
  }
}

export class ListSource extends Asked<ListRequest> implements Source {
  load(minSeq: number): Promise<Loaded> {
    return this.pages.list(this.request, minSeq)
  }

  touches(change: Change, range: string): boolean {
    return entersPage(this.request, change, range)
  }

  repair(entry: CacheEntry, changes: readonly Change[]): Uint8Array | undefined {
    return repairPage(this.request, entry, changes)
  }
}

export class RowSource extends Asked<RowRequest> implements Source {
  load(minSeq: number): Promise<Loaded> {
    return this.pages.row(this.request, minSeq)
  }

  touches(change: Change): boolean {
    const { plan, columns, values } = this.request
    const [column] = columns
    return column === undefined || entersValue(plan, column, values[0], change)
  }

  repair({ body, isAbsent }: CacheEntry, changes: readonly Change[]): Uint8Array | undefined {
    return isAbsent ? undefined : repairRow(this.request, body, changes)
  }
}
