/** A data plane on a lab host without an agent: the test is its agent. */
import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import { pino } from 'pino';
import { DataplaneLink } from '../../agent/shell/dataplane-link.ts';
import { type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import type {
  CorrespondentsReply,
  DataplaneCommand,
  DataplaneEvent,
  StatsReply,
} from '../../proto/dataplane/messages.ts';
import type { InstanceId } from '../../proto/eid.ts';
import { parseTunnelKey } from '../../proto/identity.ts';
import type { TunnelKey } from '../../proto/mapping.ts';
import type { Host } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { waitFor } from '../lab/wait.ts';

export type EventOf<T extends DataplaneEvent['type']> = Extract<DataplaneEvent, { readonly type: T }>;

export class DataPlane {
  readonly publicKey: TunnelKey;
  readonly host: Host;
  readonly process: LabProcess;
  readonly events: DataplaneEvent[] = [];
  private readonly link: DataplaneLink;

  private constructor(host: Host, process: LabProcess, socket: string, publicKey: TunnelKey) {
    this.publicKey = publicKey;
    this.host = host;
    this.process = process;
    this.link = new DataplaneLink(
      socket,
      'test',
      { onHello: () => {}, onEvent: (event) => this.events.push(event), onLost: () => {} },
      pino({ level: 'silent' }),
    );
  }

  /** Configured for 10.77.0.0/16 and fd77::/48; `number` makes its key and its agent address, `wrapper` starts it. */
  static async start(host: Host, binary: string, number: number, wrapper: readonly string[] = []): Promise<DataPlane> {
    const socket = join(host.dir, 'dataplane.sock');
    const process = host.spawn('dataplane', [...wrapper, binary, '--socket', socket, '--log', 'debug']);
    const privateKey = Buffer.alloc(32, number);
    const dataplane = new DataPlane(host, process, socket, publicKeyOf(privateKey));
    dataplane.link.start();
    await waitFor('the data plane answers', () => dataplane.link.connected);
    dataplane.tell({
      type: 'configure',
      privateKey: privateKey.toString('base64'),
      presharedKey: Buffer.alloc(32, 9).toString('base64'),
      epoch: Date.now(),
      instance: 7 as InstanceId,
      agentAddress: parseIpAddress(`fd53:7461:7970:7574::${number}`),
      listenPort: 4341,
      mtu: 1420,
      overlay: [parseIpPrefix('10.77.0.0/16'), parseIpPrefix('fd77::/48')],
    });
    await dataplane.done();
    return dataplane;
  }

  /** Makes another one known, which is at this address of the underlay. */
  meet(other: DataPlane, address: string): void {
    const locator = { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
    this.tell({ type: 'peer-set', publicKey: other.publicKey, locators: [locator] });
  }

  tell(command: DataplaneCommand): void {
    this.link.send(command);
  }

  /** Everything told so far has been carried out. */
  async done(): Promise<StatsReply> {
    return await this.link.stats();
  }

  async correspondents(prefix: IpPrefix): Promise<CorrespondentsReply> {
    return await this.link.correspondents(prefix);
  }

  /** The next event of a kind that fits, from those that came since the last call. */
  event<T extends DataplaneEvent['type']>(
    type: T,
    fits: (event: EventOf<T>) => boolean = () => true,
  ): Promise<EventOf<T>> {
    return waitFor(`the event ${type}`, () => {
      const at = this.events.findIndex((event) => event.type === type && fits(event as EventOf<T>));
      if (at === -1) return undefined;
      const [found] = this.events.splice(0, at + 1).slice(-1);
      return found as EventOf<T>;
    });
  }

  close(): void {
    this.link.close();
  }
}

function publicKeyOf(privateKey: Buffer): TunnelKey {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), privateKey]);
  const { x } = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }).export({ format: 'jwk' });
  return parseTunnelKey(Buffer.from(x ?? '', 'base64url').toString('base64'));
}
