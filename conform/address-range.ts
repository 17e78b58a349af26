/**
 * The addresses that a run may use, handed out in blocks, so that checks that run side by side do not meet. Blocks come
 * round again when all were used, which is long after what was in them has been withdrawn.
 */
import {
  type IpAddress,
  type IpPrefix,
  ipFamily,
  ipFromBytes,
  ipPrefix,
  ipToBytes,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../proto/address.ts';
import { UsageError } from '../proto/errors.ts';

export interface AddressBlock {
  /** One of eight IPv4 addresses. */
  v4(host: number): IpAddress;
  /** An address of a /64 of the block's own. */
  v6(host: number): IpAddress;
  /** Whether it and the prefix have an address in common. */
  meets(prefix: IpPrefix): boolean;
}

export class AddressRange {
  private readonly v4: IpPrefix;
  private readonly v6: IpPrefix;
  private taken = 0;

  /** @throws UsageError when a prefix has too little room */
  constructor(prefixes: readonly IpPrefix[], fallback: { readonly v4: string; readonly v6: string }) {
    const of = (family: 4 | 6): IpPrefix | undefined =>
      prefixes.find((prefix) => ipFamily(prefixAddress(prefix)) === family);
    this.v4 = of(4) ?? (fallback.v4 as IpPrefix);
    this.v6 = of(6) ?? (fallback.v6 as IpPrefix);
    if (prefixLength(this.v4) > 24) throw new UsageError(`${this.v4} is too small: a /24 or larger is needed`);
    if (prefixLength(this.v6) > 56) throw new UsageError(`${this.v6} is too small: a /56 or larger is needed`);
  }

  get prefixes(): readonly IpPrefix[] {
    return [this.v4, this.v6];
  }

  next(): AddressBlock {
    const number = this.taken++;
    const v4 = number % 2 ** (29 - prefixLength(this.v4));
    const v6 = number % 2 ** Math.min(30, 64 - prefixLength(this.v6));
    const start = { v4: plus(prefixAddress(this.v4), v4 * 8, 4), v6: plus(prefixAddress(this.v6), v6, 8) };
    const own = [ipPrefix(start.v4, 29), ipPrefix(start.v6, 64)];
    return {
      v4: (host) => plus(start.v4, host & 7, 4),
      v6: (host) => plus(start.v6, host, 16),
      meets: (prefix) => own.some((each) => prefixContains(each, prefix) || prefixContains(prefix, each)),
    };
  }
}

/** Adds to the number whose last octet is the one before `end`. */
function plus(address: IpAddress, number: number, end: number): IpAddress {
  const octets = ipToBytes(address);
  let rest = number;
  for (let at = end - 1; at >= 0 && rest > 0; at--) {
    rest += octets[at] ?? 0;
    octets[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return ipFromBytes(octets);
}
