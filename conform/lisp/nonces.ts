/** Nonces of messages, by which answers are known. */
import { randomBytes } from 'node:crypto';
import { type Octets, TYPE } from './octets.ts';

export function randomNonce(): bigint {
  return randomBytes(8).readBigUInt64BE();
}

/** Of an ECM: that of the message in it. */
export function nonceIn(octets: Octets): bigint | undefined {
  const inner = (octets[4] ?? 0) >>> 4 === 6 ? 4 + 40 + 8 : 4 + 20 + 8;
  const at = ((octets[0] ?? 0) >>> 4 === TYPE.ecm ? inner : 0) + 4;
  return octets.length < at + 8 ? undefined : new DataView(octets.buffer, octets.byteOffset).getBigUint64(at);
}
