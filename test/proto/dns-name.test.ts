/** Names as they come from the network. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readName } from '../../proto/dns/name.ts';
import { DecodeError } from '../../proto/errors.ts';

test('a name leads over pointers to its labels', () => {
  const message = Uint8Array.from([1, 0x61, 0, 1, 0x62, 0xc0, 0, 0xc0, 3]);
  assert.deepEqual(readName(message, 7), { name: 'b.a', end: 9 });
});

// Attack: names that lead over thousands of pointers, to have each of the thousands in a message cost as much | 1 |
// refused after as many as a name may have labels
test('attack: chains of pointers', () => {
  const chain = [0, 0, ...Array.from({ length: 8000 }, (_, i) => [0xc0 | ((2 * i) >> 8), (2 * i) & 0xff]).flat()];
  const message = Uint8Array.from(chain);
  assert.deepEqual(readName(message, 2 * 127), { name: '', end: 2 * 127 + 2 });
  assert.throws(() => readName(message, 2 * 128), DecodeError);
  assert.throws(() => readName(message, 2 * 8000), DecodeError);
});
