/** Names as they come from the network. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HEADER_SIZE } from '../../proto/dns/header.ts';
import { readName } from '../../proto/dns/name.ts';
import { DecodeError } from '../../proto/errors.ts';

test('a name leads over pointers to its labels', () => {
  const message = Uint8Array.from([...HEADER, 1, 0x61, 0, 1, 0x62, 0xc0, 12, 0xc0, 15]);
  assert.deepEqual(readName(message, 19), { name: 'b.a', end: 21 });
});

test('a name does not lead into the header, where an ID or a count could pass for a label', () => {
  const message = Uint8Array.from([...HEADER, 1, 0x61, 0xc0, 4]);
  assert.throws(() => readName(message, 12), /points into the header/);
});

// Attack: names that lead over thousands of pointers, to have each of the thousands in a message cost as much | 1 |
// refused after as many as a name may have labels
test('attack: chains of pointers', () => {
  const pointer = (to: number): number[] => [0xc0 | (to >> 8), to & 0xff];
  const chain = Array.from({ length: 8000 }, (_, i) => pointer(12 + 2 * i)).flat();
  const message = Uint8Array.from([...HEADER, 0, 0, ...chain]);
  assert.deepEqual(readName(message, 12 + 2 * 127), { name: '', end: 12 + 2 * 127 + 2 });
  assert.throws(() => readName(message, 12 + 2 * 128), DecodeError);
  assert.throws(() => readName(message, 12 + 2 * 8000), DecodeError);
});

const HEADER: readonly number[] = Array.from({ length: HEADER_SIZE }, () => 0);
