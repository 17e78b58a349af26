/** Runs one schedule against the model. */
import { Agent } from '../../agent/core/agent.ts';
import { MapServer } from '../../mapserver/core/map-server.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { Flow } from '../sim/flow.ts';
import type { MakeAgent } from '../sim/host.ts';
import type { MakeMapServer } from '../sim/map-server.ts';
import { World } from '../sim/world.ts';
import { checkQuiet } from './assertions.ts';
import { Reference } from './reference.ts';
import { chat, EIDS, nameOf, roam, type Schedule, take, UNGRANTED } from './transitions.ts';

export interface Cores {
  readonly makeAgent: MakeAgent;
  readonly makeMapServer: MakeMapServer;
}

export const PRODUCT: Cores = {
  makeAgent: (options, now) => new Agent(options, now),
  makeMapServer: (config) => new MapServer(config),
};

export interface Outcome {
  readonly sent: number;
  readonly delivered: number;
  /** Virtual milliseconds. */
  readonly lasted: number;
}

/** @throws Violation, ContractError, and whatever a core throws */
export function runSchedule(schedule: Schedule, cores: Cores = PRODUCT): Outcome {
  return play(schedule, cores, undefined);
}

/** The same once more, with all that happened. */
export function explain(schedule: Schedule, cores: Cores = PRODUCT): { readonly error: unknown; readonly flow: Flow } {
  const names = new Map<string, string>();
  const flow = new Flow((id) => names.get(id) ?? id.slice(0, 6));
  try {
    play(schedule, cores, flow, names);
    return { error: null, flow };
  } catch (error) {
    return { error, flow };
  }
}

function play(schedule: Schedule, cores: Cores, flow: Flow | undefined, names?: Map<string, string>): Outcome {
  const reference: Reference = new Reference(EIDS, () => world.clock.now);
  const world: World = new World({ seed: schedule.seed, observer: reference, ...cores, flow });
  for (let i = 0; i < schedule.hosts; i++) {
    const host = world.addHost(`h${i}`);
    names?.set(host.key, host.name).set(host.xtrId, host.name);
    const granted = i === schedule.hosts - 1 ? EIDS.filter((eid) => eid !== UNGRANTED) : EIDS;
    world.mapServer.enrol(host.key, host.xtrId, {
      eids: granted.map((eid) => `${eid}/32` as IpPrefix),
      names: ['*'],
      groups: [],
    });
  }
  world.mapServer.start();
  for (const [i, host] of world.hosts.entries()) {
    roam(world, host, i + 1);
    host.startDataplane();
    host.startAgent();
  }
  for (const [i, eid] of ATTACHED.entries()) world.hosts[i]?.attachEid(eid, [nameOf(eid)], null);
  world.pass(SETTLE);
  for (const step of schedule.steps) {
    chat(world, reference, step.wait);
    world.pass(step.wait);
    flow?.add(world.clock.now, '──', JSON.stringify(step), '──');
    take(world, step);
  }
  chat(world, reference, LAST_WORDS);
  world.pass(LAST_WORDS);
  flow?.add(world.clock.now, '──', 'quiet', '──');
  checkQuiet(world, reference);
  return { ...reference.traffic, lasted: world.clock.now };
}

/** The first is at the first host, and so on. */
const ATTACHED = EIDS.slice(0, 2);
/** Until the first sessions stand. */
const SETTLE = 500;
const LAST_WORDS = 50;
