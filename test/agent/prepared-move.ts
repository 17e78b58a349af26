/** A move that can begin: its two agents, somebody who talks to the EID, and what they say to each other. */
import { strict as assert } from 'node:assert';
import { agentEid } from '../../agent/core/remote-mappings.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, parseEid } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapNotify } from '../../proto/lisp/native.ts';
import type { Generation, Mapping } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { type Host, World } from './world.ts';

export const EID = '10.77.0.5';
export const PREFIX = parseIpPrefix(EID);
export const CLIENT = '10.77.0.9';

/** `a` has the EID, `b` is prepared to take it, `c` talks to it. Everybody is connected. */
export function prepared() {
  const world = new World();
  const a = world.host('a', { address: '192.0.2.1' });
  const b = world.host('b', { address: '192.0.2.2' });
  const c = world.host('c', { eids: [CLIENT], address: '192.0.2.3' });
  for (const host of [a, b, c]) host.connect();
  a.attach(EID);
  c.miss(EID);
  a.miss(CLIENT);
  a.dataplane?.correspondents.set(PREFIX, [c.key]);
  b.attach(EID, { interface: 'veth0' });
  b.event({ type: 'interface', name: 'veth0', up: false });
  world.advance(2000);
  assert.equal(b.stateOf(EID), 'target@0');
  return { world, a, b, c, hosts: [a, b, c] };
}

export function arrive(host: Host): void {
  host.event({ type: 'interface', name: 'veth0', up: true });
}

/** What `from` says of who has the EID. */
export function says(world: World, from: Host, to: Host, mapping: Partial<Mapping>, kind = nonce(77n)): void {
  tells(world, from, to, [{ ...mappingOf(from), ...mapping }], kind);
}

export function tells(world: World, from: Host, to: Host, mappings: readonly Mapping[], kind = nonce(78n)): void {
  const message = mapNotify({ nonce: kind, xtrId: from.xtrId, mappings });
  to.hear(from.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
  world.pump();
}

export function heard(host: Host, kind: string, result: string): number {
  return host.notes.filter((note) => note.type === 'peer-message' && note.kind === kind && note.result === result)
    .length;
}

/** Its agent address, as the map server has it. */
export function agentOf(world: World, host: Host): Mapping {
  const mapping = world.server.mappings.get(eidKey(agentEid(DEFAULT_INSTANCE, host.key)));
  assert.ok(mapping !== undefined);
  return mapping;
}

export function mappingOf(host: Host): Mapping {
  return {
    eid: parseEid(EID),
    ttl: minutes(10),
    action: 'no-action',
    generation: 1 as Generation,
    owner: host.xtrId,
    tunnelKey: host.key,
    locators: [],
    names: [],
    targets: [],
  };
}
