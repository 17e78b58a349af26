/** wireguard-go as a user sets it up: endpoints of both ends known at first, the mover with a keepalive of 25 s. */
import type { Attachment } from '../../../test/lab/internet.ts';
import type { LabProcess } from '../../../test/lab/lab-process.ts';
import {
  configureWireguard,
  INTERFACE,
  type KeyPair,
  newKeyPair,
  PORT,
  startWireguardProcess,
} from '../../systems/wireguard.ts';
import type { EventName, EventTimes } from '../events.ts';
import { INNER_MTU, type Underlay } from '../underlay.ts';
import { type HandoverSystem, NO_CROWD, now, type Scene, type Staged } from './system.ts';

const PEER = '10.77.0.1';
const MOVER = '10.77.0.10';
const KEEPALIVE_SECONDS = 25;

export function wireguard(name: string, program: string, version: string): HandoverSystem {
  return {
    name,
    version,
    lacks,
    sameAs: (event) => (event === 'agent-restart' ? 'dataplane-restart' : undefined),
    start: (underlay) => WireguardScene.build(underlay, program),
  };
}

function lacks(event: EventName): string | undefined {
  switch (event) {
    case 'move':
      return 'an address belongs to a key in the configuration of every peer: an administrator has to change them all';
    case 'locator-loss':
    case 'locator-loss-in':
    case 'locator-loss-out':
      return 'one endpoint for each peer: a second uplink is not used by itself';
    case 'roam-map-server-down':
      return 'no map server or anything alike: as roam';
    case 'roam-1000':
    case 'move-1000':
      return NO_CROWD;
    default:
      return undefined;
  }
}

interface End {
  readonly at: Attachment;
  readonly inner: string;
  readonly keys: KeyPair;
  process: LabProcess;
}

class WireguardScene implements Scene {
  private readonly underlay: Underlay;
  private readonly program: string;
  private readonly mover: End;
  private readonly peer: End;

  private constructor(underlay: Underlay, program: string, mover: End, peer: End) {
    this.underlay = underlay;
    this.program = program;
    this.mover = mover;
    this.peer = peer;
  }

  static async build(underlay: Underlay, program: string): Promise<WireguardScene> {
    const end = async (name: string, cloud: string, inner: string): Promise<End> => {
      const at = await underlay.internet.attach(name, cloud);
      return { at, inner, keys: newKeyPair(), process: await startWireguardProcess(at.host, program) };
    };
    const scene = new WireguardScene(underlay, program, await end('vm', 'a', MOVER), await end('peer', 'c', PEER));
    await scene.furnish(scene.mover, scene.peer, [`persistent_keepalive_interval=${KEEPALIVE_SECONDS}`]);
    await scene.furnish(scene.peer, scene.mover, []);
    return scene;
  }

  async stage(event: EventName): Promise<Staged> {
    const parties = {
      mover: { host: this.mover.at.host, address: MOVER },
      peer: { host: this.peer.at.host, address: PEER },
      restore: async () => {},
    };
    if (event === 'roam') return { ...parties, happen: this.underlay.prepareRoam(this.mover.at) };
    return { ...parties, happen: () => this.restart() };
  }

  /** As a service that is restarted: the interface has gone with the process and is set up again. */
  private async restart(): Promise<EventTimes> {
    const begun = now();
    await this.mover.process.kill9();
    this.mover.process = await startWireguardProcess(this.mover.at.host, this.program);
    await this.furnish(this.mover, this.peer, [`persistent_keepalive_interval=${KEEPALIVE_SECONDS}`]);
    return { begun, counted: begun };
  }

  private async furnish(own: End, other: End, more: readonly string[]): Promise<void> {
    await configureWireguard(own.process, [
      'set=1',
      `private_key=${own.keys.private}`,
      `listen_port=${PORT}`,
      'replace_peers=true',
      `public_key=${other.keys.public}`,
      `endpoint=${other.at.address4}:${PORT}`,
      'replace_allowed_ips=true',
      `allowed_ip=${other.inner}/32`,
      ...more,
    ]);
    await own.at.host.ip([`addr add ${own.inner}/24 dev ${INTERFACE}`, `link set ${INTERFACE} mtu ${INNER_MTU} up`]);
  }
}
