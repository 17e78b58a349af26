/** nebula: a CA, two certificates, and a static map of hosts instead of a lighthouse. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { INNER_MTU, type Link } from '../link.ts';
import type { Running, System } from './system.ts';

export const INTERFACE = 'nebula0';
export const PORT = 4242;

export interface NebulaPrograms {
  readonly nebula: string;
  readonly cert: string;
}

export function nebula(name: string, programs: NebulaPrograms, version: string, offloads: boolean): System {
  return { name, version, encrypted: true, start: (link) => startNebula(link, programs, offloads) };
}

async function startNebula(link: Link, programs: NebulaPrograms, offloads: boolean): Promise<Running> {
  const dir = join(link.lab.dir, 'nebula');
  mkdirSync(dir, { mode: 0o700 });
  const cert = (...args: readonly string[]) => link.a.host.exec([programs.cert, ...args]);
  const file = (name: string): string => join(dir, name);
  await cert('ca', '-name', 'bench', '-out-crt', file('ca.crt'), '-out-key', file('ca.key'));
  const processes = [];
  for (const end of link.ends) {
    const own = end.host.name;
    const ca = ['-ca-crt', file('ca.crt'), '-ca-key', file('ca.key')];
    // The older name of -networks, which newer versions know as well.
    const wanted = ['-name', own, '-ip', `${end.inner}/24`];
    await cert('sign', ...ca, ...wanted, '-out-crt', file(`${own}.crt`), '-out-key', file(`${own}.key`));
    const other = link.other(end);
    const config = {
      pki: { ca: file('ca.crt'), cert: file(`${own}.crt`), key: file(`${own}.key`) },
      static_host_map: { [other.inner]: [`${other.address}:${PORT}`] },
      lighthouse: { am_lighthouse: false, hosts: [] },
      listen: {
        host: '0.0.0.0',
        port: PORT,
        read_buffer: 10_485_760,
        write_buffer: 10_485_760,
        udp_offloads: offloads,
      },
      tun: { dev: INTERFACE, mtu: INNER_MTU, tx_queue: 1000, use_offloads: offloads },
      firewall: { outbound: [ANYTHING], inbound: [ANYTHING] },
      logging: { level: 'error' },
    };
    // JSON is YAML.
    writeFileSync(file(`${own}.yml`), JSON.stringify(config));
    processes.push(end.host.spawn('nebula', [programs.nebula, '-config', file(`${own}.yml`)]));
  }
  return {
    addressA: link.a.inner,
    addressB: link.b.inner,
    interface: INTERFACE,
    processesA: processes.slice(0, 1),
    processesB: processes.slice(1),
  };
}

export const ANYTHING = { port: 'any', proto: 'any', host: 'any' };
