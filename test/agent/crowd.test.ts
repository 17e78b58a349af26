/** A move of an EID that a thousand others talk to: none of them waits for another, or for a rate meant for strangers. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { agentEid } from '../../agent/core/remote-mappings.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, parseEid } from '../../proto/eid.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapNotify } from '../../proto/lisp/native.ts';
import { asTarget, type Generation, type Mapping, type TunnelKey, type XtrId } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { type Host, World } from './world.ts';

const EID = '10.77.0.5';
const LOCATORS = [{ address: parseIpAddress('192.0.2.2'), port: 4341, priority: 1, weight: 100 }];

function eidOf(index: number): string {
  return `10.77.${128 + (index >> 8)}.${index & 255}`;
}

/** `a` has the EID, `b` is prepared to take it, and everybody in the crowd talks to it, since a moment ago or for long. */
function prepared(size: number, since: 'now' | 'long') {
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
  const talk = (): unknown =>
    a.dataplane?.correspondents.set(
      parseIpPrefix(EID),
      crowd.map(({ key }) => key),
    );
  if (since === 'long') talk();
  b.attach(EID, { interface: 'veth0' });
  b.event({ type: 'interface', name: 'veth0', up: false });
  world.advance(since === 'long' ? 8000 : 2000);
  if (since === 'now') talk();
  return { world, a, b, crowd };
}

function arrive(host: Host): void {
  host.event({ type: 'interface', name: 'veth0', up: true });
}

function spokenTo(host: Host): ReadonlySet<TunnelKey> {
  const commands = host.dataplane?.log ?? [];
  return new Set(commands.flatMap((command) => (command.type === 'peer-send' ? [command.publicKey] : [])));
}

function heard(host: Host, kind: string, result = 'accepted'): number {
  return host.notes.filter((note) => note.type === 'peer-message' && note.kind === kind && note.result === result)
    .length;
}

function limited(host: Host): number {
  return host.notes.filter(({ type }) => type === 'limit').length;
}

