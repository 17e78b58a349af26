import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EncodeError, Reader, Writer } from '../../proto/bytes.ts';
import { DecodeError } from '../../proto/errors.ts';

test('what a Writer writes a Reader reads, however long', () => {
  const field = fc.oneof(
    fc.record({ kind: fc.constant('u8' as const), value: fc.nat(0xff) }),
    fc.record({ kind: fc.constant('u16' as const), value: fc.nat(0xffff) }),
    fc.record({ kind: fc.constant('u24' as const), value: fc.nat(0xffffff) }),
    fc.record({ kind: fc.constant('u32' as const), value: fc.integer({ min: 0, max: 0xffffffff }) }),
    fc.record({ kind: fc.constant('u64' as const), value: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) }),
    fc.record({ kind: fc.constant('bytes' as const), value: fc.uint8Array({ maxLength: 300 }) }),
  );
  fc.assert(
    fc.property(fc.array(field, { maxLength: 120 }), (fields) => {
      const writer = new Writer();
      for (const { kind, value } of fields) {
        if (kind === 'bytes') writer.bytes(value);
        else if (kind === 'u64') writer.u64(value, 'field');
        else writer[kind](value, 'field');
      }
      const bytes = writer.finish();
      assert.equal(writer.length, bytes.length);
      const reader = new Reader(bytes);
      for (const { kind, value } of fields) {
        if (kind === 'bytes') assert.deepEqual(reader.bytes(value.length, 'field'), new Uint8Array(value));
        else assert.equal(reader[kind]('field'), value);
      }
      assert.equal(reader.remaining, 0);
    }),
  );
});

test('reading behind the end is a DecodeError with the field and its offset from the start of the message', () => {
  const reader = new Reader(Uint8Array.of(0, 1, 2, 3, 4, 5));
  reader.skip(1, 'first');
  const part = reader.part(3, 'part');
  assert.equal(part.u16('inner'), 0x0102);
  for (const read of [
    () => part.u16('inner'),
    () => part.u24('inner'),
    () => part.u32('inner'),
    () => part.u64('inner'),
    () => part.bytes(2, 'inner'),
    () => part.skip(2, 'inner'),
    () => part.part(2, 'inner'),
    () => part.expect(2, 'inner'),
    () => part.untilZero('inner'),
  ]) {
    assert.throws(read, (error) => error instanceof DecodeError && error.field === 'inner' && error.offset === 3);
  }
  assert.deepEqual(part.rest(), Uint8Array.of(3));
  assert.equal(reader.u16('rest'), 0x0405);
});

test('a part does not see a terminator behind its end', () => {
  const part = new Reader(Uint8Array.of(97, 98, 0)).part(2, 'part');
  assert.throws(() => part.untilZero('name'), DecodeError);
});

test('octets read are copies, also from a Buffer', () => {
  const buffer = Buffer.from([1, 2, 3]);
  const copy = new Reader(buffer).bytes(3, 'field');
  buffer.fill(0);
  assert.deepEqual(copy, Uint8Array.of(1, 2, 3));
});

test('values that do not fit are EncodeErrors', () => {
  const writer = new Writer();
  for (const write of [
    () => writer.u8(256, 'field'),
    () => writer.u8(-1, 'field'),
    () => writer.u16(0x10000, 'field'),
    () => writer.u24(0x1000000, 'field'),
    () => writer.u32(2 ** 32, 'field'),
    () => writer.u32(0.5, 'field'),
    () => writer.u32(Number.NaN, 'field'),
    () => writer.u64(-1n, 'field'),
    () => writer.u64(1n << 64n, 'field'),
    () => writer.lengthPrefixed('field', (inner) => inner.bytes(new Uint8Array(0x10000))),
  ]) {
    assert.throws(write, EncodeError);
  }
});

test('a length prefix counts what its body writes, also when they nest', () => {
  const bytes = new Writer()
    .lengthPrefixed('outer', (outer) => {
      outer.u8(7, 'field').lengthPrefixed('inner', (inner) => inner.bytes(new Uint8Array(200)));
    })
    .finish();
  assert.deepEqual([...bytes.subarray(0, 5)], [0, 203, 7, 0, 200]);
  assert.equal(bytes.length, 205);
});
