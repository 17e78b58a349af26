/**
 * For those who watch a daemon, over plain HTTP on an address of the operator's choice: Prometheus text on `/metrics`;
 * `/healthz`, which answers while the process works; `/readyz`, which says whether the daemon serves its purpose.
 */
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { UsageError } from '../proto/errors.ts';
import { formatHostPort, parseHostPort } from './host-port.ts';
import { VERSION } from './project-root.ts';
import { isReady, type ReadinessCheck } from './readiness.ts';

export interface Watched {
  readonly registry: Registry;
  /** All that must hold, looked at now. */
  readiness(): Promise<readonly ReadinessCheck[]>;
}

/** @throws UsageError when the address cannot be listened on */
export async function startMetricsServer(
  listen: string,
  watched: Watched,
): Promise<{ readonly port: number; close(): Promise<void> }> {
  const { host, port } = parseHostPort(listen);
  const limits = { requestTimeout: 10_000, headersTimeout: 5_000, connectionsCheckingInterval: 2_000 };
  const server = createServer(limits, (request, response) => {
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    if (request.method !== 'GET' && request.method !== 'HEAD') return void response.writeHead(405).end();
    answer(path, watched, response).catch(() => response.writeHead(500).end());
    return undefined;
  });
  server.maxConnections = 32;
  await listenTcp(server, host, port);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(path: string, { registry, readiness }: Watched, response: ServerResponse): Promise<void> {
  switch (path) {
    case '/metrics': {
      const text = await registry.metrics();
      response.writeHead(200, { 'content-type': registry.contentType }).end(text);
      return;
    }
    case '/healthz':
      sendJson(response, 200, { status: 'ok', version: VERSION, uptimeSeconds: Math.floor(process.uptime()) });
      return;
    case '/readyz': {
      const checks = await readiness();
      const ready = isReady(checks);
      sendJson(response, ready ? 200 : 503, { status: ready ? 'ready' : 'not ready', version: VERSION, checks });
      return;
    }
    default:
      response.writeHead(404).end();
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(value)}\n`);
}

/** @throws UsageError naming the address and the reason */
export function listenTcp(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException): void =>
      reject(
        new UsageError(`cannot listen on ${formatHostPort(host, port)} (${cause.code ?? cause.message})`, { cause }),
      );
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      resolve();
    });
  });
}
