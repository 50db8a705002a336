/** `belfry plan`: what an app file comes to, or everything that is wrong with it. */
import type { CollectionPlan } from '../collections/collections.ts'
import { compilePlan, type Plan } from '../plan/plan.ts'
import { parseAppArgs } from './args.ts'
import type { Verb } from './cli.ts'
import { loadApp } from './load.ts'

export const plan: Verb = {
  usage: 'plan <app.ts> | plan --app <name>',
  about: 'check an app file and print what it comes to; nothing is opened',
  async run(args) {
    console.log(describe(compilePlan(await loadApp(parseAppArgs('plan', args)))))
    return 0
  },
}

function describe(checked: Plan): string {
  const lines = [`app ${checked.name}`]
  for (const one of checked.collections) {
    const { rules } = one
    lines.push(
      '',
      `collection /api/${one.path}  (table ${one.tableName}, key ${one.keyProperties.join(' + ')})`,
      `  read ${rule(rules.read)}, create ${rule(rules.create)}, update ${rule(rules.update)}, remove ${rule(rules.remove)}`,
      `  cached ${one.ttlMs} ms${one.staleMs > 0 ? `, ${one.staleMs} ms longer if the store fails` : ''}`,
      ...hides(one),
      ...(one.priority === 'normal' ? [] : [`  priority ${one.priority}`]),
      `  filters ${one.filters.join(', ') || 'none'}`,
      ...[...one.orders].map(
        ([name, parts]) =>
          `  order ${name}${name === one.orderDefault ? ' (default)' : ''}: ${parts
            .map(({ column, descending }) => `${column.name} ${descending ? 'desc' : 'asc'}`)
            .join(', ')}`,
      ),
      ...(one.lookup.length > 0 ? [`  look-up by ${one.lookup.join(', ')}`] : []),
      ...one.children.map(
        ({ name, collection }) => `  children /api/${one.path}/:id/${name} (of ${collection.path})`,
      ),
      ...[...one.expand.values()].map(
        ({ name, property, target }) => `  expand ${name}: ${property} (of ${target.path})`,
      ),
      ...(one.live ? ['  live'] : []),
    )
  }
  for (const one of checked.topics) {
    lines.push(
      '',
      `topic ${one.pattern}`,
      `  subscribe ${rule(one.subscribe)}, publish ${rule(one.publish)}`,
      `  history ${one.historySize > 0 ? `${one.historySize} for ${one.historyTtlMs} ms` : 'none'}${one.last ? ', last value on subscribe' : ''}`,
      ...topicExtras(one),
    )
  }
  for (const one of checked.feeds) {
    const into = one.into.map(({ path }) => path)
    const topics = one.publish === undefined ? [] : [`topic ${one.publish}`]
    lines.push(
      '',
      `feed ${one.name}`,
      one.stream ? '  of a stream' : `  every ${every(one.every)}, time-out ${one.timeoutMs} ms`,
      ...(one.budget === undefined ? [] : [`  budget ${one.budget}`]),
      ...(one.keyed
        ? [
            `  keys of topic ${one.keyed.pattern}, ${one.keyed.batch} a call, idle ${one.keyed.idleMs} ms`,
          ]
        : []),
      `  into ${[...into, ...topics].join(', ') || 'topics only'}`,
    )
  }
  for (const { name, rate, burst } of checked.budgets) {
    lines.push('', `budget ${name}`, `  ${rate.quota} in ${rate.windowMs} ms, burst ${burst}`)
  }
  for (const one of checked.proxies) lines.push('', ...proxyLines(one))
  if (checked.accounts) lines.push('', ...accountLines(checked.accounts))
  return lines.join('\n')
}

function accountLines({ isOpen, mustVerify, send, limits }: NonNullable<Plan['accounts']>) {
  const { login } = limits
  return [
    'accounts at /api/auth/',
    `  sign-up ${isOpen ? 'open' : 'closed'}${mustVerify ? ', verified first' : ''}, ${send ? 'with' : 'without'} mail`,
    `  limit ${login.quota} failed sign-ins in ${login.windowMs} ms for each address and account`,
  ]
}

function every(given: Plan['feeds'][number]['every']): string {
  if (typeof given === 'function') return '(by environment)'
  return typeof given === 'string' ? given : `cron ${given.cron} (UTC)`
}

function proxyLines(one: Plan['proxies'][number]): string[] {
  const { path, paths = [[]], upstream, query } = one
  const goes = typeof upstream === 'string' ? upstream : '(by environment)'
  return [
    ...paths.map((parts) => `proxy ${[path, ...parts].join('/')}  (of ${goes})`),
    `  read ${rule(one.read)}, parameters ${[...query.keys()].join(', ') || 'none'}`,
    `  cached ${one.ttlMs} ms, ${one.staleMs} ms longer if the upstream fails`,
    ...(one.budget === undefined ? [] : [`  budget ${one.budget}`]),
    ...(one.isPrivate ? ['  may be in a private network'] : []),
  ]
}

function topicExtras(topic: Plan['topics'][number]) {
  const { presence, message, limit, through, conflate, persist } = topic
  const rates = [
    ['user', limit?.user],
    ['connection', limit?.connection],
  ] as const
  return [
    ...(presence === true ? ['  presence'] : []),
    ...(message ? ['  message by schema'] : []),
    ...rates.flatMap(([who, rate]) =>
      rate ? [`  limit ${rate.quota} in ${rate.windowMs} ms for each ${who}`] : [],
    ),
    ...(through ? [`  through ${through.method} ${through.path}`] : []),
    ...(conflate
      ? [`  conflate ${conflate.everyMs} ms${conflate.key ? ' for each key' : ''}`]
      : []),
    ...(persist ? [`  persist ${persist.size} for ${persist.ttlMs} ms`] : []),
  ]
}

/** Rules of every room are an audience by name, a function, or absent. */
function rule(value: string | ((...args: never[]) => unknown) | undefined): string {
  return typeof value === 'function' ? 'by rule' : (value ?? 'nobody')
}

function hides({ hide }: CollectionPlan): string[] {
  const names = [
    ...hide.always.map(([property]) => property),
    ...hide.rules.map(([property]) => `${property} (by a rule)`),
  ]
  return names.length === 0 ? [] : [`  hides ${names.join(', ')}`]
}
