/** nebula with a lighthouse, as its example configuration has it: holes punched, everything else at its defaults. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Attachment, Direction } from '../../../test/lab/internet.ts';
import type { LabProcess } from '../../../test/lab/lab-process.ts';
import { pause } from '../../../test/lab/wait.ts';
import { ANYTHING, INTERFACE, type NebulaPrograms, PORT } from '../../systems/nebula.ts';
import { concernsMany, type EventName, type EventTimes } from '../events.ts';
import { INNER_MTU, type Underlay } from '../underlay.ts';
import { type HandoverSystem, NO_CROWD, now, type Scene, type Staged } from './system.ts';
import { type Uplinks, uplinkInUse } from './uplink-in-use.ts';

const LIGHTHOUSE = '10.77.0.254';
const PEER = '10.77.0.1';
const VM = '10.77.0.10';
const DUAL = '10.77.0.11';
const LIGHTHOUSE_DEAD_MS = 1_000;

export function nebula(name: string, programs: NebulaPrograms, version: string): HandoverSystem {
  return {
    name,
    version,
    lacks: (event) => {
      if (event === 'move') return 'an address belongs to a certificate: it cannot be taken over by another host';
      return concernsMany(event) ? NO_CROWD : undefined;
    },
    sameAs: (event) => (event === 'agent-restart' ? 'dataplane-restart' : undefined),
    start: (underlay) => NebulaScene.build(underlay, programs),
  };
}

interface Member {
  readonly at: Attachment;
  readonly inner: string;
  readonly config: string;
  process: LabProcess;
}

class NebulaScene implements Scene {
  private readonly underlay: Underlay;
  private readonly program: string;
  private readonly members: Readonly<Record<'lighthouse' | 'peer' | 'vm' | 'dual', Member>>;
  private readonly uplinks: Uplinks;

  private constructor(underlay: Underlay, program: string, members: NebulaScene['members'], uplinks: Uplinks) {
    this.underlay = underlay;
    this.program = program;
    this.members = members;
    this.uplinks = uplinks;
  }

  static async build(underlay: Underlay, programs: NebulaPrograms): Promise<NebulaScene> {
    const { internet, lab } = underlay;
    const dir = join(lab.dir, 'nebula');
    mkdirSync(dir, { mode: 0o700 });
    const file = (name: string): string => join(dir, name);
    const beacon = await internet.attach('lighthouse', 'd');
    const cert = (...args: readonly string[]) => beacon.host.exec([programs.cert, ...args]);
    await cert('ca', '-name', 'bench', '-out-crt', file('ca.crt'), '-out-key', file('ca.key'));
    const member = async (at: Attachment, inner: string): Promise<Member> => {
      const { name } = at.host;
      const ca = ['-ca-crt', file('ca.crt'), '-ca-key', file('ca.key')];
      const wanted = ['-name', name, '-ip', `${inner}/24`];
      await cert('sign', ...ca, ...wanted, '-out-crt', file(`${name}.crt`), '-out-key', file(`${name}.key`));
      const config = file(`${name}.yml`);
      const isLighthouse = inner === LIGHTHOUSE;
      // JSON is YAML.
      const settings = {
        pki: { ca: file('ca.crt'), cert: file(`${name}.crt`), key: file(`${name}.key`) },
        static_host_map: isLighthouse ? {} : { [LIGHTHOUSE]: [`${beacon.address4}:${PORT}`] },
        lighthouse: { am_lighthouse: isLighthouse, hosts: isLighthouse ? [] : [LIGHTHOUSE] },
        listen: { host: '0.0.0.0', port: PORT },
        punchy: { punch: true },
        tun: { dev: INTERFACE, mtu: INNER_MTU },
        firewall: { outbound: [ANYTHING], inbound: [ANYTHING] },
        logging: { level: 'error' },
      };
      writeFileSync(config, JSON.stringify(settings));
      return { at, inner, config, process: at.host.spawn('nebula', [programs.nebula, '-config', config]) };
    };
    const lighthouse = await member(beacon, LIGHTHOUSE);
    const peer = await member(await internet.attach('peer', 'c'), PEER);
    const vm = await member(await internet.attach('vm', 'a'), VM);
    const at = await internet.attach('dual', 'a');
    const second = await internet.addUplink(at, 'b');
    const dual = await member(at, DUAL);
    const addresses = new Map([
      [at.plug.interface, at.address4],
      [second.interface, second.address4],
    ]);
    return new NebulaScene(underlay, programs.nebula, { lighthouse, peer, vm, dual }, { host: at.host, addresses });
  }

  async stage(event: EventName): Promise<Staged> {
    const { lighthouse, vm } = this.members;
    switch (event) {
      case 'roam':
        return this.staged(vm, this.underlay.prepareRoam(vm.at));
      case 'roam-map-server-down': {
        const roam = this.underlay.prepareRoam(vm.at);
        const happen = async (): Promise<EventTimes> => {
          await lighthouse.process.kill9();
          await pause(LIGHTHOUSE_DEAD_MS);
          return await roam();
        };
        return this.staged(vm, happen, async () => this.launch(lighthouse));
      }
      case 'locator-loss':
        return this.stageSilence('both');
      case 'locator-loss-in':
        return this.stageSilence('in');
      case 'locator-loss-out':
        return this.stageSilence('out');
      default:
        return this.staged(vm, async () => {
          const begun = now();
          await vm.process.kill9();
          this.launch(vm);
          return { begun, counted: begun };
        });
    }
  }

  private staged(mover: Member, happen: () => Promise<EventTimes>, restore = async (): Promise<void> => {}): Staged {
    return {
      mover: { host: mover.at.host, address: mover.inner },
      peer: { host: this.members.peer.at.host, address: PEER },
      happen,
      restore,
    };
  }

  private stageSilence(direction: Direction): Staged {
    let end = async (): Promise<void> => {};
    const happen = async (): Promise<EventTimes> => {
      const silence = this.underlay.internet.prepareSilence(await uplinkInUse(this.uplinks, direction), direction);
      end = silence.end;
      const begun = now();
      await silence.begin();
      return { begun, counted: begun };
    };
    return this.staged(this.members.dual, happen, () => end());
  }

  private launch(member: Member): void {
    member.process = member.at.host.spawn('nebula', [this.program, '-config', member.config]);
  }
}
