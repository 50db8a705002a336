/** The stock `centrifuge` client, unmodified, over each of its transports; it remembers what it heard. */
import {
  Centrifuge,
  type Options,
  type PublicationContext,
  type SubscribedContext,
  type Subscription,
  type SubscriptionOptions,
} from 'centrifuge'
import { TestEventSource } from './event-source.ts'
import { until } from './serve.ts'

export const transports = ['websocket', 'sse', 'http_stream'] as const
export type Transport = (typeof transports)[number]

/** What a browser would have, and where requests go. */
export function stockOptions(server: { readonly url: string }): Partial<Options> {
  return {
    emulationEndpoint: `${server.url}/emulation`,
    websocket: WebSocket,
    eventsource: TestEventSource,
    fetch,
    readableStream: ReadableStream,
  }
}

export function stockClient(
  server: { readonly url: string },
  transport: Transport,
  options: Partial<Options> = {},
): Centrifuge {
  const base = transport === 'websocket' ? server.url.replace('http', 'ws') : server.url
  return new Centrifuge([{ transport, endpoint: `${base}/connection/${transport}` }], {
    ...stockOptions(server),
    minReconnectDelay: 1,
    maxReconnectDelay: 20,
    ...options,
  })
}

export interface Heard {
  readonly subscription: Subscription
  readonly publications: PublicationContext[]
  readonly subscribed: SubscribedContext[]
  /** Codes of `subscribing` and `unsubscribed`, in order. */
  readonly left: number[]
  readonly joins: unknown[]
  readonly leaves: unknown[]
}

export function hear(
  client: Centrifuge,
  topic: string,
  options: Partial<SubscriptionOptions> = {},
): Heard {
  const subscription = client.newSubscription(topic, {
    minResubscribeDelay: 1,
    maxResubscribeDelay: 20,
    ...options,
  })
  const heard: Heard = {
    subscription,
    publications: [],
    subscribed: [],
    left: [],
    joins: [],
    leaves: [],
  }
  subscription.on('publication', (context) => heard.publications.push(context))
  subscription.on('subscribed', (context) => heard.subscribed.push(context))
  subscription.on('subscribing', ({ code }) => heard.left.push(code))
  subscription.on('unsubscribed', ({ code }) => heard.left.push(code))
  subscription.on('join', ({ info }) => heard.joins.push(info))
  subscription.on('leave', ({ info }) => heard.leaves.push(info))
  subscription.subscribe()
  return heard
}

/** Connected, and subscribed to the topic. */
export async function subscribed(client: Centrifuge, topic: string): Promise<Heard> {
  const heard = hear(client, topic)
  client.connect()
  await until(() => heard.subscribed.length === 1, `subscribed to ${topic}`)
  return heard
}

/** What a call of the client is refused with. */
export async function codeOf(call: Promise<unknown>): Promise<number | undefined> {
  try {
    await call
    return undefined
  } catch (error) {
    return (error as { code?: number }).code
  }
}

export const offsetsOf = ({ publications }: Heard) => publications.map(({ offset }) => offset)
export const dataOf = ({ publications }: Heard) => publications.map(({ data }) => data as unknown)
