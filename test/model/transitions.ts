/** What can happen to the world: the steps that a schedule is made of, and how each is taken. */
import fc from 'fast-check';
import { type IpAddress, parseIpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, nameEid } from '../../proto/eid.ts';
import type { Host } from '../sim/host.ts';
import { FAIR } from '../sim/network.ts';
import { MAP_SERVER, type World } from '../sim/world.ts';
import type { Reference } from './reference.ts';

export const EIDS: readonly IpAddress[] = ['10.77.0.1', '10.77.0.2', '10.77.0.3'].map(parseIpAddress);
/** The name that an EID may be given. */
export const nameOf = (eid: IpAddress): string => `w${EIDS.indexOf(eid) + 1}`;
/** The last EID is not granted to the last host. */
export const UNGRANTED = EIDS.at(-1)!;

/** A host or an EID by its number, modulo how many there are. */
type Index = number;

export type Step = { readonly wait: number } & (
  | {
      readonly do: 'attach';
      readonly host: Index;
      readonly eid: Index;
      readonly via: boolean;
      /** `keep` those that it has. */
      readonly names: 'keep' | 'none' | 'own';
    }
  | { readonly do: 'detach'; readonly host: Index; readonly eid: Index }
  | { readonly do: 'interface'; readonly host: Index; readonly up: boolean }
  /** To an address that others may have had; `to` 0: no address. */
  | { readonly do: 'roam'; readonly host: Index; readonly to: number }
  | { readonly do: 'agent'; readonly host: Index; readonly clean: boolean; readonly down: number }
  | { readonly do: 'dataplane'; readonly host: Index; readonly down: number }
  | { readonly do: 'map-server'; readonly down: number }
  | { readonly do: 'store'; readonly down: number }
  /** Between two hosts, or a host and the map server (`other` null). */
  | { readonly do: 'way'; readonly host: Index; readonly other: Index | null; readonly open: boolean }
  | { readonly do: 'weather'; readonly loss: number; readonly doubled: number; readonly jitter: number }
  /** Of a host, or of the map server. */
  | { readonly do: 'clock'; readonly host: Index | null; readonly by: number }
  | { readonly do: 'look-up'; readonly host: Index; readonly eid: Index }
  | { readonly do: 'forge'; readonly host: Index; readonly eid: Index; readonly to: Index }
);

export interface Schedule {
  readonly seed: number;
  readonly hosts: number;
  readonly steps: readonly Step[];
}

export const schedules = (maxSteps: number): fc.Arbitrary<Schedule> =>
  fc.record({
    seed: fc.noShrink(fc.nat({ max: 0xffff_ffff })),
    hosts: fc.integer({ min: 2, max: 4 }),
    steps: fc.array(step, { minLength: 1, maxLength: maxSteps, size: 'max' }),
  });

export function take(world: World, step: Step): void {
  const at = <T>(items: readonly T[], index: Index): T => items[index % items.length]!;
  const host = (index: Index): Host => at(world.hosts, index);
  switch (step.do) {
    case 'attach': {
      const eid = at(EIDS, step.eid);
      const names = { keep: null, none: [], own: [nameOf(eid)] }[step.names];
      host(step.host).attachEid(eid, names, step.via ? INTERFACE : null);
      return;
    }
    case 'detach':
      host(step.host).detachEid(at(EIDS, step.eid));
      return;
    case 'interface':
      host(step.host).setInterface(INTERFACE, step.up);
      return;
    case 'roam':
      roam(world, host(step.host), step.to);
      return;
    case 'agent': {
      const it = host(step.host);
      it.stopAgent(step.clean);
      world.clock.after(step.down, () => it.startAgent());
      return;
    }
    case 'dataplane': {
      const it = host(step.host);
      it.crashDataplane();
      world.clock.after(step.down, () => it.startDataplane());
      return;
    }
    case 'map-server':
      world.mapServer.crash();
      world.clock.after(step.down, () => world.mapServer.start());
      return;
    case 'store':
      world.mapServer.broken = true;
      world.clock.after(step.down, () => {
        world.mapServer.broken = false;
      });
      return;
    case 'way': {
      const one = host(step.host);
      const other = step.other === null ? MAP_SERVER : host(step.other).name;
      world.network.setWay(one.name, other, step.open || one.name === other);
      return;
    }
    case 'weather':
      world.network.weather = { ...FAIR, loss: step.loss, doubled: step.doubled, jitter: step.jitter };
      return;
    case 'clock':
      if (step.host === null) world.mapServer.clockError += step.by;
      else host(step.host).clockError += step.by;
      return;
    case 'look-up':
      host(step.host).resolve(nameEid(DEFAULT_INSTANCE, nameOf(at(EIDS, step.eid))));
      return;
    case 'forge':
      world.send(host(step.host), at(EIDS, step.eid), at(EIDS, step.to));
      return;
    default:
      step satisfies never;
  }
}

