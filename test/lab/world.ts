/**
 * The world of the demo and of most end-to-end stories:
 *
 * clouds `a` and `b`, and `c` with the map server and the `client`. `vm` is a virtual machine with its own agent,
 * `host-a` and `host-b` carry workloads; the workload `db` is a namespace of its own with one interface, behind
 * whichever host its cable ends in. A roam replugs the VM, a move carries the workload's cable to the other host.
 */
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Attachment, Internet, type InternetOptions } from './internet.ts';
import { type Host, Lab } from './lab.ts';
import { type Agent, Overlay } from './overlay.ts';

export const CLIENT_EID = '10.77.0.1';
export const VM_EID = '10.77.0.10';
export const DB_EID = '10.77.0.20';
/** Granted to both hosts; only some stories attach it. */
export const DB_EID6 = 'fd77::20';

/** The same on every host; not the cable itself, so a host sees it come and go. */
export const WORKLOAD_PORT = 'wl-db';

export interface WorldOptions {
  readonly name: string;
  readonly internet?: Omit<InternetOptions, 'clouds'>;
  readonly prefixes?: readonly string[];
  /** With `host-a`, `host-b` and the workload. */
  readonly workload?: boolean;
  readonly vmEids?: readonly string[];
  readonly clientEids?: readonly string[];
  /** More keys for the configuration files of all agents. */
  readonly agentConfig?: Readonly<Record<string, unknown>>;
  /** More keys for that of the map server. */
  readonly mapServerConfig?: Readonly<Record<string, unknown>>;
  readonly say?: (what: string) => void;
}

export class World {
  readonly lab: Lab;
  readonly internet: Internet;
  readonly overlay: Overlay;
  readonly client: Agent;
  readonly vm: Agent;
  private carriers: { here: Agent; there: Agent; readonly db: Host } | undefined;

  private constructor(lab: Lab, internet: Internet, overlay: Overlay, client: Agent, vm: Agent) {
    this.lab = lab;
    this.internet = internet;
    this.overlay = overlay;
    this.client = client;
    this.vm = vm;
  }

  /** Builds everything; whatever fails, nothing is left behind. */
  static async build(options: WorldOptions): Promise<World> {
    const dataplane = await ensureDataplaneBuilt(options.say ?? (() => {}));
    const lab = await Lab.create({ name: options.name });
    try {
      return await World.furnish(lab, dataplane, options);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private static async furnish(lab: Lab, dataplane: string, options: WorldOptions): Promise<World> {
    const say = options.say ?? (() => {});
    const internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], ...options.internet });
    say('three clouds and their routers are up');
    const overlay = await Overlay.start(await internet.attach('mapserver', 'c'), {
      dataplane,
      ...(options.mapServerConfig === undefined ? {} : { mapServerConfig: options.mapServerConfig }),
      ...(options.prefixes === undefined ? {} : { prefixes: options.prefixes }),
    });
    say(`map server serves on ${overlay.mapServer.url}`);
    const config = options.agentConfig ?? {};
    const [client, vm] = await Promise.all([
      internet
        .attach('client', 'c')
        .then((at) =>
          overlay.join(at, { eids: options.clientEids ?? [`${CLIENT_EID}/32`], names: ['client'], dns: true, config }),
        ),
      internet
        .attach('vm', 'a')
        .then((at) => overlay.join(at, { eids: options.vmEids ?? [`${VM_EID}/32`], names: ['vm'], config })),
    ]);
    say('client and vm have joined');
    const world = new World(lab, internet, overlay, client, vm);
    if (options.workload === true) {
      await world.addWorkload(config);
      say('host-a and host-b have joined, workload db is on host-a');
    }
    return world;
  }

  get db(): Host {
    return this.workload.db;
  }

  /** The agents of the host that carries the workload now and of the one that does not. */
  get workload(): { here: Agent; there: Agent; readonly db: Host } {
    if (this.carriers === undefined) throw new Error('this world has no workload');
    return this.carriers;
  }

  /** Gives back what does the roam of the VM to the other cloud. */
  prepareRoam(): () => Promise<unknown> {
    return this.internet.prepareRoam(this.vm.at, this.vm.at.cloud.name === 'a' ? 'b' : 'a');
  }

  /** Gives back what carries the workload, with its sockets, to the other host, which is made ready to take it. */
  async prepareMove(): Promise<() => Promise<void>> {
    const carriers = this.workload;
    const { here, there } = carriers;
    await there.attach(DB_EID, 'target', { interface: WORKLOAD_PORT, name: 'db' });
    const out = here.host.ipConsole();
    const into = there.host.ipConsole();
    return async () => {
      await out.run([`link set ${WORKLOAD_PORT} netns ${there.host.namespace}`]);
      await into.run([`link set ${WORKLOAD_PORT} up`]);
      Object.assign(carriers, { here: there, there: here });
    };
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  private async addWorkload(config: Readonly<Record<string, unknown>>): Promise<void> {
    const also = { eids: [`${DB_EID}/32`, `${DB_EID6}/128`], names: ['db'] };
    const carrier = async (name: string, cloud: string, eid: string): Promise<Agent> =>
      await this.overlay.join(await this.internet.attach(name, cloud), {
        eids: [eid],
        names: [name],
        mayAlso: also,
        config,
      });
    const [here, there] = await Promise.all([
      carrier('host-a', 'a', '10.77.0.21/32'),
      carrier('host-b', 'b', '10.77.0.22/32'),
    ]);
    const db = await this.lab.host('db');
    await this.lab.cable(db, 'eth0', here.host, WORKLOAD_PORT);
    await db.ip([
      `addr add ${DB_EID}/32 dev eth0`,
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1 dev eth0 onlink',
    ]);
    await here.attach(DB_EID, 'live', { interface: WORKLOAD_PORT, name: 'db' });
    this.carriers = { here, there, db };
  }
}

export type { Attachment };
