import { type IpPrefix, ipFromBytes, ipPrefix } from '../../proto/address.ts';

/** The EID of this number: 10.0.0.0/32 and up. */
export function benchEid(index: number): IpPrefix {
  return ipPrefix(ipFromBytes(Uint8Array.of(10, (index >> 16) & 0xff, (index >> 8) & 0xff, index & 0xff)), 32);
}
