/** Stayput: a map server, a peer, a mover for roams, one with two uplinks, and two hosts with a workload. */
import { VERSION } from '../../../runtime/project-root.ts';
import type { Direction } from '../../../test/lab/internet.ts';
import type { Host } from '../../../test/lab/lab.ts';
import { type Agent, type JoinOptions, Overlay } from '../../../test/lab/overlay.ts';
import { pause, waitFor } from '../../../test/lab/wait.ts';
import { Correspondents } from '../correspondents.ts';
import type { EventName, EventTimes } from '../events.ts';
import type { Party } from '../probing.ts';
import { INNER_MTU, type Underlay } from '../underlay.ts';
import { type HandoverSystem, now, type Scene, type Staged, type Witnesses } from './system.ts';
import { type Uplinks, uplinkInUse } from './uplink-in-use.ts';

const PEER = '10.77.0.1';
const VM = '10.77.0.10';
const DUAL = '10.77.0.11';
const WORKLOAD = '10.77.0.20';
const WORKLOAD_PORT = 'wl-db';
/** So long the map server is dead before the roam. */
const MAP_SERVER_DEAD_MS = 1_000;

export interface StayputPrograms {
  readonly dataplane: string;
  readonly correspondents: string;
}

export function stayput(programs: StayputPrograms): HandoverSystem {
  return {
    name: 'stayput',
    version: VERSION,
    lacks: () => undefined,
    sameAs: () => undefined,
    start: (underlay) => StayputScene.build(underlay, programs),
  };
}

class StayputScene implements Scene {
  private readonly underlay: Underlay;
  private readonly programs: StayputPrograms;
  private readonly overlay: Overlay;
  private readonly peer: Agent;
  private readonly vm: Agent;
  private dual: { readonly agent: Agent; readonly uplinks: Uplinks } | undefined;
  private crowd: Correspondents | undefined;
  private moving: { readonly workload: Host; here: Agent; there: Agent } | undefined;

  private constructor(underlay: Underlay, programs: StayputPrograms, overlay: Overlay, peer: Agent, vm: Agent) {
    this.underlay = underlay;
    this.programs = programs;
    this.overlay = overlay;
    this.peer = peer;
    this.vm = vm;
  }

  static async build(underlay: Underlay, programs: StayputPrograms): Promise<StayputScene> {
    const { internet } = underlay;
    const server = await internet.attach('mapserver', 'd');
    const overlay = await Overlay.start(server, {
      dataplane: programs.dataplane,
      prefixes: ['10.77.0.0/16'],
      // The correspondents enrol all at once, and have no session afterwards.
      mapServerConfig: {
        logLevel: 'debug',
        graceSeconds: 86_400,
        limits: { enrolmentsPerSecond: 2_000, enrolmentsPerSecondAndSource: 2_000 },
      },
    });
    const [peer, vm] = await Promise.all([
      internet.attach('peer', 'c').then((at) => overlay.join(at, joining(PEER))),
      internet.attach('vm', 'a').then((at) => overlay.join(at, joining(VM))),
    ]);
    return new StayputScene(underlay, programs, overlay, peer, vm);
  }

  async stage(event: EventName): Promise<Staged> {
    const vm: Party = { host: this.vm.host, address: VM };
    switch (event) {
      case 'roam':
        return this.staged(vm, [this.vm], this.underlay.prepareRoam(this.vm.at), () => this.vm.ready());
      case 'roam-map-server-down':
        return await this.stageRoamWithoutMapServer(vm);
      case 'move':
        return await this.stageMove();
      case 'agent-restart':
        return this.staged(
          vm,
          [this.vm],
          () => this.restartAgents(),
          async () => {
            await Promise.all([this.vm.ready(), this.peer.ready()]);
          },
        );
      case 'dataplane-restart':
        return this.staged(
          vm,
          [this.vm],
          () => this.restartDataplane(),
          () => this.vm.ready(),
        );
      case 'locator-loss':
        return await this.stageSilence('both');
      case 'locator-loss-in':
        return await this.stageSilence('in');
      case 'locator-loss-out':
        return await this.stageSilence('out');
      case 'roam-1000':
        return await this.crowded(await this.stage('roam'), VM, () => [this.vm]);
      case 'move-1000':
        return await this.crowded(await this.stage('move'), WORKLOAD, () => {
          const { here, there } = this.moving ?? {};
          return [here, there].filter((agent) => agent !== undefined);
        });
      default:
        return event satisfies never;
    }
  }

  private async crowded(staged: Staged, destination: string, owners: () => readonly Agent[]): Promise<Staged> {
    this.crowd ??= await Correspondents.enrol(this.underlay.internet, this.overlay, this.programs.correspondents);
    const { crowd } = this;
    return {
      ...staged,
      crowd: async () => {
        const talk = await crowd.start(destination, owners());
        // Whoever may take the destination over is prepared for those who talk to it.
        await talk.prepared();
        return talk;
      },
    };
  }

  private staged(
    mover: Party,
    movers: readonly Agent[],
    happen: () => Promise<EventTimes>,
    restore: () => Promise<void>,
  ): Staged {
    const peer: Party = { host: this.peer.host, address: PEER };
    return { mover, peer, happen, restore, witnesses: this.witnesses(movers) };
  }