/** Everybody talks to everybody all the time: some packets within the next `ms`. */
export function chat(world: World, reference: Reference, ms: number): void {
  const { chance, clock, hosts } = world;
  const packets = Math.min(MAX_CHAT, 1 + Math.ceil(ms / 400));
  for (let i = 0; i < packets; i++) {
    clock.after(chance.next() * ms, () => {
      const from = chance.pick(hosts);
      const own = EIDS.filter((eid) => reference.standing(from, eid).is === 'granted');
      world.send(from, chance.pick([from.agentAddress, ...own]), chance.pick(EIDS));
    });
  }
}

/** Everything works from now on. */
export function heal(world: World): void {
  const { hosts, network, mapServer } = world;
  network.weather = FAIR;
  for (const one of hosts) {
    network.setWay(one.name, MAP_SERVER, true);
    for (const other of hosts) network.setWay(one.name, other.name, true);
  }
  mapServer.broken = false;
  mapServer.start();
  for (const host of hosts) {
    host.startDataplane();
    host.startAgent();
    if (host.address === null) roam(world, host, 1);
  }
}

/** To the address of that number, or the next that is free. */
export function roam(world: World, host: Host, to: number): void {
  const free = PLACES.map((_, i) => PLACES[(to + i) % PLACES.length]!).find((address) =>
    world.hosts.every((other) => other === host || other.address !== address),
  );
  host.plug(to === 0 ? null : (free ?? null));
}

export const INTERFACE = 'veth0';
const PLACES: readonly IpAddress[] = Array.from({ length: 7 }, (_, i) => parseIpAddress(`198.51.100.${i + 1}`));
const MAX_CHAT = 6;

const index = fc.nat({ max: 3 });
const eid = fc.nat({ max: EIDS.length - 1 });
/** Most things happen close together: races are what this is about. */
const wait = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: 0, max: 12 }) },
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 400 }) },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 6000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 70_000 }) },
);
const down = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 300 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 20_000 }) },
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant('attach' as const),
      wait,
      host: index,
      eid,
      via: fc.boolean(),
      names: fc.constantFrom('keep' as const, 'none' as const, 'own' as const, 'own' as const),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('detach' as const), wait, host: index, eid }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('interface' as const), wait, host: index, up: fc.boolean() }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('roam' as const), wait, host: index, to: fc.nat({ max: 6 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('agent' as const), wait, host: index, clean: fc.boolean(), down }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('dataplane' as const), wait, host: index, down }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('map-server' as const), wait, down }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('store' as const), wait, down: fc.integer({ min: 1, max: 300 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('way' as const),
      wait,
      host: index,
      other: fc.option(index),
      open: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('weather' as const),
      wait,
      loss: fc.constantFrom(0, 0.05, 0.3),
      doubled: fc.constantFrom(0, 0.1, 0.5),
      jitter: fc.constantFrom(1, 10, 200),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('clock' as const),
      wait,
      host: fc.option(index),
      by: fc.constantFrom(-86_400_000, -5000, 5000, 86_400_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('look-up' as const), wait, host: index, eid }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('forge' as const), wait, host: index, eid, to: eid }) },
);
