/** NSD, an ordinary name server, as secondary of zones on this machine, without rights and with all files in one folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import { LabError } from './lab-error.ts';

export interface NsdZones {
  readonly names: readonly string[];
  /** HOST:PORT of the primary. */
  readonly primary: string;
  readonly key: { readonly name: string; readonly algorithm: string; readonly secret: string };
}

export class Nsd {
  readonly port: number;
  private readonly dir = mkdtempSync(join(tmpdir(), 'stayput-nsd-'));
  private process: ChildProcess | undefined;

  /** It is not started yet, since its primary may have to know its port first. */
  constructor(port: number) {
    this.port = port;
  }

  start({ names, primary, key }: NsdZones): void {
    const [host, port] = primary.split(':');
    const zones = names.map(
      (name) => `zone:
  name: ${name}
  zonefile: ${name}.zone
  request-xfr: ${host}@${port} ${key.name}
  allow-notify: ${host} ${key.name}
`,
    );
    const file = join(this.dir, 'nsd.conf');
    writeFileSync(
      file,
      `server:
  ip-address: 127.0.0.1
  port: ${this.port}
  username: ""
  chroot: ""
  database: ""
  server-count: 1
  xfrd-reload-timeout: 0
  zonesdir: ${this.dir}
  pidfile: ${this.dir}/nsd.pid
  xfrdfile: ${this.dir}/xfrd.state
  xfrdir: ${this.dir}
  zonelistfile: ${this.dir}/zone.list
  logfile: ${this.dir}/log
  verbosity: 2
remote-control:
  control-enable: no
key:
  name: ${key.name}
  algorithm: ${key.algorithm}
  secret: "${key.secret}"
${zones.join('')}`,
    );
    const program = findProgram('nsd');
    if (program === undefined) throw new LabError('nsd not found: apt-get install -y nsd');
    this.process = spawn(program, ['-d', '-c', file], { stdio: 'ignore' });
  }

  log(): string {
    return readFileSync(join(this.dir, 'log'), 'utf8');
  }

  async close(): Promise<void> {
    const { process: child } = this;
    if (child !== undefined && child.exitCode === null) {
      await new Promise((resolve) => {
        child.once('exit', resolve);
        child.kill('SIGTERM');
      });
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (typeof address !== 'object' || address === null) throw new LabError('no free port');
  return address.port;
}
