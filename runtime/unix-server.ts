/** HTTP servers on Unix sockets, owned by one daemon at a time. */
import { lstatSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { UsageError } from '../proto/errors.ts';

/**
 * Listens on `path`. A socket that nobody answers on, as kill -9 leaves it, is replaced.
 *
 * @throws UsageError if another daemon has it or the path cannot be used
 */
export async function listenOnUnixSocket(
  path: string,
  mode: number,
  listener: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  if (Buffer.byteLength(path) > 107) throw new UsageError(`${path}: a socket path may have at most 107 octets`);
  await clearPath(path);
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, listener);
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error): void => reject(cannotListen(path, cause));
    server.once('error', failed);
    // The socket file is made inside listen(): it must never be open to more than `mode` allows.
    const umask = process.umask(0o777 & ~mode);
    try {
      server.listen(path, () => {
        server.off('error', failed);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
  return server;
}

async function clearPath(path: string): Promise<void> {
  try {
    mkdirSync(dirname(path), { recursive: true });
    const present = lstatSync(path, { throwIfNoEntry: false });
    if (present === undefined) return;
    if (!present.isSocket()) throw new UsageError(`${path}: is there already and not a socket; give another path`);
    if (await somebodyListens(path)) throw new UsageError(`${path}: another daemon is already running on this socket`);
    rmSync(path, { force: true });
  } catch (cause) {
    throw cause instanceof UsageError ? cause : cannotListen(path, cause as Error);
  }
}

function cannotListen(path: string, cause: Error): UsageError {
  return new UsageError(`${path}: cannot listen there (${cause.message})`, { cause });
}

function somebodyListens(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false);
      else reject(error);
    });
  });
}
