/** wireguard-go, configured through its UAPI socket. */
import { generateKeyPairSync } from 'node:crypto';
import { connect } from 'node:net';
import type { Host } from '../../test/lab/lab.ts';
import type { LabProcess } from '../../test/lab/lab-process.ts';
import { BenchError } from '../bench-error.ts';
import { type End, INNER_MTU, type Link, waitForInterface } from '../link.ts';
import type { Running, System } from './system.ts';

export const INTERFACE = 'wg0';
export const PORT = 51820;
const ANSWER_MS = 5_000;

export function wireguard(name: string, program: string, version: string): System {
  return { name, version, encrypted: true, start: (link) => startWireguard(link, program) };
}

async function startWireguard(link: Link, program: string): Promise<Running> {
  const keys = new Map<End, KeyPair>(link.ends.map((end) => [end, newKeyPair()]));
  const processes = await Promise.all(link.ends.map((end) => startWireguardProcess(end.host, program)));
  for (const [i, end] of link.ends.entries()) {
    const other = link.other(end);
    const [own, theirs] = [keys.get(end), keys.get(other)];
    const process = processes[i];
    if (own === undefined || theirs === undefined || process === undefined) throw new BenchError('an end is missing');
    await configureWireguard(process, [
      'set=1',
      `private_key=${own.private}`,
      `listen_port=${PORT}`,
      'replace_peers=true',
      `public_key=${theirs.public}`,
      `endpoint=${other.address}:${PORT}`,
      'replace_allowed_ips=true',
      `allowed_ip=${other.inner}/32`,
    ]);
    await end.host.ip([`addr add ${end.inner}/24 dev ${INTERFACE}`, `link set ${INTERFACE} mtu ${INNER_MTU} up`]);
  }
  return {
    addressA: link.a.inner,
    addressB: link.b.inner,
    interface: INTERFACE,
    processesA: processes.slice(0, 1),
    processesB: processes.slice(1),
  };
}

/** A process with its interface, not configured yet. */
export async function startWireguardProcess(host: Host, program: string): Promise<LabProcess> {
  // Its socket is /var/run/wireguard/wg0.sock whatever the namespace: a /run of its own keeps the two apart.
  const started = host.spawn(
    'wireguard-go',
    ['sh', '-ec', 'mount -t tmpfs tmpfs /run; exec "$@"', 'sh', program, '-f', INTERFACE],
    { LOG_LEVEL: 'error', WG_PROCESS_FOREGROUND: '1' },
  );
  await started.waitUntil('its interface', () => waitForInterface(host, INTERFACE).then(() => true));
  return started;
}

/** Over the UAPI. Repeats the connection while the socket is not there yet. */
export async function configureWireguard(process: LabProcess, lines: readonly string[]): Promise<void> {
  const path = `/proc/${process.pid}/root/run/wireguard/${INTERFACE}.sock`;
  const answer = await process.waitUntil('an answer on its UAPI socket', () => ask(path, `${lines.join('\n')}\n\n`));
  if (!/^errno=0$/m.test(answer)) throw new BenchError(`${process.name} refused its configuration: ${answer.trim()}`);
}

function ask(path: string, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let answer = '';
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new BenchError('no answer on the UAPI socket')));
    socket.once('connect', () => socket.write(request));
    socket.on('data', (chunk: Buffer) => {
      answer = (answer + chunk.toString('utf8')).slice(-2000);
      if (answer.endsWith('\n\n')) {
        socket.end();
        resolve(answer);
      }
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new BenchError('the UAPI socket was closed')));
  });
}

export interface KeyPair {
  /** 64 hex digits each, as the UAPI wants them. */
  readonly private: string;
  readonly public: string;
}

export function newKeyPair(): KeyPair {
  const jwk = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  const hex = (text: string | undefined): string => Buffer.from(text ?? '', 'base64url').toString('hex');
  return { private: hex(jwk.d), public: hex(jwk.x) };
}
