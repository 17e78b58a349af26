/** LISP over UDP: what is taken and what is not, whoever sends it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapReply } from '../../proto/lisp/native.ts';
import { CoreWorld } from './core-world.ts';

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
});

function results(world: CoreWorld): string[] {
  return world.events.flatMap((event) => (event.kind === 'lisp-received' ? [`${event.message} ${event.result}`] : []));
}
