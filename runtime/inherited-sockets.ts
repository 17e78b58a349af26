/**
 * Sockets that another process has opened for this one, as systemd hands them over to a service (sd_listen_fds(3)):
 * file descriptors from 3 on, as many as LISTEN_FDS says, for the process that LISTEN_PID names. The other process keeps
 * them as well, so what arrives while this one is started again waits in them.
 *
 * Node does not say what a descriptor is, so it is looked up by its inode in the kernel's tables of sockets.
 */
import { fstatSync, readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { type IpAddress, ipFromBytes, parseIpAddress } from '../proto/address.ts';
import { DecodeError } from '../proto/errors.ts';
import { formatHostPort } from './host-port.ts';

export type SocketTransport = 'udp' | 'tcp';

interface Inherited {
  readonly fd: number;
  readonly transport: SocketTransport;
  readonly address: IpAddress;
  readonly port: number;
}

export class InheritedSockets {
  readonly #sockets: Inherited[];

  constructor(sockets: readonly Inherited[]) {
    this.#sockets = [...sockets];
  }

  /** The descriptor of a listening TCP socket or a bound UDP socket with exactly this address, to use once. */
  take(transport: SocketTransport, host: string, port: number): number | undefined {
    const address = canonical(host);
    const index = this.#sockets.findIndex(
      (each) => each.transport === transport && each.address === address && each.port === port,
    );
    return index === -1 ? undefined : this.#sockets.splice(index, 1)[0]?.fd;
  }

  /** `HOST:PORT/TRANSPORT` of those that nobody has taken. */
  get unused(): readonly string[] {
    return this.#sockets.map(({ address, port, transport }) => `${formatHostPort(address, port)}/${transport}`);
  }
}

/** Takes them out of the environment, so that no child takes them for its own. */
export function inheritedSockets(env = process.env, pid = process.pid): InheritedSockets {
  const { LISTEN_PID, LISTEN_FDS } = env;
  delete env.LISTEN_PID;
  delete env.LISTEN_FDS;
  delete env.LISTEN_FDNAMES;
  const count = Number(LISTEN_FDS);
  if (Number(LISTEN_PID) !== pid || !Number.isInteger(count) || count < 1 || count > MAX_SOCKETS) {
    return new InheritedSockets([]);
  }
  const known = new Map(TABLES.flatMap((table) => readTable(table)).map((socket) => [socket.inode, socket]));
  const fds = Array.from({ length: count }, (_, i) => FIRST_FD + i);
  return new InheritedSockets(
    fds.flatMap((fd) => {
      const socket = known.get(inodeOf(fd));
      return socket === undefined ? [] : [{ ...socket, fd }];
    }),
  );
}

interface Table {
  readonly file: string;
  readonly transport: SocketTransport;
}

type Row = Omit<Inherited, 'fd'> & { readonly inode: string };

function readTable({ file, transport }: Table): Row[] {
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch {
    // A kernel without IPv6.
    return [];
  }
  return parseSocketTable(text, transport);
}

/** The rows of /proc/net/udp, tcp and their likes for IPv6 that listen (proc_pid_net(5)). */
export function parseSocketTable(text: string, transport: SocketTransport, order = endianness()): Row[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): Row[] => {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      if (local === undefined || inode === undefined || (transport === 'tcp' && state !== TCP_LISTEN)) return [];
      const [host = '', port = ''] = local.split(':');
      return [{ transport, inode, address: ipFromBytes(hostBytes(host, order)), port: Number.parseInt(port, 16) }];
    });
}

/** The kernel prints the address as 32-bit numbers of this machine. */
function hostBytes(hex: string, order: 'BE' | 'LE'): Uint8Array {
  const bytes = Buffer.from(hex, 'hex');
  return order === 'LE' ? bytes.swap32() : bytes;
}

function inodeOf(fd: number): string {
  try {
    return String(fstatSync(fd).ino);
  } catch {
    return '';
  }
}

/** Null for the name of a host. */
function canonical(host: string): IpAddress | null {
  try {
    return parseIpAddress(host);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

const FIRST_FD = 3;
const MAX_SOCKETS = 64;
const TCP_LISTEN = '0A';
const TABLES: readonly Table[] = [
  { file: '/proc/self/net/udp', transport: 'udp' },
  { file: '/proc/self/net/udp6', transport: 'udp' },
  { file: '/proc/self/net/tcp', transport: 'tcp' },
  { file: '/proc/self/net/tcp6', transport: 'tcp' },
];
