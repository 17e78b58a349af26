/** Prometheus text on `GET /metrics`, and `GET /healthz`, over plain HTTP on an address of the operator's choice. */
import { createServer, type Server } from 'node:http';
import type { Registry } from 'prom-client';
import { UsageError } from '../proto/errors.ts';
import { formatHostPort, parseHostPort } from './host-port.ts';

/** @throws UsageError when the address cannot be listened on */
export async function startMetricsServer(
  listen: string,
  registry: Registry,
  healthy: () => boolean,
): Promise<{ readonly port: number; close(): Promise<void> }> {
  const { host, port } = parseHostPort(listen);
  const limits = { requestTimeout: 10_000, headersTimeout: 5_000, connectionsCheckingInterval: 2_000 };
  const server = createServer(limits, (request, response) => {
    const path = (request.url ?? '').split('?', 1)[0];
    if (request.method !== 'GET') return void response.writeHead(405).end();
    if (path === '/healthz') {
      const ok = healthy();
      return void response.writeHead(ok ? 200 : 503, { 'content-type': 'text/plain' }).end(ok ? 'ok\n' : 'not ready\n');
    }
    if (path !== '/metrics') return void response.writeHead(404).end();
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      () => response.writeHead(500).end(),
    );
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
