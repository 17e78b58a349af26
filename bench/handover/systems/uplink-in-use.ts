/** Which of a host's uplinks carries the traffic at this moment. */
import type { Direction } from '../../../test/lab/internet.ts';
import type { Host } from '../../../test/lab/lab.ts';
import { pause } from '../../../test/lab/wait.ts';

export interface Uplinks {
  readonly host: Host;
  /** Interface → its address. */
  readonly addresses: ReadonlyMap<string, string>;
}

/** Long enough for some hundred packets of the probes. */
const LOOK_MS = 150;

/** The address of the interface that carries most packets in this direction. */
export async function uplinkInUse({ host, addresses }: Uplinks, direction: Direction): Promise<string> {
  const before = await packets(host, direction);
  await pause(LOOK_MS);
  const after = await packets(host, direction);
  const grown = [...addresses].map(([name, address]) => ({
    address,
    count: (after.get(name) ?? 0) - (before.get(name) ?? 0),
  }));
  return grown.reduce((most, each) => (each.count > most.count ? each : most)).address;
}

async function packets(host: Host, direction: Direction): Promise<ReadonlyMap<string, number>> {
  const { stdout } = await host.exec(['ip', '-s', '-j', 'link']);
  return new Map(
    (JSON.parse(stdout) as Link[]).map(({ ifname, stats64: { rx, tx } }) => [
      ifname,
      (direction === 'out' ? 0 : rx.packets) + (direction === 'in' ? 0 : tx.packets),
    ]),
  );
}

interface Link {
  readonly ifname: string;
  readonly stats64: { readonly rx: { readonly packets: number }; readonly tx: { readonly packets: number } };
}
