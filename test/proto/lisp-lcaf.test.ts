import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reader, Writer } from '../../proto/bytes.ts';
import { DecodeError } from '../../proto/errors.ts';
import { decodeAddress, encodeAddress } from '../../proto/lisp/afi.ts';
import { isLcaf, lcafType } from '../../proto/lisp/lcaf.ts';
import { LCAF_SAMPLES } from './lcaf-samples.ts';

test('every type of LCAF has its fields where RFC 8060 and RFC 9306 put them', () => {
  for (const { type, octets, address } of LCAF_SAMPLES) {
    const reader = new Reader(Buffer.from(octets, 'hex'));
    const decoded = decodeAddress(reader, 'EID');
    assert.deepEqual(decoded, address, `type ${type}`);
    assert.equal(reader.remaining, 0);
    assert.ok(isLcaf(decoded));
    assert.equal(lcafType(decoded), type);
    const writer = new Writer();
    encodeAddress(address, writer);
    assert.equal(Buffer.from(writer.finish()).toString('hex'), octets, `type ${type}`);
  }
});

test('an LCAF whose length cuts its body off is refused, also when the message goes on', () => {
  for (const { type, octets } of LCAF_SAMPLES) {
    const length = Number.parseInt(octets.slice(12, 16), 16);
    if ([0, 1, 6, 7, 255].includes(type)) continue; // a shorter one is another one of them
    const shorter = octets.slice(0, 12) + (length - 1).toString(16).padStart(4, '0') + octets.slice(16);
    const decode = (): unknown => decodeAddress(new Reader(Buffer.from(shorter + '00'.repeat(40), 'hex')), 'EID');
    assert.throws(decode, DecodeError, `type ${type}`);
  }
});

test('reserved bits and octets behind the fields change nothing that is read, and are given back', () => {
  for (const [octets, received] of [
    [`400300000a000008${'0005'}00010a000001`, `400300000a000008${'fffd'}00010a000001`],
    [`400300000d00000a${'00000001'}00010a000001`, `400300000d00000a${'ffffff01'}00010a000001`],
    [`4003${'0000'}1000000a00000001${'00010a000001'}`, `4003${'ffff'}1000000a00000081${'00010a000001'}`],
    [`400300000e${'00'}0009${'0005'}22656e6322${'0000'}`, `400300000e${'1c'}0009${'0005'}22656e6322${'0000'}`],
    [`400300000300000a${'0000fde8'}00010a000001`, `400300000300000c${'0000fde8'}00010a000001${'beef'}`],
    ['400300000100000c400300000e00000400000000', '400300000100000c400380000e00000400000000'],
  ] as const) {
    const [expected, actual] = [octets, received].map((hex) =>
      decodeAddress(new Reader(Buffer.from(hex, 'hex')), 'EID'),
    );
    assert.deepEqual(fieldsOf(actual), fieldsOf(expected), received);
    const writer = new Writer();
    encodeAddress(actual ?? assert.fail(), writer);
    assert.equal(Buffer.from(writer.finish()).toString('hex'), received);
  }
});

function fieldsOf(address: unknown): unknown {
  return JSON.parse(JSON.stringify(address, (name, value) => (name === 'asReceived' ? undefined : value)));
}
