/** A cable that takes time and loses frames, by the program in `delay-link/`: many kernels have no netem. */
import { ensureCrateBuilt } from '../../runtime/crate-build.ts';
import type { Host } from './lab.ts';

export interface CableOptions {
  /** One way. */
  readonly delayMs: number;
  /** Share of frames lost in each direction, 0 to 1. */
  readonly loss?: number;
}

const CRATE = { folder: 'test/lab/delay-link', binary: 'delay-link', what: 'the delaying cable' };

/** A cable between two hosts, like `Lab.cable`. Both ends are up. */
export async function delayedCable(
  a: Host,
  interfaceA: string,
  b: Host,
  interfaceB: string,
  options: CableOptions,
): Promise<void> {
  const binary = await ensureCrateBuilt(CRATE, () => {});
  const end = (host: Host, name: string): string => `/run/netns/${host.namespace}=${name}`;
  const delayUs = String(Math.round(options.delayMs * 1000));
  const lossPpm = String(Math.round((options.loss ?? 0) * 1_000_000));
  const link = b.spawn('delay-link', [binary, end(a, interfaceA), end(b, interfaceB), delayUs, lossPpm]);
  await link.waitUntil('ready', () => link.output().includes('ready'));
  await a.ip([`link set ${interfaceA} up`]);
  await b.ip([`link set ${interfaceB} up`]);
}
