/** LISP over UDP: what is taken and what is not, whoever sends it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { signMessage, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import type { EncapsulatedControl } from '../../proto/lisp/ecm.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { INFO_REQUEST, type InfoRequest } from '../../proto/lisp/info-request.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapReply } from '../../proto/lisp/native.ts';
import { CoreWorld } from './core-world.ts';
import { addSite, SECRET, SiteXtr } from './site-world.ts';

const STRANGER = { address: parseIpAddress('198.51.100.9'), port: 40_000, socket: 0 };

describe('a datagram', () => {
  test('that cannot be decoded is dropped, counted and not answered', () => {
    const world = new CoreWorld();
    world.receive(STRANGER, Uint8Array.of(0x30, 0, 0, 1));
    assert.deepEqual(results(world), ['unknown malformed']);
    assert.deepEqual(world.datagrams, []);
  });

  test('that no map server is sent is dropped', () => {
    const world = new CoreWorld();
    world.receive(STRANGER, encodeLispMessage(mapReply({ nonce: nonce(1n), mappings: [] })));
    assert.deepEqual(results(world), ['map-reply unexpected']);
  });

  // Attack: datagrams to UDP 4342 from one address | 10,000 at once | dropped undecoded beyond twice `lisp.messagesPerSecond`; others are served
  test('attack: a flood of datagrams from one source', () => {
    const world = new CoreWorld();
    for (let i = 0; i < 10_000; i++) world.receive(STRANGER, Uint8Array.of(0xff));
    const limited = results(world).filter((result) => result === 'unknown limited');
    assert.equal(limited.length, 8_000);
    world.receive({ ...STRANGER, address: parseIpAddress('198.51.100.10') }, Uint8Array.of(0xff));
    assert.equal(results(world).at(-1), 'unknown malformed');
  });

  // Attack: datagrams of 64,000 octets to UDP 4342 from one address | 1,000 at once | the 31 that are worth twice `lisp.messagesPerSecond` are decoded
  test('attack: long datagrams from one source', () => {
    const world = new CoreWorld();
    const long = new Uint8Array(64_000).fill(0xff);
    for (let i = 0; i < 1_000; i++) world.receive(STRANGER, long);
    assert.equal(results(world).filter((result) => result !== 'unknown limited').length, 31);
  });

  test('a long message passes also where few are allowed', () => {
    const world = new CoreWorld({ lisp: { messagesPerSecond: 1 } });
    world.receive(STRANGER, new Uint8Array(64_000).fill(0xff));
    assert.notEqual(results(world).at(-1), 'unknown limited');
  });
});

describe('an Info-Request', () => {
  const request: InfoRequest = {
    ...INFO_REQUEST,
    nonce: nonce(7n),
    sender: { kind: 'name', name: 'vm1' },
  };

  test('is answered with what was seen of its sender, and the RTRs', () => {
    const world = new CoreWorld({ lisp: { rtrs: [parseIpAddress('192.0.2.50')] } });
    world.receive(STRANGER, encodeLispMessage(request));
    const [answer] = world.datagrams;
    assert.deepEqual(answer?.to, STRANGER);
    const reply = answer?.message;
    assert.ok(reply?.type === 'info-reply');
    assert.equal(reply.nonce, 7n);
    const { etrPort, globalEtr, rtrs } = reply.nat;
    assert.deepEqual(
      { etrPort, globalEtr, rtrs },
      {
        etrPort: STRANGER.port,
        globalEtr: { kind: 'ip', address: STRANGER.address },
        rtrs: [{ kind: 'ip', address: '192.0.2.50' }],
      },
    );
  });

  test('with a key is answered only if that is right, and with the same', () => {
    const world = new CoreWorld();
    addSite(world, 'paris', { within: ['10.50.0.0/16'] });
    const eid = { kind: 'ip' as const, address: parseIpAddress('10.50.1.1') };
    const signed = { ...request, eid, maskLength: 32 };
    world.receive(STRANGER, signMessage(signed, { keyId: 0, algorithm: 2, psk: Buffer.from('guessed') }));
    assert.equal(world.datagrams.length, 0);
    world.receive(STRANGER, signMessage(signed, { keyId: 0, algorithm: 2, psk: Buffer.from(SECRET) }));
    const [answer] = world.datagrams;
    assert.ok(answer !== undefined && verifyAuthentication(answer.bytes, Buffer.from(SECRET)).ok);
  });

  // Attack: Info-Requests with the address of a victim | 1,000 at once | three answers at once, then one a second
  test('attack: Info-Requests with a forged source', () => {
    const world = new CoreWorld();
    for (let i = 0; i < 1_000; i++) world.receive({ ...STRANGER, port: 1024 + i }, encodeLispMessage(request));
    assert.equal(world.datagrams.length, 3);
  });
});

test('a Map-Register that an RTR relays in an ECM is answered in one', () => {
  const world = new CoreWorld();
  addSite(world, 'paris', { within: ['10.50.0.0/16'] });
  const xtr = new SiteXtr(world, '192.0.2.50');
  const ecm: EncapsulatedControl = {
    type: 'encapsulated-control',
    ddt: false,
    toEtr: false,
    toMapServer: false,
    forRtr: false,
    relayed: true,
    source: parseIpAddress('10.0.0.2'),
    destination: parseIpAddress('203.0.113.1'),
    hopLimit: 64,
    sourcePort: 4341,
    destinationPort: 4342,
    payload: xtr.signed('10.50.1.0/24'),
  };
  world.receive(xtr.peer, encodeLispMessage(ecm));
  const answer = world.datagrams[0]?.message;
  assert.ok(answer?.type === 'encapsulated-control');
  assert.deepEqual([answer.destination, answer.destinationPort], ['10.0.0.2', 4341]);
  assert.ok(verifyAuthentication(answer.payload, Buffer.from(SECRET)).ok);
});

function results(world: CoreWorld): string[] {
  return world.events.flatMap((event) => (event.kind === 'lisp-received' ? [`${event.message} ${event.result}`] : []));
}
