/** A map server of its own, kept to one core, with limits that the bench does not reach. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { callApi } from '../../runtime/http-api.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { waitFor } from '../../test/lab/wait.ts';

/** In which all EIDs are. */
export const EID_SPACE = '10.0.0.0/8';

export class BenchMapServer {
  readonly dir: string;
  readonly port: number;
  private readonly child: ChildProcess;

  private constructor(dir: string, port: number, child: ChildProcess) {
    this.dir = dir;
    this.port = port;
    this.child = child;
  }

  static async start(dir: string): Promise<BenchMapServer> {
    const port = await freePort();
    const config = join(dir, 'mapserver.json');
    const most = 1_000_000_000;
    const settings = {
      dataDir: dir,
      listen: `127.0.0.1:${port}`,
      metricsListen: '',
      logLevel: 'error',
      lisp: {
        listen: [`127.0.0.1:${port}`],
        requesters: ['127.0.0.1/32'],
        messagesPerSecond: most,
        repliesPerSecond: most,
      },
      limits: {
        messagesPerSecond: most,
        registrationsPerSecond: most,
        octetsPerSecond: most,
        mappingsPerAgent: most,
        mappingsPerSite: most,
        mappings: most,
      },
    };
    writeFileSync(config, JSON.stringify(settings));
    const init = ['mapserver', 'init', '--data-dir', dir, '--overlay', EID_SPACE, '--host', '127.0.0.1'];
    execFileSync(process.execPath, [MAIN, ...init], { stdio: 'pipe' });
    const core = String(availableParallelism() - 1);
    const probed = ['--expose-gc', '--import', HEAP_PROBE, MAIN];
    const command = ['-c', core, process.execPath, ...probed, 'mapserver', 'run', '--config', config];
    const child = spawn('taskset', command, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    const server = new BenchMapServer(dir, port, child);
    try {
      await waitFor(
        'the map server runs',
        async () =>
          existsSync(join(dir, 'admin.sock')) && (await server.admin('GET', '/v1/status').catch(() => undefined)),
        { unless: () => (child.exitCode === null ? undefined : 'it ended at once') },
      );
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  admin(method: 'GET' | 'POST', path: string, body?: unknown): Promise<unknown> {
    const target = { socketPath: join(this.dir, 'admin.sock') };
    return callApi(target, method, path, body === undefined ? {} : { body });
  }

  /** Octets of the heap in use, without garbage: it is collected before. */
  async heap(): Promise<number> {
    const answer = once(this.child, 'message', { signal: AbortSignal.timeout(HEAP_PATIENCE) });
    this.child.send('heap');
    const [octets] = (await answer) as [number];
    return octets;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill('SIGTERM');
    await once(this.child, 'exit');
  }
}

/** Of UDP; that of TCP is as good as certainly free as well. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

const MAIN = join(PROJECT_ROOT, 'dist', 'cli', 'main.js');
const HEAP_PROBE = pathToFileURL(join(PROJECT_ROOT, 'dist', 'bench', 'mapserver', 'heap-probe.js')).href;
/** A collection of a large heap takes seconds. */
const HEAP_PATIENCE = 60_000;
