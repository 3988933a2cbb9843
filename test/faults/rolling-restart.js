import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, createKey, freePort, sleep, startInstance, startPostgres, waitUntil, watchMachine, withCleanup } from './harness.js'

export const name = 'rolling restart of 2 instances behind a balancer at 500 requests/s'

const perSecond = 500
const defaults = { chain: 'near' }

/**
 * The service gives up a statement that PostgreSQL does not answer within 400 ms, and answers 503, as it should. Where PostgreSQL
 * could not commit one row in less than this, in milliseconds, a 503 says nothing of restarts.
 */
const stallMs = 300

/**
 * Requests come at their times, whether those before were answered or not, to an nginx that keeps connections to both
 * instances and asks the other only where one could not be connected to. Each instance in turn is told to end, and is
 * started again.
 */
export function run ({ short, pooler }) {
  return withCleanup(async defer => {
    const seconds = short ? 12 : 60
    const postgres = await startPostgres(defer, { pooler })
    const ports = [await freePort(), await freePort()]
    const start = port => startInstance(defer, postgres.connectionString, { PORT: String(port), ...postgres.variables })
    const instances = await Promise.all(ports.map(start))
    const balancer = await startBalancer(defer, ports)
    const ask = createClient(defer, { connections: 256 })
    await waitUntil('nginx answers', async () => (await ask(balancer, 'GET', '/v1/ready')).status === 200)
    const { key } = await createKey(ask, balancer)
    const { body: { data: { sessionId } } } = await ask(balancer, 'POST', '/v1/sessions', { key, body: { defaults, ttlSeconds: 86_400 } })

    const machine = await watchMachine(defer, postgres.directConnectionString)
    const failures = []
    const send = async i => {
      const create = i % 10 === 0
      const { status, error } = create
        ? await ask(balancer, 'POST', '/v1/sessions', { key, body: { defaults } })
        : i % 10 < 5
          ? await ask(balancer, 'GET', `/v1/sessions/${sessionId}`, { key })
          : await ask(balancer, 'POST', '/v1/resolve', { key, body: {}, headers: { 'x-session-id': sessionId } })
      const expected = create ? 201 : 200
      if (status !== expected) failures.push(status || error.message)
    }
    const began = performance.now()
    const ending = new AbortController()
    const load = (async () => {
      const sent = []
      while (!ending.signal.aborted) {
        const due = Math.floor((performance.now() - began) / 1000 * perSecond)
        while (sent.length < due) sent.push(send(sent.length))
        await sleep(2)
      }
      await Promise.all(sent)
      return sent.length
    })()

    let restarts = 0
    let longestMs = 0
    const stopped = []
    try {
      // Instances that are replaced have been serving for a while.
      await sleep(1000)
      while (performance.now() - began < (seconds - 2) * 1000 || restarts < 2) {
        const i = restarts % 2
        const stopping = performance.now()
        const code = await instances[i].stop()
        longestMs = Math.max(longestMs, performance.now() - stopping)
        if (code !== 0) throw new Error(`an instance ended with ${code}`)
        stopped.push(instances[i])
        instances[i] = await start(ports[i])
        restarts++
        await sleep(500)
      }
      await sleep(1000)
    } finally {
      ending.abort()
    }
    const count = await load
    const commitMs = await machine()
    const problems = failures.length > 0 ? [...new Set([...stopped, ...instances].flatMap(instance => [...instance.problems]))] : []
    return {
      did: `${restarts} restarts during ${count} requests, an instance stopped within ${Math.round(longestMs)} ms: ${failures.length} failed${failures.length > 0 ? ` (${[...new Set(failures)].join(', ')})` : ''}; ` +
        `PostgreSQL committed a row within ${Math.round(commitMs)} ms${problems.map(problem => `\n  ${problem}`).join('')}`,
      passed: failures.length === 0,
      disturbed: commitMs > stallMs && failures.every(failure => failure === 503)
    }
  })
}

/** nginx with its files in a temporary directory; where it is. */
async function startBalancer (defer, ports) {
  const prefix = mkdtempSync(join(tmpdir(), 'sipher-balancer-'))
  const port = await freePort()
  mkdirSync(join(prefix, 'temp'))
  // max_fails=0: while the one instance is away, the other is not to be given up for it.
  writeFileSync(join(prefix, 'nginx.conf'), `
worker_processes 1;
daemon off;
pid nginx.pid;
events { worker_connections 2048; }
http {
  access_log off;
  # The clients here are to be closed by no one; only what happens behind nginx is looked at.
  keepalive_requests 1000000;
  keepalive_timeout 300s;
  client_body_temp_path temp/client;
  proxy_temp_path temp/proxy;
  fastcgi_temp_path temp/fastcgi;
  uwsgi_temp_path temp/uwsgi;
  scgi_temp_path temp/scgi;
  upstream instances {
${ports.map(port => `    server 127.0.0.1:${port} max_fails=0;`).join('\n')}
    # As many as are busy at a time, lest it opens and closes connections all the while.
    keepalive 128;
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://instances;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      # Of requests with an effect only those that were not sent yet.
      proxy_next_upstream error;
      proxy_connect_timeout 1s;
    }
  }
}
`)
  const child = spawn(process.env.NGINX ?? '/usr/sbin/nginx', ['-p', prefix, '-c', 'nginx.conf', '-e', 'stderr'], { stdio: ['ignore', 'ignore', process.env.DEBUG_NGINX ? 'inherit' : 'ignore'] })
  const exited = once(child, 'exit').catch(error => { throw new Error(`nginx did not start (Debian: apt-get install nginx, or set NGINX to where it is): ${error.message}`) })
  defer(async () => {
    child.kill('SIGTERM')
    await exited
    rmSync(prefix, { recursive: true, force: true })
  })
  return `http://127.0.0.1:${port}`
}
