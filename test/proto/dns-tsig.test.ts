/** Requests as `dig -y` and `nsupdate -y` of BIND 9.18 sent them, and what must not pass for one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLASS, FLAG, OPCODE } from '../../proto/dns/header.ts';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import { decodeSections, encodeSections } from '../../proto/dns/sections.ts';
import {
  signRequest,
  TSIG_ERROR,
  type TsigAlgorithm,
  type TsigKey,
  type TsigVerdict,
  verifyRequest,
} from '../../proto/dns/tsig.ts';
import { DecodeError } from '../../proto/errors.ts';
import { DIG_SIGNED, NSUPDATE_SIGNED, TSIG_SECRET } from './dns-captures.ts';

test('signatures of dig verify with each algorithm, a name in capitals and an OPT before the TSIG', () => {
  for (const { hex, algorithm, at } of DIG_SIGNED) {
    const verdict = verify(octets(hex), keyOf(algorithm), at * 1000);
    assert.equal(verdict.kind, 'valid', algorithm);
  }
});

test('an update of nsupdate is read in all its sections', () => {
  const bytes = octets(NSUPDATE_SIGNED.hex);
  assert.equal(verify(bytes, keyOf('hmac-sha256'), NSUPDATE_SIGNED.at * 1000).kind, 'valid');
  const message = decodeSections(bytes);
  assert.equal(message.opcode, OPCODE.update);
  const spelling = octets('0773746179707574 08696e7465726e616c 00'.replaceAll(' ', ''));
  assert.deepEqual(message.questions, [{ name: 'stayput.internal', type: TYPE.soa, class: CLASS.in, spelling }]);
  const text = (records: typeof message.answers): string[] =>
    records.map(
      (each) => `${each.name} ${each.ttl} ${each.class} ${each.type} ${Buffer.from(each.rdata).toString('latin1')}`,
    );
  assert.deepEqual(text(message.answers), ['x.stayput.internal 0 254 255 ', 'db.stayput.internal 0 255 1 ']);
  assert.deepEqual(text(message.authorities), [
    'x.stayput.internal 60 1 33 \0\x01\0\x02\0P\x02db\x07stayput\x08internal\0',
    'x.stayput.internal 60 1 16 \x01a\x03b c',
    'y.stayput.internal 0 255 16 ',
    'z.stayput.internal 0 255 255 ',
    'w.stayput.internal 0 254 16 \x01q',
  ]);
});

// Attack: signed requests with another key or algorithm, a changed octet, a MAC cut short, a second signature, and
// clocks 301 s apart | 9 | refused, each with the error that RFC 8945 names; none is taken for signed
test('attack: signatures that do not hold', () => {
  const key = keyOf('hmac-sha256');
  const [{ hex, at }] = DIG_SIGNED;
  const bytes = octets(hex);
  const now = at * 1000;
  assert.equal(refusal(verify(bytes, undefined, now)), TSIG_ERROR.badKey);
  assert.equal(refusal(verify(bytes, keyOf('hmac-sha512'), now)), TSIG_ERROR.badKey);
  assert.equal(refusal(verify(bytes, { ...key, secret: Buffer.from('another') }, now)), TSIG_ERROR.badSig);
  const changed = Uint8Array.from(bytes);
  changed[14] = (changed[14] ?? 0) ^ 1;
  assert.equal(refusal(verify(changed, key, now)), TSIG_ERROR.badSig);
  assert.equal(refusal(verify(bytes, key, now + 301_000)), TSIG_ERROR.badTime);
  assert.equal(refusal(verify(bytes, key, now - 301_000)), TSIG_ERROR.badTime);
  assert.equal(refusal(verify(withMacOf(bytes, 16), key, now)), TSIG_ERROR.badTrunc);
  assert.throws(() => verify(withMacOf(bytes, 8), key, now), DecodeError);
  const twice = signRequest(bytes, key, now).bytes;
  assert.throws(() => verify(twice, key, now), DecodeError);
});

test('both ends of a session agree on a chain of answers, and on nothing out of order', () => {
  const key = keyOf('hmac-sha384');
  const query = encodeSections({
    ...EMPTY,
    questions: [{ name: 'stayput.internal', type: TYPE.axfr, class: CLASS.in }],
  });
  const now = 1_795_300_000_000;
  const client = signRequest(query, key, now);
  const server = verify(client.bytes, key, now);
  assert.ok(server.kind === 'valid');
  const answers = [1, 2, 3].map((id) => server.session.sign(encodeSections({ ...EMPTY, id, flags: FLAG.qr }), now));
  const [first = EMPTY_OCTETS, second = EMPTY_OCTETS, third = EMPTY_OCTETS] = answers;
  const verifies = (bytes: Uint8Array): boolean => client.session.verifies(bytes, decodeSections(bytes), now);
  assert.ok(verifies(first));
  assert.ok(!verifies(third), 'a message was left out');
  assert.ok(verifies(second));
  assert.ok(!verifies(second), 'a message came twice');
  assert.ok(verifies(third));
  assert.equal(first.length, encodeSections(EMPTY).length + server.session.overhead);
});

test('a refusal for the time is signed and tells the time of the server', () => {
  const key = keyOf('hmac-sha256');
  const then = 1_795_300_000_000;
  const client = signRequest(encodeSections(EMPTY), key, then);
  const verdict = verify(client.bytes, key, then + 1_000_000);
  assert.ok(verdict.kind === 'refused');
  const bytes = verdict.reply(encodeSections({ ...EMPTY, flags: FLAG.qr, rcode: RCODE.notAuth }));
  assert.ok(client.session.verifies(bytes, decodeSections(bytes), then));
  assert.equal(Buffer.from(bytes.subarray(-6)).readUIntBE(0, 6), then / 1000 + 1000);
});

function verify(bytes: Uint8Array, key: TsigKey | undefined, now: number): TsigVerdict {
  return verifyRequest(bytes, decodeSections(bytes), (name) => (name === key?.name ? key : undefined), now);
}

function refusal(verdict: TsigVerdict): number {
  assert.ok(verdict.kind === 'refused', verdict.kind);
  return verdict.error;
}

function keyOf(algorithm: TsigAlgorithm): TsigKey {
  return { name: 'xfr.test', algorithm, secret: Buffer.from(TSIG_SECRET, 'base64') };
}

/** The first capture with a shorter MAC. */
function withMacOf(bytes: Uint8Array, size: number): Uint8Array {
  const mac = bytes.length - 6 - 32;
  const cut = Buffer.concat([bytes.subarray(0, mac + size), bytes.subarray(mac + 32)]);
  cut.writeUInt16BE(size, mac - 2);
  const length = mac - 2 - 8 - 13 - 2;
  cut.writeUInt16BE(cut.readUInt16BE(length) - 32 + size, length);
  return cut;
}

function octets(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

const EMPTY_OCTETS = new Uint8Array(0);
const EMPTY = { id: 7, flags: 0, opcode: 0, rcode: 0, questions: [], answers: [], authorities: [], additionals: [] };
