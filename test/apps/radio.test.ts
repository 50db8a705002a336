import { describe, expect, test } from 'bun:test'
import { tempFolder, until } from '../harness.ts'
import { dataOf, stockClient, subscribed } from '../realtime/stock.ts'
import { as, json, type Page } from './exams-server.ts'
import { runRadio } from './radio-server.ts'

interface Play {
  readonly at: string
  readonly title: string
}

const statusOf = async (sent: Promise<Response>) => (await sent).status

describe('what is on air', () => {
  test('a day of music at once, then one track per tick, told on live-stream; who comes gets the last one', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const [newest] = (await json<Page<Play>>(server, '/api/plays?limit=1')).items
    const client = stockClient(server, 'websocket')
    const heard = await subscribed(client, 'live-stream')
    await until(() => heard.publications.length === 1, 'the last one comes with the subscription')
    expect(heard.publications[0]?.data).toMatchObject({ collection: 'plays', row: newest })

    await server.rooms.feeds.tick('on-air')
    await until(() => heard.publications.length >= 2, 'the next track')
    const [, next] = dataOf(heard).map((data) => (data as { readonly row: Play }).row)
    expect(Date.parse(next?.at ?? '')).toBeGreaterThan(Date.parse(newest?.at ?? ''))
    const listed = await json<Page<Play>>(server, '/api/plays?limit=100&program=Mid%20Dawns')
    expect(listed.items.map(({ title }) => title)).toContain(next?.title ?? '')

    expect(await heard.subscription.presenceStats()).toEqual({ numClients: 1, numUsers: 1 })
    client.disconnect()
  })

  test('programs of a day, and a mix of each program', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const day = await json<Page>(server, '/api/events?day=2014-08-04&order=soonest')
    expect(day.items.map(({ title }) => title)).toEqual([
      ...['Mid Dawns', 'Matt and Alex', 'Mornings with Zan', 'Lunch with Lewi', 'The Doctor'],
      ...['Good Nights', 'Home and Hosed', "Roots 'n All"],
    ])
    expect(await json(server, '/api/mixes/the-doctor?expand=profile')).toMatchObject({
      title: 'Most played: The Doctor',
      profile: null,
      tracks: expect.arrayContaining([{ title: expect.any(String), artist: expect.any(String) }]),
    })
  })
})

describe('who may what', () => {
  test('mixes and profiles are their maker’s; programs an editor’s; what is earned or said is written by nobody', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const [ann, bob, editor] = await Promise.all([
      as(server, 'ann'),
      as(server, 'bob'),
      as(server, 'eve', { role: 'editor' }),
    ])
    const mix = { title: 'Mine', tracks: [{ title: 'Mess Is Mine', artist: 'Vance Joy' }] }
    expect(await statusOf(ann.send('POST', '/api/mixes', mix))).toBe(409)
    expect(await statusOf(ann.send('POST', '/api/profiles', { id: 'bob', name: 'Ann' }))).toBe(201)
    expect(await json(server, '/api/profiles/ann')).toMatchObject({ name: 'Ann', about: '' })

    const made = await ann.send('POST', '/api/mixes', { ...mix, id: 'the-doctor' })
    expect(made.status).toBe(201)
    const { id } = (await made.json()) as { id: string }
    expect(id).not.toBe('the-doctor')
    const path = `/api/mixes/${id}`
    expect(await json(server, `${path}?expand=profile`)).toMatchObject({
      userId: 'ann',
      profile: { name: 'Ann' },
    })
    expect(await statusOf(bob.send('PATCH', path, { title: 'Not' }))).toBe(403)
    expect(await statusOf(ann.send('PATCH', path, { userId: 'bob' }))).toBe(403)
    expect(await statusOf(ann.send('PATCH', path, { tracks: 'none' }))).toBe(400)
    expect(await statusOf(ann.send('PATCH', path, { title: 'Better' }))).toBe(200)
    expect(await statusOf(ann.send('PATCH', '/api/mixes/the-doctor', { title: 'Mine' }))).toBe(403)

    const gig = {
      ...{ id: 'gig', title: 'A gig', day: '2014-08-05' },
      startsAt: '2014-08-05T09:00:00Z',
      endsAt: '2014-08-05T11:00:00Z',
    }
    expect(await statusOf(ann.send('POST', '/api/events', gig))).toBe(403)
    expect(await statusOf(editor.send('POST', '/api/events', gig))).toBe(201)

    const shout = { room: 'lobby', userId: 'ann', name: 'Ann', text: 'hi' }
    expect(await statusOf(ann.send('POST', '/api/shouts', shout))).toBe(403)
    const prize = { userId: 'ann', kind: 'hundred-shouts' }
    expect(await statusOf(ann.send('POST', '/api/achievements', prize))).toBe(403)
    expect(await statusOf(editor.send('POST', '/api/plays', { title: 'x' }))).toBe(403)

    // Whoever goes takes the mixes along.
    expect(await statusOf(ann.send('DELETE', '/api/profiles/ann'))).toBe(204)
    expect((await server.get(path)).status).toBe(404)
  })
})
