/** A map server that datagrams are thrown at, authentic ones as well: what has a MAC gets the right one. */
import { parseIpAddress } from '../../proto/address.ts';
import { DecodeError } from '../../proto/errors.ts';
import { ipLispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { computeAuthentication } from '../../proto/lisp/authentication.ts';
import type { NatAddress } from '../../proto/lisp/lcaf.ts';
import { CoreWorld } from '../mapserver/core-world.ts';
import { addSite, SECRET, SiteXtr, xtrIdOf } from '../mapserver/site-world.ts';

const world = new CoreWorld({ lisp: { messagesPerSecond: 1_000_000 } });
addSite(world, 'fuzzed', { within: ['10.0.0.0/8', 'fd77::/16'], legacyReplay: true });
const xtr = new SiteXtr(world, '192.0.2.1');
const other = new SiteXtr(world, '192.0.2.2', 2);
world.agent('follower').subscribe('10.50.1.7');

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

function authentic(input: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(input);
  try {
    const length = new DataView(bytes.buffer).getUint16(14);
    bytes.set(computeAuthentication(bytes, Buffer.from(SECRET), 'payload').subarray(0, length), 16);
  } catch (error) {
    if (!(error instanceof DecodeError) && !(error instanceof RangeError)) throw error;
  }
  return bytes;
}
