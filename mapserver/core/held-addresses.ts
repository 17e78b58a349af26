/**
 * Which single addresses are granted to agents, so that a free one in a pool is found without a look at all of them.
 *
 * An address is held while an agent that is not revoked is granted just it. In the binary tree of addresses a node is
 * _full_ when all hosts below it are held; only full nodes are kept, fewer than two for each held address. So holding,
 * giving back and finding take steps by the length of an address, however many are held.
 */
import { type IpFamily, type IpPrefix, ipFamily, isHostPrefix, prefixAddress } from '../../proto/address.ts';
import { lastHost, type PrefixNode, prefixNode } from '../../proto/prefix-node.ts';
import type { StoreRecord } from './records.ts';

export class HeldAddresses {
  private readonly full: Readonly<Record<IpFamily, Set<PrefixNode>>> = { 4: new Set(), 6: new Set() };
  private readonly holders = new Map<IpPrefix, number>();

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    // Counted up first: what is in both never goes away.
    for (const eid of hostsGranted(after)) this.hold(eid);
    for (const eid of hostsGranted(before)) this.giveBack(eid);
  }

  /** The first from `from` to `to` that nobody holds; both are hosts of one family. */
  firstFree(family: IpFamily, from: PrefixNode, to: PrefixNode): PrefixNode | undefined {
    const full = this.full[family];
    let host = from;
    while (host <= to && full.has(host)) {
      let node = host;
      while (full.has(node >> 1n)) node >>= 1n;
      host = lastHost(family, node) + 1n;
    }
    return host <= to ? host : undefined;
  }

  private hold(eid: IpPrefix): void {
    const count = this.holders.get(eid) ?? 0;
    this.holders.set(eid, count + 1);
    if (count > 0) return;
    const full = this.full[ipFamily(prefixAddress(eid))];
    let node = prefixNode(eid);
    full.add(node);
    while (full.has(node ^ 1n)) {
      node >>= 1n;
      full.add(node);
    }
  }

  private giveBack(eid: IpPrefix): void {
    const count = this.holders.get(eid) ?? 0;
    if (count > 1) {
      this.holders.set(eid, count - 1);
      return;
    }
    this.holders.delete(eid);
    const full = this.full[ipFamily(prefixAddress(eid))];
    let node = prefixNode(eid);
    while (full.delete(node)) node >>= 1n;
  }
}

function hostsGranted(record: StoreRecord | undefined): readonly IpPrefix[] {
  if (record?.kind !== 'agent' || record.revokedAt !== undefined) return [];
  return [...new Set(record.eids)].filter(isHostPrefix);
}
