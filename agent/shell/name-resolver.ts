/** What the DNS server asks the agent: names and addresses of the overlay, from the map-cache or by one resolution. */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import type { ZoneData } from '../../proto/dns/record-sets.ts';

export type NameAnswer =
  | {
      readonly kind: 'found';
      readonly addresses: readonly IpAddress[];
      /** What else the zone has at the name. */
      readonly zone?: ZoneData | undefined;
      readonly stale: boolean;
    }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unavailable' };

export type PointerAnswer =
  | { readonly kind: 'found'; readonly names: readonly string[]; readonly stale: boolean }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unavailable' };

export interface NameResolver {
  /** E.g. `stayput.internal`. */
  readonly zone: string;
  /** The reverse zones that we are authoritative for. */
  readonly overlay: readonly IpPrefix[];
  /** While it is the same, and for a second at most, so are the answers. */
  readonly version: number;
  /**
   * From the map-cache at once, else one resolution with subscription (bounded time). `name` is relative to the zone,
   * or APEX.
   */
  resolveName(name: string): Promise<NameAnswer>;
  resolvePointer(address: IpAddress): Promise<PointerAnswer>;
}
