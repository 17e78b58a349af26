/** A move of an EID that a thousand others talk to: none of them has to wait for a rate that is meant for strangers. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { agentEid } from '../../agent/core/remote-mappings.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, parseEid } from '../../proto/eid.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapNotify } from '../../proto/lisp/native.ts';
import type { Generation, Mapping, TunnelKey, XtrId } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { type Host, World } from './world.ts';

const EID = '10.77.0.5';

function eidOf(index: number): string {
  return `10.77.${128 + (index >> 8)}.${index & 255}`;
}

/** `a` has the EID, `b` is prepared to take it, and everybody in the crowd talks to it. */
function prepared(size: number) {
  const world = new World();
  const a = world.host('a', { address: '192.0.2.1' });
  const b = world.host('b', { address: '192.0.2.2' });
  for (const host of [a, b]) host.connect();
  a.attach(EID);
  const crowd = Array.from({ length: size }, (_, index): Host => {
    const address = `198.51.${100 + (index >> 8)}.${index & 255}`;
    const host = world.host(`crowd ${index}`, { eids: [eidOf(index)], address });
    host.connect();
    host.miss(EID);
    a.miss(eidOf(index));
    if (index % 500 === 499) world.advance(1000);
    return host;
  });
  a.dataplane?.correspondents.set(
    parseIpPrefix(EID),
    crowd.map(({ key }) => key),
  );
  b.attach(EID, { interface: 'veth0' });
  b.event({ type: 'interface', name: 'veth0', up: false });
  world.advance(2000);
  return { world, a, b, crowd };
}

function arrive(host: Host): void {
  host.event({ type: 'interface', name: 'veth0', up: true });
}

function spokenTo(host: Host): ReadonlySet<TunnelKey> {
  const commands = host.dataplane?.log ?? [];
  return new Set(commands.flatMap((command) => (command.type === 'peer-send' ? [command.publicKey] : [])));
}

function limited(host: Host): number {
  return host.notes.filter(({ type }) => type === 'limit').length;
}

describe('a move of an EID with a thousand correspondents', () => {
  test('needs one question for each of them, hardly another one for its agent', () => {
    const { b } = prepared(100);
    const before = b.sent.filter(({ type }) => type === 'map-request').length;
    arrive(b);
    const asked = b.sent.filter(({ type }) => type === 'map-request').length - before;
    assert.ok(asked >= 100 && asked < 140, `${asked} questions`);
  });

  test('is told to all of them at once, and the map server asked for all of them, however slow it is', () => {
    const { world, a, b, crowd } = prepared(1000);
    const before = [limited(a), limited(b)];
    b.lag();
    arrive(b);
    const greeted = spokenTo(b);
    for (const { name, key, dataplane } of crowd) {
      assert.equal(dataplane?.route(EID), b.key, name);
      assert.ok(greeted.has(key), name);
    }
    world.advance(500);
    b.catchUp();
    for (const [index, { name, key }] of crowd.entries()) assert.equal(b.dataplane?.route(eidOf(index)), key, name);
    assert.deepEqual([limited(a), limited(b)], before);
  });
});

// Attack: a former owner introduces agents that do not exist, at once | 12,000 | 8,192 of them are asked for, at most
// 512 at a time
test('attack: introductions by a former owner without end', () => {
  const { world, a, b } = prepared(1);
  arrive(b);
  b.lag();
  const before = { limited: limited(b), asked: b.sent.length };
  const subject = mappingOf(parseEid(EID), b.xtrId, b.key);
  for (let n = 0; n < 12_000; n += 200) {
    const made = Array.from({ length: 200 }, (_, i) => madeUp(n + i));
    const message = mapNotify({ nonce: nonce(BigInt(n)), xtrId: a.xtrId, mappings: [subject, ...made] });
    b.hear(a.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
    world.pump();
  }
  assert.ok(limited(b) - before.limited >= 12_000 - 8192 - 512, `${limited(b) - before.limited}`);
  assert.ok(b.sent.length - before.asked <= 512, `${b.sent.length - before.asked} questions`);
});

function madeUp(n: number): Mapping {
  const key = Buffer.alloc(32);
  key.writeUInt32BE(n + 1);
  const tunnelKey = key.toString('base64') as TunnelKey;
  return mappingOf(agentEid(DEFAULT_INSTANCE, tunnelKey), xtrIdOf(tunnelKey), tunnelKey);
}

function mappingOf(eid: Mapping['eid'], owner: XtrId, tunnelKey: TunnelKey): Mapping {
  const generation = 1 as Generation;
  const nothing = { locators: [], names: [], targets: [] };
  return { eid, ttl: minutes(10), action: 'no-action', generation, owner, tunnelKey, ...nothing };
}
