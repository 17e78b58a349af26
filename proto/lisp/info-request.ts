/**
 * Info-Request and Info-Reply (draft-ermagan-lisp-nat-traversal).
 *
 * ```
 * |Type=7 |R|                    Reserved                         |   R: Info-Reply
 * |                             Nonce                             |
 * |    Key ID     | Algorithm ID  |  Authentication Data Length   |
 * | Authentication Data ...                                       |
 * | TTL (32), minutes                                             |
 * | Reserved (8) | EID mask-len (8) | EID-Prefix-AFI (16) | EID ...|
 * | AFI 0 (16)                                                    |   request; lispers.net: its host name, AFI 17
 * | LCAF type 7: the addresses and ports that the map server saw  |   reply
 * ```
 */
import type { Reader, Writer } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress, NO_ADDRESS } from './afi.ts';
import {
  type Authentication,
  decodeAuthentication,
  encodeAuthentication,
  NO_AUTHENTICATION,
} from './authentication-data.ts';
import { bit, decodeNonce, encodeWord0, isSet, type Nonce, TYPE } from './header.ts';
import type { NatAddress } from './lcaf.ts';

export interface InfoRequest extends InfoBody {
  readonly type: 'info-request';
  /** Who asks, where the draft has AFI 0. */
  readonly sender: LispAddress;
}

export interface InfoReply extends InfoBody {
  readonly type: 'info-reply';
  readonly nat: NatAddress;
}

export interface InfoBody {
  readonly nonce: Nonce;
  readonly authentication: Authentication;
  /** Minutes. */
  readonly ttl: number;
  readonly maskLength: number;
  readonly eid: LispAddress;
}

/** A plain Info-Request, of nobody and about no EID: its nonce, and who asks, are to be added. */
export const INFO_REQUEST = {
  type: 'info-request',
  authentication: NO_AUTHENTICATION,
  ttl: 0,
  maskLength: 0,
  eid: NO_ADDRESS,
  sender: NO_ADDRESS,
} as const satisfies Partial<InfoRequest>;

export function decodeInfo(reader: Reader): InfoRequest | InfoReply {
  const word = reader.u32('header');
  const infoNonce = decodeNonce(reader);
  const authentication = decodeAuthentication(reader);
  const ttl = reader.u32('TTL');
  reader.skip(1, 'reserved');
  const maskLength = reader.u8('EID mask-len');
  const body: InfoBody = { nonce: infoNonce, authentication, ttl, maskLength, eid: decodeAddress(reader, 'EID') };
  if (!isSet(word, R)) return { type: 'info-request', ...body, sender: decodeSender(reader) };
  const nat = decodeAddress(reader, 'NAT address');
  if (nat.kind !== 'nat') throw reader.fail('NAT address', 'an Info-Reply carries LCAF type 7');
  return { type: 'info-reply', ...body, nat };
}

export function encodeInfo(info: InfoRequest | InfoReply, writer: Writer): void {
  encodeWord0(TYPE.info, [bit(info.type === 'info-reply', R)], writer);
  writer.u64(info.nonce, 'nonce');
  encodeAuthentication(info.authentication, writer);
  writer.u32(info.ttl, 'TTL').u8(0, 'reserved').u8(info.maskLength, 'EID mask-len');
  encodeAddress(info.eid, writer);
  encodeAddress(info.type === 'info-reply' ? info.nat : info.sender, writer);
}

function decodeSender(reader: Reader): LispAddress {
  return reader.remaining === 0 ? NO_ADDRESS : decodeAddress(reader, 'sender');
}

const R = 0x0800_0000;
