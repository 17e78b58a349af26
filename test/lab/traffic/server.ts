/**
 * What a workload offers in the stories; run as `node server.js ADDRESS`:
 * HTTP on port 80 (`/bytes?size=N&rate=BYTES_PER_SECOND`, `/hello`), TCP echo on port 7, UDP echo on port 7.
 */
import { createSocket } from 'node:dgram';
import { createServer as createHttpServer, type ServerResponse } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { ByteStream } from './bytes.ts';

const TICK_MS = 10;

const address = process.argv[2] ?? '::';

const http = createHttpServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://workload');
  if (url.pathname === '/hello') return void response.end(`hello from ${address}\n`);
  if (url.pathname !== '/bytes') return void response.writeHead(404).end();
  serveBytes(response, Number(url.searchParams.get('size') ?? 0), Number(url.searchParams.get('rate') ?? 1e12));
  return undefined;
});

const echo = createTcpServer({ noDelay: true }, (socket) => {
  socket.on('error', (error) => report({ type: 'error', message: error.message }));
  socket.pipe(socket);
});

const datagrams = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 });
datagrams.on('message', (message, from) => datagrams.send(message, from.port, from.address));
datagrams.on('error', (error) => report({ type: 'error', message: error.message }));

http.listen(80, address, () =>
  echo.listen(7, address, () => datagrams.bind(7, address, () => report({ type: 'listening' }))),
);

/** `rate` bytes per second, in small portions, so that a download lasts as long as the story needs. */
function serveBytes(response: ServerResponse, size: number, rate: number): void {
  const stream = new ByteStream();
  const started = performance.now();
  let sent = 0;
  let blocked = false;
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size });
  response.on('drain', () => {
    blocked = false;
  });
  const timer = setInterval(() => {
    if (response.destroyed) return clearInterval(timer);
    const due = Math.min(size, Math.floor(((performance.now() - started) / 1000) * rate));
    while (sent < due && !blocked) {
      const chunk = stream.next(Math.min(due - sent, 64 * 1024));
      sent += chunk.length;
      blocked = !response.write(chunk);
    }
    if (sent === size) {
      clearInterval(timer);
      response.end();
    }
    return undefined;
  }, TICK_MS);
}

function report(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
