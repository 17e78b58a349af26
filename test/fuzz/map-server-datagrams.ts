/**
 * A map server that datagrams are thrown at, authentic ones as well: what has a MAC gets the right one, also inside an
 * ECM, and a one-time key is wrapped anew for the nonce that has become of it.
 */
import { parseIpAddress } from '../../proto/address.ts';
import { parseEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { ipLispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { computeAuthentication } from '../../proto/lisp/authentication.ts';
import type { EncapsulatedControl } from '../../proto/lisp/ecm.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { NatAddress } from '../../proto/lisp/lcaf.ts';
import { wrapOneTimeKey } from '../../proto/lisp/lisp-sec.ts';
import { MAP_REQUEST } from '../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import type { EcmSecurity } from '../../proto/lisp/security-data.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { CoreWorld } from '../mapserver/core-world.ts';
import { addSite, SECRET, SiteXtr, xtrIdOf } from '../mapserver/site-world.ts';

const world = new CoreWorld({ lisp: { messagesPerSecond: 1_000_000 } });
addSite(world, 'fuzzed', { within: ['10.0.0.0/8', 'fd77::/16'], legacyReplay: true });
const xtr = new SiteXtr(world, '192.0.2.1');
const other = new SiteXtr(world, '192.0.2.2', 2);
world.agent('follower').subscribe('10.50.1.7');

const OTK = new Uint8Array(16).fill(7);

const BEHIND_NAT: NatAddress = {
  kind: 'nat',
  msPort: 4342,
  etrPort: 61_000,
  globalEtr: ipLispAddress(parseIpAddress('203.0.113.5')),
  ms: NO_ADDRESS,
  privateEtr: NO_ADDRESS,
  rtrs: [],
};

export const DATAGRAM_SEEDS: readonly Uint8Array[] = [
  xtr.signed('10.50.1.0/24'),
  other.signed(['10.50.1.0/24', 'fd77:1::/64'], { flags: { merge: true, useTtl: true } }),
  xtr.signed('10.50.1.0/24', { ttl: 0 }),
  xtr.signed('10.50.2.0/24', {
    rlocs: ['192.0.2.1', BEHIND_NAT],
    flags: { xtrId: xtrIdOf(3), siteId: 7n, proxyReply: false, securityCapable: true },
  }),
  inEcm(xtr.signed('10.50.3.0/24')),
  inEcm(asked('10.50.1.1'), true),
  inEcm(asked('10.50.2.2'), true),
  inEcm(asked('10.50.1.1', xtrIdOf(2)), true),
  asked('10.50.1.1', xtrIdOf(1)),
];

/** What became of it; all that follows from it in the next minutes is part of it. @throws what must not be */
export function receiveDatagram(input: Uint8Array): string {
  world.events.length = 0;
  world.datagrams.length = 0;
  world.receive(xtr.peer, authentic(input));
  const [event] = world.events.filter(({ kind }) => kind === 'lisp-received');
  const received = event?.kind === 'lisp-received' ? `${event.message} ${event.result}` : 'STAYPUT_NOTHING';
  world.advance(1_000);
  const sent = new Set(world.datagrams.map(({ message }) => message.type));
  return [received, ...world.events.map(({ kind }) => kind).slice(0, 4), ...sent].join(' ');
}

function asked(eid: string, subscriber?: XtrId): Uint8Array {
  const records = [{ notify: subscriber !== undefined, ...eidToRecordKey(parseEid(eid)) }];
  const itrRlocs = [ipLispAddress(xtr.peer.address)];
  const trailer = subscriber === undefined ? {} : { xtrId: subscriber, siteId: 0n };
  return encodeLispMessage({ ...MAP_REQUEST, nonce: nonce(1n), sourceEid: NO_ADDRESS, itrRlocs, records, ...trailer });
}

function inEcm(payload: Uint8Array, secured = false): Uint8Array {
  const { address } = xtr.peer;
  const flags = { ddt: false, toEtr: false, toMapServer: false, forRtr: false, relayed: false };
  const security: EcmSecurity = {
    kind: 'lisp-sec',
    requestedHmac: 0,
    keyId: 0,
    wrapping: 2,
    oneTimeKey: wrapOneTimeKey(OTK, nonceOf(payload), Buffer.from(SECRET)),
    eid: { kdf: 0 },
  };
  return encodeLispMessage({
    type: 'encapsulated-control',
    ...flags,
    ...(secured ? { security } : {}),
    source: address,
    destination: parseIpAddress('10.50.1.1'),
    hopLimit: 64,
    sourcePort: 4342,
    destinationPort: 4342,
    payload,
  });
}

function nonceOf(message: Uint8Array): Nonce {
  return nonce(message.length < 12 ? 0n : new DataView(message.buffer, message.byteOffset).getBigUint64(4));
}

function authentic(input: Uint8Array): Uint8Array {
  const outer = decoded(input);
  if (outer === undefined) return signed(input);
  const payload = signed(outer.payload);
  const { security } = outer;
  if (security?.kind !== 'lisp-sec') return encodeLispMessage({ ...outer, payload });
  const oneTimeKey = wrapOneTimeKey(OTK, nonceOf(payload), Buffer.from(SECRET));
  return encodeLispMessage({ ...outer, payload, security: { ...security, oneTimeKey } });
}

function decoded(input: Uint8Array): EncapsulatedControl | undefined {
  try {
    const message = decodeLispMessage(input);
    return message.type === 'encapsulated-control' ? message : undefined;
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

function signed(input: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(input);
  try {
    const length = new DataView(bytes.buffer).getUint16(14);
    bytes.set(computeAuthentication(bytes, Buffer.from(SECRET), 'payload').subarray(0, length), 16);
  } catch (error) {
    if (!(error instanceof DecodeError) && !(error instanceof RangeError)) throw error;
  }
  return bytes;
}
