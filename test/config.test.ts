import { describe, expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { readConfig } from '../src/config.ts'
import { Fault } from '../src/fault.ts'
import { faultOf } from './harness.ts'

describe('readConfig', () => {
  test('defaults', () => {
    const { env, ...config } = readConfig('energy', {})
    expect(config).toEqual({
      host: '0.0.0.0',
      port: 3000,
      database: { kind: 'file', file: resolve('data/energy.db'), replicas: [] },
      redis: undefined,
      auth: {
        secret: undefined,
        publicKey: undefined,
        jwks: [],
        issuers: [],
        audiences: [],
        typ: undefined,
        toleranceMs: undefined,
        apiKey: undefined,
      },
      corsOrigins: [],
      trustedProxies: [],
      logLevel: 'info',
      overloadMode: 'auto',
      connections: {},
    })
    expect(env).toEqual({})
  })

  test.each([
    ['file:./a.db', resolve('a.db')],
    ['file:a.db', resolve('a.db')],
    ['file:/srv/a.db', '/srv/a.db'],
    ['file:///srv/a.db', '/srv/a.db'],
    ['file:///srv/a%20b.db', '/srv/a b.db'],
    ['file://localhost/srv/a.db', '/srv/a.db'],
    ['file:a b.db', resolve('a b.db')],
  ])('DATABASE_URL %s is %s', (url, file) => {
    expect(readConfig('a', { DATABASE_URL: url }).database).toMatchObject({ file })
  })

  test.each([
    'file:',
    'file://elsewhere/a.db',
    'file:data/',
    'file::memory:',
    'a.db',
    'file:a.db?x=1',
  ])('DATABASE_URL %s is refused', (url) => {
    expect(() => readConfig('a', { DATABASE_URL: url })).toThrow('the environment is not valid')
  })

  test('several issuers, each with its keys', () => {
    const env = {
      JWKS_URL: 'https://a.example/keys, file:keys.json',
      JWT_ISSUER: 'https://a.example/,b',
      JWT_AUDIENCE: 'belfry, other',
      JWT_TYP: 'at+jwt',
      JWT_CLOCK_TOLERANCE: '30s',
    }
    expect(readConfig('a', env).auth).toMatchObject({
      jwks: ['https://a.example/keys', pathToFileURL(resolve('keys.json')).href],
      issuers: ['https://a.example/', 'b'],
      audiences: ['belfry', 'other'],
      typ: 'at+jwt',
      toleranceMs: 30_000,
    })
  })

  test('limits of connections', () => {
    const env = { CONNECTIONS_PER_USER: '8', CONNECTIONS_PER_ADDRESS: '100' }
    expect(readConfig('a', env).connections).toEqual({
      connectionsPerUserMax: 8,
      connectionsPerAddressMax: 100,
    })
    expect(() => readConfig('a', { CONNECTIONS_PER_USER: '0' })).toThrow('is not valid')
  })

  test('a remote primary, its replicas and its token', () => {
    const env = {
      DATABASE_URL: 'libsql://db.example',
      DATABASE_AUTH_TOKEN: 'secret',
      DATABASE_READ_REPLICA_URL: 'http://a:8080, https://b',
      DATABASE_REPLICA_PATH: './copy.db',
    }
    const authToken = 'secret'
    expect(readConfig('a', env).database).toEqual({
      kind: 'remote',
      primary: { url: 'libsql://db.example', authToken },
      replicas: [
        { url: 'http://a:8080', authToken },
        { url: 'https://b', authToken },
      ],
      replicaFile: resolve('copy.db'),
    })
  })

  test.each([
    ['redis://cache', { host: 'cache', port: 6379, db: 0, isTls: false }],
    ['redis://cache:7000/', { host: 'cache', port: 7000, db: 0, isTls: false }],
    ['redis://10.0.0.1:7000/5', { host: '10.0.0.1', port: 7000, db: 5, isTls: false }],
    ['redis://[::1]:7000', { host: '::1', port: 7000, db: 0, isTls: false }],
    ['rediss://cache/2', { host: 'cache', port: 6379, db: 2, isTls: true }],
    ['redis://:p%40ss@cache', { host: 'cache', port: 6379, password: 'p@ss', db: 0, isTls: false }],
    [
      'rediss://me:p%3Aw@cache:1',
      { host: 'cache', port: 1, username: 'me', password: 'p:w', db: 0, isTls: true },
    ],
  ])('REDIS_URL %s', (url, redis) => {
    expect(readConfig('a', { REDIS_URL: url }).redis).toEqual(redis)
  })

  test.each([
    'localhost:6379',
    'http://cache',
    'redis:cache',
    'redis://',
    'redis://:secret@',
    'redis://cache:70000',
    'redis://cache:0',
    'redis://cache/one',
    'redis://cache/1/2',
    'redis://cache?enableOfflineQueue=true',
    'redis://cache#1',
    'redis://:%secret@cache',
  ])('REDIS_URL %s is refused, and not repeated', async (url) => {
    const fault = await faultOf(() => readConfig('a', { REDIS_URL: url }))
    expect(fault.fields).toMatchObject([{ field: 'REDIS_URL' }])
    expect(JSON.stringify(fault.fields)).not.toContain('secret')
  })

  test('every wrong variable is named at once', () => {
    const env = {
      PORT: '70000',
      LOG_LEVEL: 'loud',
      OVERLOAD_MODE: 'panic',
      DATABASE_URL: 'postgres://db.example',
      DATABASE_READ_REPLICA_URL: 'http://a, ./b.db',
      DATABASE_REPLICA_PATH: 'a.db',
      CORS_ORIGIN: 'example.com',
      REDIS_URL: 'http://localhost',
      JWKS_URL: 'https://a.example/keys, ftp://b.example',
      JWT_CLOCK_TOLERANCE: '1h',
    }
    let fields: readonly { field: string }[] = []
    try {
      readConfig('a', env)
    } catch (thrown) {
      if (thrown instanceof Fault) fields = thrown.fields ?? []
    }
    expect(fields.map(({ field }) => field).toSorted()).toEqual([
      'CORS_ORIGIN',
      'DATABASE_READ_REPLICA_URL',
      'DATABASE_REPLICA_PATH',
      'DATABASE_URL',
      'JWKS_URL',
      'JWT_CLOCK_TOLERANCE',
      'LOG_LEVEL',
      'OVERLOAD_MODE',
      'PORT',
      'REDIS_URL',
    ])
  })
})
