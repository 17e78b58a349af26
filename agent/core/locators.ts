/**
 * The locators of this host: where peers can reach it.
 *
 * They come from four sources:
 *
 * - the underlay addresses that the data plane reports, interfaces with a default route first;
 * - addresses that the operator configured: a static NAT, an elastic IP;
 * - the address from which the map server saw this agent, when it is none of ours, since then a NAT is between;
 * - the public addresses that the platform reports.
 *
 * The last two are forgotten as soon as the host's addresses change: after a roam they name the network that was left.
 *
 * The address of an uplink through which nobody answers is registered as the last resort, not withheld: it may work
 * again before that is proven, and who only hears would otherwise be lost when the uplink in use falls silent too,
 * since it cannot notice.
 */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import type { LocalAddress } from '../../proto/dataplane/messages.ts';
import type { Locator } from '../../proto/mapping.ts';
import { isPlausibleLocator } from '../../proto/overlay.ts';

/** RFC 9301: peers use the lowest priority that works, and spread over equal ones by weight. */
interface Preference {
  readonly priority?: number | undefined;
  readonly weight?: number | undefined;
}

/** An address that no interface has, or how the addresses of an interface are preferred. */
export type ConfiguredLocator =
  | (Preference & { readonly address: IpAddress; readonly port?: number | undefined })
  | (Preference & { readonly interface: string });

export class Locators {
  private readonly port: number;
  private configured: readonly ConfiguredLocator[];
  private local: readonly LocalAddress[] | null = null;
  private observed: IpAddress | null = null;
  private platform: readonly IpAddress[] = [];
  private current: readonly Locator[];

  constructor(port: number, configured: readonly ConfiguredLocator[]) {
    this.port = port;
    this.configured = configured;
    this.current = this.build([]);
  }

  list(): readonly Locator[] {
    return this.current;
  }

  /** The underlay addresses of this host, as the data plane sees them. */
  get uplinks(): readonly LocalAddress[] {
    return this.local ?? [];
  }

  /** Those through which somebody answers. */
  localAddresses(): readonly IpAddress[] {
    return (this.local ?? []).flatMap(({ address, silent }) => (silent === true ? [] : [address]));
  }

  /** `moved`: other addresses than at the last call; `changed`: other locators. */
  handleLocal(
    addresses: readonly LocalAddress[],
    overlay: readonly IpPrefix[],
  ): { readonly moved: boolean; readonly changed: boolean } {
    const before = new Set(this.localAddresses());
    const known = this.local !== null;
    this.local = addresses;
    const after = this.localAddresses();
    const moved = known && (after.length !== before.size || after.some((address) => !before.has(address)));
    if (moved) {
      this.observed = null;
      this.platform = [];
    }
    return { moved, changed: this.update(overlay) };
  }

  /** True when the locators changed. */
  handleConfigured(configured: readonly ConfiguredLocator[], overlay: readonly IpPrefix[]): boolean {
    this.configured = configured;
    return this.update(overlay);
  }

  /** True when the locators changed. */
  handleObserved(address: IpAddress, overlay: readonly IpPrefix[]): boolean {
    this.observed = isPlausibleLocator(address, overlay) ? address : null;
    return this.update(overlay);
  }

  /** True when the locators changed. */
  handlePlatform(addresses: readonly IpAddress[], overlay: readonly IpPrefix[]): boolean {
    this.platform = addresses.slice(0, MAX_LOCATORS);
    return this.update(overlay);
  }

  private update(overlay: readonly IpPrefix[]): boolean {
    const next = this.build(overlay);
    if (JSON.stringify(next) === JSON.stringify(this.current)) return false;
    this.current = next;
    return true;
  }

  private build(overlay: readonly IpPrefix[]): readonly Locator[] {
    const all: Locator[] = this.configured.flatMap((locator) =>
      'address' in locator
        ? {
            address: locator.address,
            port: locator.port ?? this.port,
            priority: locator.priority ?? PRIORITY_DEFAULT_ROUTE,
            weight: locator.weight ?? WEIGHT,
          }
        : [],
    );
    const usable = (this.local ?? []).filter(({ address }) => isPlausibleLocator(address, overlay));
    for (const { address, defaultRoute, interface: name, silent } of usable) {
      const preference = this.configured.find((locator) => 'interface' in locator && locator.interface === name);
      const usual = preference?.priority ?? (defaultRoute ? PRIORITY_DEFAULT_ROUTE : PRIORITY_OTHER);
      const priority = silent === true ? Math.max(usual, PRIORITY_SILENT) : usual;
      all.push({ address, port: this.port, priority, weight: preference?.weight ?? WEIGHT });
    }
    if (this.observed !== null) {
      all.push({ address: this.observed, port: this.port, priority: PRIORITY_OBSERVED, weight: WEIGHT });
    }
    // They lead to an address of an interface: without one, to nobody.
    for (const address of usable.length === 0 ? [] : this.platform) {
      if (!isPlausibleLocator(address, overlay)) continue;
      all.push({ address, port: this.port, priority: PRIORITY_OBSERVED, weight: WEIGHT });
    }
    const seen = new Set<string>();
    return all
      .filter(({ address, port }) => {
        const key = `${address} ${port}`;
        return !seen.has(key) && seen.add(key);
      })
      .sort((a, b) => a.priority - b.priority)
      .slice(0, MAX_LOCATORS);
  }
}

const MAX_LOCATORS = 8;
const WEIGHT = 100;
const PRIORITY_DEFAULT_ROUTE = 1;
const PRIORITY_OBSERVED = 2;
const PRIORITY_OTHER = 10;
const PRIORITY_SILENT = 254;
