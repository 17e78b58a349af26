/**
 * The xTRs of the sites, as they spoke last: from where, and how they authenticate.
 *
 * An xTR is told apart by its xTR-ID, or without one by its address. What authenticates its messages is remembered, so
 * that what it is sent is made the same way: deployed routers differ from the RFC in the length and the coverage of it.
 */
import type { IpAddress } from '../../../proto/address.ts';
import type { SigningOptions } from '../../../proto/lisp/authentication.ts';
import type { UdpPeer } from './udp-peer.ts';

export interface Xtr {
  readonly site: string;
  /** xTR-ID, or address. */
  readonly id: string;
  /** Where it spoke from. */
  peer: UdpPeer;
  signing: SigningOptions;
  /** M: it wants to hear what becomes of its EIDs. */
  wantsNotify: boolean;
}

export class Xtrs {
  /** The quietest first. */
  private readonly bySite = new Map<string, Map<string, Xtr>>();
  private readonly addresses = new Map<IpAddress, number>();

  heard(site: string, id: string, last: Pick<Xtr, 'peer' | 'signing' | 'wantsNotify'>): Xtr {
    const all = this.bySite.get(site) ?? new Map<string, Xtr>();
    this.bySite.set(site, all);
    const known = all.get(id);
    if (known?.peer.address !== last.peer.address) {
      if (known !== undefined) this.count(known.peer.address, -1);
      this.count(last.peer.address, 1);
    }
    const xtr: Xtr = known === undefined ? { site, id, ...last } : Object.assign(known, last);
    all.delete(id);
    all.set(id, xtr);
    for (const [quietest, { peer }] of all) {
      if (all.size <= MAX_PER_SITE) break;
      this.count(peer.address, -1);
      all.delete(quietest);
    }
    return xtr;
  }

  /** Whether one of them spoke from this address last. */
  isAddress(address: IpAddress): boolean {
    return this.addresses.has(address);
  }

  deleteAll(site: string): void {
    for (const { peer } of this.bySite.get(site)?.values() ?? []) this.count(peer.address, -1);
    this.bySite.delete(site);
  }

  private count(address: IpAddress, by: number): void {
    const count = (this.addresses.get(address) ?? 0) + by;
    if (count > 0) this.addresses.set(address, count);
    else this.addresses.delete(address);
  }
}

/** Beyond, the one that was quiet for longest is forgotten; what it registered stays for its time. */
const MAX_PER_SITE = 1_024;
