/**
 * nginx with `proxy_cache` in front of a server, as a peer of benches: one worker, on the same core as the
 * others, on a free port, in a folder of its own. `apt-get install nginx-light`.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { until, type TempFolder } from '../harness.ts'
import { childrenOf } from '../process.ts'
import { freePort } from '../services.ts'

export const hasNginx = Bun.which('nginx') !== null

export interface Nginx {
  readonly port: number
  /** The master's and the worker's. */
  pids(): number[]
  stop(): Promise<void>
}

export interface NginxOptions {
  /** How long an answer with 200 is kept, whatever it says about that. Default an hour. */
  readonly validFor?: string
  readonly connections?: number
}

const configOf = (
  port: number,
  origin: string,
  { validFor = '1h', connections = 1024 }: NginxOptions,
): string => `
worker_processes 1;
worker_rlimit_nofile ${connections + 1024};
pid nginx.pid;
error_log error.log;
events { worker_connections ${connections}; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path body; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  proxy_temp_path proxy;
  proxy_cache_path cache keys_zone=answers:10m inactive=1h;
  upstream origin { server ${origin}; keepalive 8; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_cache answers;
      proxy_cache_valid 200 ${validFor};
      proxy_cache_lock on;
      proxy_cache_use_stale updating;
      proxy_ignore_headers cache-control expires set-cookie vary;
      add_header x-cache $upstream_cache_status;
    }
  }
}
`

export async function startNginx(
  folder: TempFolder,
  origin: string,
  options: NginxOptions = {},
): Promise<Nginx> {
  const path = folder.file('nginx')
  mkdirSync(path)
  // The worker is another user than the master where that is root.
  chmodSync(folder.path, 0o755)
  chmodSync(path, 0o777)
  const port = await freePort()
  writeFileSync(`${path}/nginx.conf`, configOf(port, origin, options))
  const args = ['-p', path, '-e', 'error.log', '-c', 'nginx.conf', '-g', 'daemon off;']
  const master = Bun.spawn(['nginx', ...args], { stdout: 'ignore', stderr: 'inherit' })
  const answers = async () => {
    if (master.exitCode !== null) throw new Error(`nginx ended with ${master.exitCode}`)
    return await fetch(`http://127.0.0.1:${port}/`).then(
      () => true,
      () => false,
    )
  }
  await until(answers, 'nginx answers')
  return {
    port,
    pids: () => [master.pid, ...childrenOf(master.pid)],
    async stop() {
      master.kill()
      await master.exited
    },
  }
}
