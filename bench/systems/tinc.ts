/** tinc 1.0 as a router, with AES-256-CBC and SHA-256 instead of its older defaults. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type End, INNER_MTU, type Link, waitForInterface } from '../link.ts';
import type { Running, System } from './system.ts';

const INTERFACE = 'tinc0';

export function tinc(name: string, program: string, version: string): System {
  return { name, version, encrypted: true, start: (link) => startTinc(link, program) };
}

async function startTinc(link: Link, program: string): Promise<Running> {
  const dirs = new Map<End, string>(link.ends.map((end) => [end, join(link.lab.dir, `tinc-${end.host.name}`)]));
  const keys = new Map<End, string>();
  for (const [end, dir] of dirs) {
    const other = link.other(end);
    mkdirSync(join(dir, 'hosts'), { recursive: true, mode: 0o700 });
    const settings = [`Name = ${end.host.name}`, `ConnectTo = ${other.host.name}`, `Interface = ${INTERFACE}`];
    writeFileSync(join(dir, 'tinc.conf'), `${[...settings, 'DeviceType = tun', 'AddressFamily = ipv4'].join('\n')}\n`);
    // Without a terminal it takes the default names: rsa_key.priv, and the public key into the host's own file.
    await end.host.exec([program, '-c', dir, '-K2048'], { timeoutMs: 60_000 });
    keys.set(end, readFileSync(join(dir, 'hosts', end.host.name), 'utf8'));
  }
  for (const dir of dirs.values()) {
    for (const [end, key] of keys) {
      const settings = [
        `Address = ${end.address}`,
        `Subnet = ${end.inner}/32`,
        'Cipher = aes-256-cbc',
        'Digest = sha256',
      ];
      writeFileSync(join(dir, 'hosts', end.host.name), `${settings.join('\n')}\n${key}`);
    }
  }
  const processes = [];
  for (const [end, dir] of dirs) {
    const started = end.host.spawn('tinc', [program, '-c', dir, '-D', `--pidfile=${join(dir, 'pid')}`]);
    await started.waitUntil('its interface', () => waitForInterface(end.host, INTERFACE).then(() => true));
    await end.host.ip([
      `addr add ${end.inner}/24 dev ${INTERFACE}`,
      `link set ${INTERFACE} mtu ${INNER_MTU} txqueuelen 1000 up`,
    ]);
    processes.push(started);
  }
  return {
    addressA: link.a.inner,
    addressB: link.b.inner,
    interface: INTERFACE,
    processesA: processes.slice(0, 1),
    processesB: processes.slice(1),
  };
}