  private async stageMove(): Promise<Staged> {
    const carriers = await this.carriers();
    const { workload, here, there } = carriers;
    // Free to be taken again: what the last move left behind is over.
    await waitFor(`${there.host.name} to be free of ${WORKLOAD}`, async () => {
      const state = await there.eidState(WORKLOAD);
      return state !== 'live' && state !== 'base';
    });
    await there.attach(WORKLOAD, 'target', { interface: WORKLOAD_PORT });
    const out = here.host.ipConsole();
    const into = there.host.ipConsole();
    await openView(workload);
    const carrying = (): Promise<bigint> =>
      waitFor('the workload’s cable to carry', () => workload.device('eth0', 'operstate') === 'up' && now(), {
        intervalMs: 1,
      });
    const move = async (): Promise<EventTimes> => {
      const begun = now();
      await out.run([`link set ${WORKLOAD_PORT} netns ${there.host.namespace}`]);
      const counted = now();
      const [carried] = await Promise.all([carrying(), into.run([`link set ${WORKLOAD_PORT} up`])]);
      Object.assign(carriers, { here: there, there: here });
      return { begun, counted, carried };
    };
    return this.staged({ host: workload, address: WORKLOAD }, [here, there], move, async () => {
      await waitFor(`${WORKLOAD} live on ${there.host.name}`, async () => (await there.eidState(WORKLOAD)) === 'live');
    });
  }

  private async stageRoamWithoutMapServer(mover: Party): Promise<Staged> {
    const { daemon } = this.overlay.mapServer;
    const roam = this.underlay.prepareRoam(this.vm.at);
    const happen = async (): Promise<EventTimes> => {
      await daemon.kill9();
      await pause(MAP_SERVER_DEAD_MS);
      return await roam();
    };
    return this.staged(mover, [this.vm], happen, async () => {
      daemon.start();
      await this.overlay.mapServer.ready();
      await Promise.all([...this.overlay.agents.values()].map((agent) => agent.ready()));
    });
  }

  private async stageSilence(direction: Direction): Promise<Staged> {
    const { agent, uplinks } = await this.twoUplinks();
    let end = async (): Promise<void> => {};
    const happen = async (): Promise<EventTimes> => {
      const address = await uplinkInUse(uplinks, direction);
      const silence = this.underlay.internet.prepareSilence(address, direction);
      end = silence.end;
      const begun = now();
      await silence.begin();
      return { begun, counted: begun };
    };
    return this.staged({ host: agent.host, address: DUAL }, [agent], happen, async () => {
      await end();
      await agent.ready();
    });
  }

  private async twoUplinks(): Promise<{ readonly agent: Agent; readonly uplinks: Uplinks }> {
    if (this.dual !== undefined) return this.dual;
    const at = await this.underlay.internet.attach('dual', 'a');
    const second = await this.underlay.internet.addUplink(at, 'b');
    const agent = await this.overlay.join(at, joining(DUAL));
    const addresses = new Map([
      [at.plug.interface, at.address4],
      [second.interface, second.address4],
    ]);
    this.dual = { agent, uplinks: { host: at.host, addresses } };
    return this.dual;
  }

  /** The hosts that have the workload and that do not have it, made when the first move wants them. */
  private async carriers(): Promise<{ readonly workload: Host; here: Agent; there: Agent }> {
    if (this.moving !== undefined) return this.moving;
    const { internet, lab } = this.underlay;
    const [here, there] = await Promise.all([
      internet.attach('host-a', 'a').then((at) => this.overlay.join(at, joining('10.77.0.21', [WORKLOAD]))),
      internet.attach('host-b', 'b').then((at) => this.overlay.join(at, joining('10.77.0.22', [WORKLOAD]))),
    ]);
    const workload = await lab.host('db');
    await lab.cable(workload, 'eth0', here.host, WORKLOAD_PORT);
    await workload.ip([
      `addr add ${WORKLOAD}/32 dev eth0`,
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1 dev eth0 onlink',
    ]);
    await here.attach(WORKLOAD, 'live', { interface: WORKLOAD_PORT });
    this.moving = { workload, here, there };
    return this.moving;
  }

  private async restartAgents(): Promise<EventTimes> {
    const begun = now();
    await Promise.all([this.vm, this.peer].map((agent) => agent.daemon.kill9()));
    for (const agent of [this.vm, this.peer]) agent.start();
    // Nothing of the restart is to be missed: the traffic need not notice it at all.
    await Promise.all([this.vm.ready(), this.peer.ready()]);
    return { begun, counted: begun };
  }

  private async restartDataplane(): Promise<EventTimes> {
    const begun = now();
    await this.vm.dataplane.kill9();
    this.vm.startDataplane();
    return { begun, counted: begun };
  }

  private witnesses(movers: readonly Agent[]): Witnesses {
    const agents = [...movers, this.peer];
    const uplinks = (agent: Agent): ReadonlyMap<string, string> =>
      agent === this.dual?.agent
        ? this.dual.uplinks.addresses
        : new Map([[agent.at.plug.interface, agent.at.address4]]);
    return {
      hosts: agents.map((agent) => ({
        host: agent.host,
        interfaces: [...uplinks(agent).keys()],
        addresses: () => [...uplinks(agent).values()],
      })),
      logs: [
        ...agents.map(({ host, daemon }) => ({ name: `${host.name} agent`, process: daemon.process })),
        ...agents.map(({ host, dataplane }) => ({ name: `${host.name} data plane`, process: dataplane.process })),
        { name: 'map server', process: this.overlay.mapServer.daemon.process },
      ],
    };
  }
}

function joining(eid: string, mayAlso: readonly string[] = []): JoinOptions {
  return {
    eids: [`${eid}/32`],
    mayAlso: { eids: mayAlso.map((other) => `${other}/32`) },
    // Registrations are told at this level.
    config: { mtu: INNER_MTU, logLevel: 'debug' },
  };
}

/** Looking at its interfaces costs nothing later; the process that keeps the view open needs a moment to get there. */
async function openView(host: Host): Promise<void> {
  await waitFor(`a view of ${host.name}`, () => {
    try {
      return host.device('eth0', 'operstate') !== '';
    } catch {
      return false;
    }
  });
}
