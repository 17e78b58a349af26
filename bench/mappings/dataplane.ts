/** A data plane on a lab host whose tables the bench fills. */
import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import {
  hostPrefix,
  type IpPrefix,
  ipFromBytes,
  ipToBytes,
  parseIpAddress,
  parseIpPrefix,
  prefixAddress,
} from '../../proto/address.ts';
import type { InstanceId } from '../../proto/eid.ts';
import { parseTunnelKey, tunnelKeyFromBytes } from '../../proto/identity.ts';
import type { Generation, TunnelKey } from '../../proto/mapping.ts';
import type { LabProcess } from '../../test/lab/lab-process.ts';
import { waitFor } from '../../test/lab/wait.ts';
import { type End, INNER_MTU } from '../link.ts';
import { Channel } from './channel.ts';

/** The EIDs that the receiver has, and that traffic goes to. */
export const SERVED = parseIpPrefix('10.128.0.0/9');
/** The sender's. */
export const SENDING = parseIpPrefix('10.64.0.0/11');
/** Those of other peers, to which nothing is sent. */
const OTHERS = parseIpPrefix('10.96.0.0/11');
const OTHER_HOSTS = parseIpPrefix('198.18.0.0/15');
const GENERATION = 1 as Generation;

export class LoadedDataplane {
  readonly publicKey: TunnelKey;
  readonly process: LabProcess;
  private readonly channel: Channel;
  private readonly end: End;

  private constructor(end: End, process: LabProcess, channel: Channel, publicKey: TunnelKey) {
    this.end = end;
    this.process = process;
    this.channel = channel;
    this.publicKey = publicKey;
  }

  /** `number` makes its key and its agent address. */
  static async start(end: End, binary: string, number: number): Promise<LoadedDataplane> {
    const socket = join(end.host.dir, 'dataplane.sock');
    const process = end.host.spawn('dataplane', [binary, '--socket', socket, '--log', 'warn']);
    const channel = await waitFor('the data plane answers', () => Channel.open(socket));
    const privateKey = Buffer.alloc(32, number);
    await channel.ask({
      type: 'configure',
      privateKey: privateKey.toString('base64'),
      presharedKey: Buffer.alloc(32, 9).toString('base64'),
      epoch: 1,
      instance: 7 as InstanceId,
      agentAddress: parseIpAddress(`fd53:7461:7970:7574::${number}`),
      listenPort: 4341,
      mtu: INNER_MTU,
      overlay: [SENDING, OTHERS, SERVED],
    });
    return new LoadedDataplane(end, process, channel, publicKeyOf(privateKey));
  }

  async owns(prefix: IpPrefix): Promise<void> {
    const eid = { prefix, generation: GENERATION, interface: null, redirectFrom: null };
    await this.channel.ask({ type: 'local-eid-set', ...eid });
  }

  async meets(other: LoadedDataplane): Promise<void> {
    await this.peer(other.publicKey, other.end.address);
  }

  /** One mapping for each of the first addresses behind `prefix`'s. */
  async maps(prefix: IpPrefix, count: number, other: LoadedDataplane): Promise<void> {
    const first = number(prefix);
    for (let i = 0; i < count; i += 1) await this.mapping(first + i, other.publicKey);
    await this.channel.settled();
  }

  /** So many peers that are known and not spoken to, each with a mapping. */
  async meetsOthers(count: number): Promise<void> {
    const [first, addresses] = [number(OTHERS), number(OTHER_HOSTS)];
    for (let i = 0; i < count; i += 1) {
      const key = tunnelKeyFromBytes(Buffer.alloc(32, octets(i + 1)));
      await this.peer(key, ipFromBytes(octets(addresses + i)));
      await this.mapping(first + i, key);
    }
    await this.channel.settled();
  }

  /** One of the data plane's counters. */
  async counted(name: string): Promise<number> {
    const stats = (await this.channel.ask({ type: 'stats' })) as {
      readonly counters: Readonly<Record<string, number>>;
    };
    return stats.counters[name] ?? Number.NaN;
  }

  close(): void {
    this.channel.close();
  }

  private async mapping(address: number, publicKey: TunnelKey): Promise<void> {
    const prefix = hostPrefix(ipFromBytes(octets(address)));
    await this.channel.tell({ type: 'mapping-set', prefix, generation: GENERATION, action: 'forward', publicKey });
  }

  private async peer(publicKey: TunnelKey, address: string): Promise<void> {
    const locator = { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
    await this.channel.tell({ type: 'peer-set', publicKey, locators: [locator] });
  }
}

/** The first address of an IPv4 prefix. */
function number(prefix: IpPrefix): number {
  return Buffer.from(ipToBytes(prefixAddress(prefix))).readUInt32BE();
}

function octets(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

function publicKeyOf(privateKey: Buffer): TunnelKey {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), privateKey]);
  const { x } = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }).export({ format: 'jwk' });
  return parseTunnelKey(Buffer.from(x ?? '', 'base64url').toString('base64'));
}
