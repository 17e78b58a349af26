/**
 * The xTRs of the sites, as they spoke last: from where, and how they authenticate.
 *
 * An xTR is told apart by its xTR-ID, or without one by its address. What authenticates its messages is remembered, so
 * that what it is sent is made the same way: deployed routers differ from the RFC in the length and the coverage of it.
 */
import type { IpAddress } from '../../../proto/address.ts';
import { type SigningOptions, signMessage, verifyAuthentication } from '../../../proto/lisp/authentication.ts';
import { LISP_CONTROL_PORT } from '../../../proto/lisp/header.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import type { SiteKey } from '../records.ts';
import type { NotifyRecipient } from './site-notifier.ts';
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
  /** The one that spoke last behind the others. */
  private readonly byAddress = new Map<IpAddress, Set<Xtr>>();
  private readonly byId = new Map<string, Set<Xtr>>();

  heard(site: string, id: string, last: Pick<Xtr, 'peer' | 'signing' | 'wantsNotify'>): Xtr {
    const all = this.bySite.get(site) ?? new Map<string, Xtr>();
    this.bySite.set(site, all);
    const known = all.get(id);
    if (known !== undefined) this.forget(all, known);
    const xtr: Xtr = known === undefined ? { site, id, ...last } : Object.assign(known, last);
    all.set(id, xtr);
    add(this.byId, id, xtr);
    add(this.byAddress, xtr.peer.address, xtr);
    for (const quietest of all.values()) {
      if (all.size <= MAX_PER_SITE) break;
      this.forget(all, quietest);
    }
    return xtr;
  }

  /** Whether one of them spoke from this address last. */
  isAddress(address: IpAddress): boolean {
    return this.byAddress.has(address);
  }

  /**
   * The xTR with this ID, the one at one of the addresses before others that claim it; if there is none, one that is at an
   * address. `sites`: of no others than these.
   */
  find(xtrId: XtrId, addresses: readonly IpAddress[], sites?: readonly string[]): Xtr | undefined {
    const isOfThem = ({ site }: Xtr): boolean => sites === undefined || sites.includes(site);
    const named = [...(this.byId.get(xtrId) ?? [])];
    if (named.length === 0) return this.at(addresses).find(isOfThem);
    const fitting = named.filter(isOfThem);
    return fitting.find(({ peer }) => addresses.includes(peer.address)) ?? fitting.at(-1);
  }

  /** Those that spoke from one of the addresses last. */
  at(addresses: readonly IpAddress[]): Xtr[] {
    return addresses.flatMap((address) => [...(this.byAddress.get(address) ?? [])]);
  }

  /** Those that authenticate by a key that the site has not any more have no say until they speak by another. */
  followKeys(site: string, keys: readonly SiteKey[]): void {
    const all = this.bySite.get(site) ?? new Map<string, Xtr>();
    for (const xtr of [...all.values()]) {
      const { keyId, algorithm, psk } = xtr.signing;
      const isKept = keys.some((key) => {
        return key.keyId === keyId && key.algorithm === algorithm && Buffer.from(key.secret, 'base64').equals(psk);
      });
      if (!isKept) this.forget(all, xtr);
    }
    if (all.size === 0) this.bySite.delete(site);
  }

  private forget(all: Map<string, Xtr>, xtr: Xtr): void {
    all.delete(xtr.id);
    remove(this.byId, xtr.id, xtr);
    remove(this.byAddress, xtr.peer.address, xtr);
  }
}

function add<K>(sets: Map<K, Set<Xtr>>, key: K, xtr: Xtr): void {
  const set = sets.get(key) ?? new Set<Xtr>();
  sets.set(key, set.add(xtr));
}

function remove<K>(sets: Map<K, Set<Xtr>>, key: K, xtr: Xtr): void {
  const set = sets.get(key);
  set?.delete(xtr);
  if (set?.size === 0) sets.delete(key);
}

/** `peers`: where it is reached; undefined: where LISP is spoken, and where it spoke from. */
export function recipientOf({ site, id, peer, signing }: Xtr, peers?: readonly UdpPeer[]): NotifyRecipient {
  const known = peer.port === LISP_CONTROL_PORT ? [peer] : [{ ...peer, port: LISP_CONTROL_PORT }, peer];
  return {
    id: `${site} ${id}`,
    peers: peers ?? known,
    sign: (notify) => signMessage(notify, signing),
    isFrom: (ack) => verifyAuthentication(ack, signing.psk).ok,
  };
}

/** Beyond, the one that was quiet for longest is forgotten; what it registered stays for its time. */
const MAX_PER_SITE = 1_024;
