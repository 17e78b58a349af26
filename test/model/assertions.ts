/** What must be so after quiet: everything healed, and time enough for whatever is still to be said. */

import type { OwnershipRecord } from '../../mapserver/core/records.ts';
import { hostPrefix, type IpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, nameEid, prefixEid } from '../../proto/eid.ts';
import { type Millis, seconds } from '../../proto/time.ts';
import { largestCollections } from '../sim/collections.ts';
import type { Packet } from '../sim/dataplane.ts';
import type { Host } from '../sim/host.ts';
import type { World } from '../sim/world.ts';
import { type Reference, Violation } from './reference.ts';
import { EIDS, heal, INTERFACE, nameOf } from './transitions.ts';

/** Heals the world and checks it. @throws Violation */
export function checkQuiet(world: World, reference: Reference): void {
  checkBounds(world);
  heal(world);
  world.pass(QUIET);
  const owners = new Map(EIDS.map((eid) => [eid, checkOwner(world, reference, eid)]));
  checkStored(world);
  checkNames(world, reference, owners);
  checkReachable(world, reference, owners);
  checkBounds(world);
  checkRest(world);
}

/** Whatever the map server answers with is what its owner has. */
function checkStored(world: World): void {
  for (const record of world.mapServer.records()) {
    if (record.kind !== 'eid' || record.state !== 'live') continue;
    const owner = world.hosts.find(({ xtrId }) => xtrId === record.owner);
    const own = owner?.agent?.ownEids().find(({ key }) => key === record.eid);
    if (own?.state === 'live' && own.generation === record.generation) continue;
    const is = `${own?.state ?? 'none'}@${own?.generation ?? 0}`;
    throw new Violation(`${record.eid}@${record.generation} is stored for ${owner?.name}, where it is ${is}`);
  }
}

/** The store, the agents and the reference agree on who owns it. */
function checkOwner(world: World, reference: Reference, eid: IpAddress): Host | null {
  const key = eidKey(prefixEid(DEFAULT_INSTANCE, hostPrefix(eid)));
  const record = world.mapServer
    .records()
    .find((each): each is OwnershipRecord => each.kind === 'eid' && each.eid === key && each.state === 'live');
  const owner = world.hosts.find(({ xtrId }) => xtrId === record?.owner) ?? null;
  const own = (host: Host) => host.agent?.ownEids().find((each) => each.key === key);
  for (const host of world.hosts) {
    const believed = own(host);
    const standing = reference.standing(host, eid);
    const state = `${believed?.state ?? 'none'}@${believed?.generation ?? 0}`;
    const fail = (problem: string): never => {
      const stored = record === undefined ? 'nobody' : `${owner?.name}@${record.generation}`;
      const should = `${standing.is}@${standing.generation}`;
      throw new Violation(`${eid}: ${problem} (${host.name} is ${state}, should be ${should}; stored: ${stored})`);
    };
    if (!host.connected) fail(`${host.name} has no session`);
    if (host === owner && state !== `live@${record?.generation}`)
      fail(`${host.name} does not know that it is the owner`);
    if (host !== owner && believed?.state === 'live') fail(`${host.name} believes that it is the owner`);
    if (standing.is === 'claiming') fail('a claim was never answered');
    if (standing.is === 'granted' && host !== owner) fail('what was granted got lost');
    if (standing.is === 'target' && host.isUp(INTERFACE)) fail('the interface of a target is up');
    if (standing.is === 'none' && believed !== undefined) fail('it was detached');
  }
  return owner;
}

function checkNames(world: World, reference: Reference, owners: ReadonlyMap<IpAddress, Host | null>): void {
  for (const [eid, owner] of owners) {
    if (owner === null || !reference.standing(owner, eid).names.includes(nameOf(eid))) continue;
    const asked = world.hosts.map((host) => {
      return { host, ticket: host.resolve(nameEid(DEFAULT_INSTANCE, nameOf(eid))) };
    });
    world.pass(ANSWER);
    for (const { host, ticket } of asked) {
      const answer = host.answers.get(ticket);
      const found = answer?.kind === 'resolution' && answer.resolution.kind === 'found' ? answer.resolution : null;
      if (found?.mapping.targets.join() === eid) continue;
      const said = JSON.stringify(answer ?? 'nothing');
      throw new Violation(`${host.name} resolves ${nameOf(eid)}, which ${owner.name} has with ${eid}, to ${said}`);
    }
  }
}

/** From everywhere to the owner and to nobody else. The first packets may only find out that a way is dead. */
function checkReachable(world: World, reference: Reference, owners: ReadonlyMap<IpAddress, Host | null>): void {
  sendAll(world, owners);
  world.pass(FIRST_PACKETS);
  const sent = sendAll(world, owners);
  world.pass(PACKETS);
  for (const { from, packet } of sent) {
    const owner = owners.get(packet.destination) ?? null;
    const expected = owner !== null && isUp(owner, reference, packet.destination) ? owner : null;
    const actual = reference.destinationOf(packet);
    if (actual === expected) continue;
    const what = `packet ${packet.id} of ${from.name} from ${packet.source} to ${packet.destination}`;
    throw new Violation(`${what} went to ${actual?.name ?? 'nobody'} instead of ${expected?.name ?? 'nobody'}`);
  }
}

function sendAll(world: World, owners: ReadonlyMap<IpAddress, Host | null>): { from: Host; packet: Packet }[] {
  return world.hosts.flatMap((from) => {
    const own = EIDS.filter((eid) => owners.get(eid) === from);
    return [from.agentAddress, ...own].flatMap((source) =>
      EIDS.map((destination) => ({ from, packet: world.send(from, source, destination) })),
    );
  });
}

function isUp(owner: Host, reference: Reference, eid: IpAddress): boolean {
  const { via } = reference.standing(owner, eid);
  return via === null || owner.isUp(via);
}

/** Nothing has grown beyond what these few nodes can need. */
function checkBounds(world: World): void {
  for (const [name, root] of [
    ...world.hosts.map((host) => [host.name, host.agent] as const),
    ['the map server', world.mapServer.core] as const,
  ]) {
    const [largest] = largestCollections(root);
    if (largest !== undefined && largest.size > BOUND) {
      throw new Violation(`${name} holds ${largest.size} in ${largest.path}`);
    }
  }
}

/** Nothing waits, and nobody goes on about it. */
function checkRest(world: World): void {
  for (const host of world.hosts) {
    const held = host.dataplane?.heldPackets ?? 0;
    const away = !host.isUp(INTERFACE);
    if (held > 0 && !away) throw new Violation(`${held} packets still wait at ${host.name}`);
  }
  if (world.network.streamCount > world.hosts.length) {
    throw new Violation(`${world.network.streamCount} streams for ${world.hosts.length} hosts`);
  }
}

/** Longer than the grace of the map server and the refresh of a registration. */
const QUIET: Millis = seconds(75);
const ANSWER: Millis = seconds(2);
const FIRST_PACKETS: Millis = seconds(6);
const PACKETS: Millis = seconds(4);
const BOUND = 256;
