/** Who speaks LISP over UDP, and what came from it. */
import { type IpAddress, ipFamily, ipPrefix } from '../../../proto/address.ts';
import type { EncapsulatedControl } from '../../../proto/lisp/ecm.ts';
import type { LispMessage } from '../../../proto/lisp/message.ts';

export interface UdpPeer {
  readonly address: IpAddress;
  readonly port: number;
  /** Which of the own sockets it spoke to, and is answered from. Missing: any of the family. */
  readonly socket?: number;
}

export interface Received<M extends LispMessage> {
  readonly message: M;
  /** The message as it came, without an ECM around it: authentication is over these octets. */
  readonly bytes: Uint8Array;
  /** Of the datagram. */
  readonly from: UdpPeer;
  /** What it came in. */
  readonly ecm?: EncapsulatedControl;
}

/** Whom a datagram is charged to: its address, of IPv6 the /64, since whoever has one address there has them all. */
export function chargedTo({ address }: UdpPeer): string {
  return ipFamily(address) === 4 ? address : ipPrefix(address, 64);
}

export function peerKey({ address, port }: UdpPeer): string {
  return `${address} ${port}`;
}
