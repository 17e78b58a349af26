/** The zones of in-addr.arpa (RFC 1035 section 3.5) and ip6.arpa (RFC 3596 section 2.5) that a prefix spans. */
import {
  hostPrefix,
  type IpAddress,
  type IpPrefix,
  ipFamily,
  ipToBytes,
  prefixAddress,
  prefixLength,
} from '../address.ts';

/**
 * Cut at the first whole octet (IPv4) or nibble (IPv6) inside the prefix: `10.80.4.0/22` is four zones of a /24. The
 * names are without the final dot. At most 128 (IPv4) or 8 (IPv6).
 */
export function reverseZones(prefix: IpPrefix): string[] {
  const address = prefixAddress(prefix);
  const isV4 = ipFamily(address) === 4;
  const bits = isV4 ? 8 : 4;
  const labels = isV4 ? [...ipToBytes(address)] : nibbles(ipToBytes(address));
  const whole = Math.ceil(prefixLength(prefix) / bits);
  const count = 2 ** (whole * bits - prefixLength(prefix));
  const [last = 0, ...upper] = labels.slice(0, whole).reverse();
  const root = isV4 ? 'in-addr.arpa' : 'ip6.arpa';
  if (whole === 0) return [root];
  return Array.from({ length: count }, (_, i) =>
    [last + i, ...upper]
      .map((label) => label.toString(isV4 ? 10 : 16))
      .concat(root)
      .join('.'),
  );
}

/** The name that an address is asked for by. */
export function reverseName(address: IpAddress): string {
  return reverseZones(hostPrefix(address))[0] ?? '';
}

function nibbles(bytes: Uint8Array): number[] {
  return [...bytes].flatMap((byte) => [byte >> 4, byte & 15]);
}
