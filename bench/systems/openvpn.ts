/** OpenVPN between two points: TLS with self-signed certificates, each known to the other by its fingerprint. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { INNER_MTU, type Link } from '../link.ts';
import type { Running, System } from './system.ts';

const INTERFACE = 'ovpn0';
const PORT = '1194';

export function openvpn(name: string, program: string, openssl: string, version: string): System {
  return { name, version, encrypted: true, start: (link) => startOpenvpn(link, program, openssl) };
}

async function startOpenvpn(link: Link, program: string, openssl: string): Promise<Running> {
  const dir = join(link.lab.dir, 'openvpn');
  mkdirSync(dir, { mode: 0o700 });
  const file = (name: string): string => join(dir, name);
  const fingerprints = new Map<string, string>();
  for (const { host } of link.ends) {
    const [key, certificate] = [file(`${host.name}.key`), file(`${host.name}.crt`)];
    await host.exec([
      ...[openssl, 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', key, '-out', certificate, '-days', '2', '-subj', `/CN=${host.name}`],
    ]);
    const { stdout } = await host.exec([openssl, 'x509', '-in', certificate, '-noout', '-fingerprint', '-sha256']);
    fingerprints.set(host.name, stdout.trim().replace(/^.*=/, ''));
  }
  const processes = link.ends.map((end) => {
    const other = link.other(end);
    const role = end === link.a ? ['--tls-server', '--dh', 'none'] : ['--tls-client'];
    return end.host.spawn('openvpn', [
      ...[program, '--dev', INTERFACE, '--dev-type', 'tun', '--proto', 'udp4', '--port', PORT, '--verb', '1'],
      ...['--local', end.address, '--remote', other.address, '--ifconfig', end.inner, other.inner],
      ...[...role, '--cert', file(`${end.host.name}.crt`), '--key', file(`${end.host.name}.key`)],
      ...['--peer-fingerprint', fingerprints.get(other.host.name) ?? '', '--data-ciphers', 'AES-256-GCM'],
      ...['--tun-mtu', String(INNER_MTU), '--mssfix', '0', '--txqueuelen', '1000'],
    ]);
  });
  return {
    addressA: link.a.inner,
    addressB: link.b.inner,
    interface: INTERFACE,
    processesA: processes.slice(0, 1),
    processesB: processes.slice(1),
  };
}
