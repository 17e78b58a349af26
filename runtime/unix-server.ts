/** HTTP servers on Unix sockets, owned by one daemon at a time. */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { UsageError } from '../proto/errors.ts';

/** Listens on `path`. A socket file that nobody answers on is replaced. @throws UsageError if a daemon has it */
export async function listenOnUnixSocket(
  path: string,
  mode: number,
  listener: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  if (Buffer.byteLength(path) > 107) throw new UsageError(`${path}: a socket path may have at most 107 octets`);
  mkdirSync(dirname(path), { recursive: true });
  if (await somebodyListens(path)) throw new UsageError(`${path}: another daemon is already running on this socket`);
  rmSync(path, { force: true });
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, listener);
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
  chmodSync(path, mode);
  return server;
}

function somebodyListens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