describe('a move of an EID with a thousand correspondents', () => {
  test('needs one question for each of them, hardly another one for its agent', () => {
    const { b } = prepared(100, 'now');
    const before = b.sent.filter(({ type }) => type === 'map-request').length;
    arrive(b);
    const asked = b.sent.filter(({ type }) => type === 'map-request').length - before;
    assert.ok(asked >= 100 && asked < 140, `${asked} questions`);
  });

  test('is told to all of them at once, and the map server asked for all of them, however slow it is', () => {
    const { world, a, b, crowd } = prepared(1000, 'now');
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

  test('begins long before: the target has a session with each, and the move itself asks nothing and introduces nobody', () => {
    const { world, a, b, crowd } = prepared(1000, 'long');
    const warmed = b.dataplane?.log.filter(({ type }) => type === 'probe') ?? [];
    const keys = new Set(warmed.map((command) => (command.type === 'probe' ? command.publicKey : '')));
    for (const [index, { name, key, dataplane }] of crowd.entries()) {
      assert.ok(keys.has(key), name);
      assert.equal(b.dataplane?.route(eidOf(index)), key, name);
      assert.equal(dataplane?.route(EID), a.key, name);
    }
    const [asked, said] = [b.sent.length, heard(b, 'handover')];
    const before = [limited(a), limited(b)];
    arrive(b);
    for (const { name, dataplane } of crowd) assert.equal(dataplane?.route(EID), b.key, name);
    assert.equal(heard(b, 'handover'), said + 1);
    assert.equal(b.sent.slice(asked).filter(({ type }) => type === 'map-request').length, 0);
    world.advance(2000);
    const greeted = spokenTo(b);
    for (const { name, key } of crowd) assert.ok(greeted.has(key), name);
    assert.deepEqual([limited(a), limited(b)], before);
  });

  test('begins with a few handshakes at a time, and ends when the move is called off', () => {
    const { world, b } = prepared(100, 'now');
    const probes = (): number => b.dataplane?.log.filter(({ type }) => type === 'probe').length ?? 0;
    const most = { inATurn: 0, all: 0 };
    for (let turn = 0; turn < 200; turn++) {
      const before = probes();
      world.advance(50);
      most.inATurn = Math.max(most.inATurn, probes() - before);
    }
    assert.ok(most.inATurn <= 20, `${most.inATurn} in 50 ms`);
    assert.ok(probes() >= 100, `${probes()}`);
    b.detach(EID);
    world.advance(200_000);
    const settled = probes();
    world.advance(200_000);
    assert.equal(probes(), settled);
  });
});

describe('preparing a target', () => {
  test('is left to the owner that is known, and to a host that waits for the EID', () => {
    const { world, b, crowd } = prepared(2, 'now');
    const [stranger, other] = crowd;
    assert.ok(stranger !== undefined && other !== undefined);
    const prepare = (to: Host): Mapping => {
      return asTarget({ ...mappingOf(parseEid(EID), to.xtrId, to.key), locators: LOCATORS });
    };
    for (const [from, to] of [
      [stranger, b],
      [b, stranger],
    ] as const) {
      const message = mapNotify({ nonce: nonce(5n), xtrId: from.xtrId, mappings: [prepare(to), madeUp(1)] });
      to.hear(from.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
      world.advance(1000);
      assert.equal(heard(to, 'prepare', 'refused'), 1, to.name);
      assert.equal(to.dataplane?.peers.has(madeUp(1).tunnelKey as TunnelKey), false, to.name);
    }
  });

  test('comes to each of many EIDs in its turn', () => {
    const world = new World();
    const a = world.host('a', { address: '192.0.2.1' });
    const b = world.host('b', { address: '192.0.2.2' });
    for (const host of [a, b]) host.connect();
    for (let n = 0; n < 200; n++) {
      a.attach(eidOf(n));
      b.attach(eidOf(n), { interface: 'veth0' });
    }
    world.advance(20_000);
    const asked = a.dataplane?.log.flatMap((command) => (command.type === 'correspondents' ? [command.prefix] : []));
    assert.equal(new Set(asked).size, 200);
  });

  test('leaves room for moves while a target does not answer', () => {
    const { world, a, b, crowd } = prepared(300, 'now');
    for (let n = 0; n < 8; n++) {
      const eid = `10.77.1.${n}`;
      a.attach(eid);
      b.attach(eid, { interface: 'veth0' });
      a.dataplane?.correspondents.set(
        parseIpPrefix(eid),
        crowd.map(({ key }) => key),
      );
    }
    world.isCut = (_, to) => to === b.key;
    const before = heard(a, 'prepare', 'sent');
    world.advance(5000);
    const said = heard(a, 'prepare', 'sent') - before;
    assert.ok(said > 100 && said <= 300, `${said} messages`);
  });

  test('is not acknowledged for those of whom there is no room', () => {
    const { world, a, b } = prepared(1, 'now');
    const subject = asTarget({ ...mappingOf(parseEid(EID), b.xtrId, b.key), locators: LOCATORS });
    const acknowledged = (n: number): boolean => {
      const message = mapNotify({ nonce: nonce(BigInt(n)), xtrId: a.xtrId, mappings: [subject, madeUp(n)] });
      const before = world.carried.length;
      b.hear(a.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
      world.pump();
      return world.carried.slice(before).some(({ from }) => from === b.name);
    };
    assert.equal(acknowledged(0), true);
    for (let n = 1; n < 4100; n++) acknowledged(n);
    assert.equal(acknowledged(5000), false);
    assert.equal(acknowledged(0), true);
  });

  // Attack: the owner of an EID names correspondents that do not exist, with locators of somebody else, to a target, at
  // once, with the map server there and away | 6,000 | none of them becomes a peer of the target, which does not send
  // them a packet; without the map server 1,024 do, until it is back
  test('attack: correspondents without end', () => {
    for (const mapServer of ['there', 'away'] as const) {
      const { world, a, b } = prepared(1, 'now');
      world.advance(10_000);
      if (mapServer === 'away') for (const host of [a, b]) host.disconnect();
      const probes = (): number => b.dataplane?.log.filter(({ type }) => type === 'probe').length ?? 0;
      const before = probes();
      const subject = asTarget({ ...mappingOf(parseEid(EID), b.xtrId, b.key), locators: LOCATORS });
      for (let n = 0; n < 6000; n += 200) {
        const made = Array.from({ length: 200 }, (_, i) => elsewhere(n + i));
        const message = mapNotify({ nonce: nonce(BigInt(n)), xtrId: a.xtrId, mappings: [subject, ...made] });
        b.hear(a.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
      }
      world.pump();
      const peers = peersOf(b, 6000);
      assert.ok(mapServer === 'there' ? peers === 0 : peers > 1000 && peers <= 1024, `${peers} peers`);
      world.advance(1000);
      assert.ok(probes() - before <= (mapServer === 'there' ? 2 : 350), `${probes() - before} handshakes`);
      if (mapServer === 'there') continue;
      b.connect();
      world.advance(60_000);
      assert.equal(peersOf(b, 6000), 0);
    }
  });
});

// Attack: a former owner introduces agents that do not exist, at once | 12,000 | 8,192 of them are asked for, at most
// 512 at a time
test('attack: introductions by a former owner without end', () => {
  const { world, a, b } = prepared(1, 'now');
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

// Attack: a former owner introduces agents that do not exist, with locators of somebody else, at once and again | 12,000
// | 1,024 of them become peers, each until the map server has said that it is none
test('attack: handshakes with hosts that are no agents', () => {
  const { world, a, b } = prepared(1, 'now');
  arrive(b);
  b.lag();
  const subject = mappingOf(parseEid(EID), b.xtrId, b.key);
  const introduce = (): void => {
    for (let n = 0; n < 6000; n += 200) {
      const made = Array.from({ length: 200 }, (_, i) => elsewhere(n + i));
      const message = mapNotify({ nonce: nonce(BigInt(n)), xtrId: a.xtrId, mappings: [subject, ...made] });
      b.hear(a.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
      world.pump();
    }
  };
  introduce();
  const peers = peersOf(b, 6000);
  assert.ok(peers > 1000 && peers <= 1024, `${peers} peers`);
  b.catchUp();
  world.advance(2000);
  assert.equal(peersOf(b, 6000), 0);
  introduce();
  assert.ok(peersOf(b, 6000) <= 64, `${peersOf(b, 6000)} peers`);
});

/** Of those that are made up. */
function peersOf(host: Host, count: number): number {
  const keys = Array.from({ length: count }, (_, n) => madeUp(n).tunnelKey as TunnelKey);
  return keys.filter((key) => host.dataplane?.peers.has(key)).length;
}

function elsewhere(n: number): Mapping {
  return { ...madeUp(n), locators: LOCATORS };
}

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
