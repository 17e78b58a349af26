/** A LISP site as others build them: plain encapsulation by the program in `plain-xtr/`, without a word of Stayput. */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureCrateBuilt } from '../../runtime/crate-build.ts';
import type { Host } from './lab.ts';
import type { LabProcess } from './lab-process.ts';

const CRATE = { folder: 'test/lab/plain-xtr', binary: 'plain-xtr', what: 'the plain LISP site' };

export interface PlainSiteOptions {
  readonly instance: number;
  /** An address of the host. */
  readonly rloc: string;
  /** Put on its TUN. */
  readonly eids: readonly string[];
  /** Routed into its TUN. */
  readonly routes: readonly string[];
  /** The first octet of the LISP header, besides I. */
  readonly flags?: number;
}

export class PlainSite {
  readonly process: LabProcess;
  private readonly fifo: string;

  private constructor(process: LabProcess, fifo: string) {
    this.process = process;
    this.fifo = fifo;
  }

  static async start(host: Host, options: PlainSiteOptions): Promise<PlainSite> {
    const binary = await ensureCrateBuilt(CRATE, () => {});
    const name = `site${options.rloc.replace(/[^0-9a-f]/g, '').slice(-6)}`;
    const fifo = join(host.dir, `${name}.map`);
    execFileSync('mkfifo', [fifo]);
    const argv = [binary, name, String(options.instance), options.rloc, fifo];
    const process = host.spawn('plain-xtr', argv, { ENCAP_FLAGS: (options.flags ?? 0).toString(16) });
    await process.waitUntil('the site is ready', () => process.output().includes('ready'));
    await host.ip([
      ...options.eids.map((eid) => `addr add ${eid} dev ${name}${eid.includes(':') ? ' nodad' : ''}`),
      `link set ${name} mtu 1400 up`,
      ...options.routes.map((prefix) => `route add ${prefix} dev ${name}`),
    ]);
    return new PlainSite(process, fifo);
  }

  /** Null: no longer anywhere. */
  map(prefix: string, rloc: string | null): void {
    appendFileSync(this.fifo, `${prefix} ${rloc ?? '-'}\n`);
  }

  /** Whether a packet of this inner source came from that RLOC. */
  heard(rloc: string, source: string): boolean {
    return this.process.output().includes(`from ${rloc} ${source}\n`);
  }
}
