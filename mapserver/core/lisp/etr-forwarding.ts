/**
 * Map-Requests for sites that answer themselves: on to one of their routers, in an ECM (RFC 9301 section 8.3).
 *
 * Of the RLOCs that the site registered the best is taken that datagrams can be sent to, and its answer goes to the ITR
 * itself. An ITR that wants to verify the answer needs a router that can do LISP-SEC: then the best RLOC of these is taken,
 * and the request carries what its router needs to protect the answer (`lisp-security.ts`).
 */
import { type IpAddress, type IpFamily, ipFamily, prefixAddress } from '../../../proto/address.ts';
import { type EidKey, eidKey, type PrefixEid } from '../../../proto/eid.ts';
import type { LispAddress } from '../../../proto/lisp/afi.ts';
import type { SigningOptions } from '../../../proto/lisp/authentication.ts';
import type { EncapsulatedControl } from '../../../proto/lisp/ecm.ts';
import type { RlocRecord } from '../../../proto/lisp/eid-record.ts';
import { LISP_CONTROL_PORT, type Nonce } from '../../../proto/lisp/header.ts';
import type { EidQuery, MapRequest } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import { encodeLispMessage, type LispMessage } from '../../../proto/lisp/message.ts';
import type { EcmSecurity } from '../../../proto/lisp/security-data.ts';
import { NEVER_USE } from '../../../proto/mapping.ts';
import { isPlausibleLocator } from '../../../proto/overlay.ts';
import type { Overlay } from '../grants.ts';
import { protectedForEtr, type ReplyProtection } from './lisp-security.ts';
import type { Received, UdpPeer } from './udp-peer.ts';

/** What one router registered of an EID. */
export interface EtrRegistration {
  readonly rlocs: readonly RlocRecord[];
  /** The key that it shares with the map server, if it can do LISP-SEC. */
  readonly securedBy?: Pick<SigningOptions, 'keyId' | 'psk'>;
  /** It is as it was stored: since the map server started no router has said what it can do. */
  readonly restored: boolean;
}

/**
 * `none`: none of its routers can do LISP-SEC. `unheard`: whether they can is not known yet; the ITR asks again within
 * seconds, while it would keep an answer for a minute at least.
 */
export type ProtectedForwarding = 'asked' | 'none' | 'unheard';

export interface EtrForwarderParts {
  /** That datagrams can be sent over. */
  readonly families: ReadonlySet<IpFamily>;
  readonly overlay: Overlay;
  readonly etrsOf: (eid: EidKey) => readonly EtrRegistration[];
  readonly send: (to: UdpPeer, message: LispMessage) => void;
}

export class EtrForwarder {
  private readonly parts: EtrForwarderParts;

  constructor(parts: EtrForwarderParts) {
    this.parts = parts;
  }

  forward(received: Received<MapRequest>, query: EidQuery, eid: PrefixEid, rlocs: readonly RlocRecord[]): void {
    const etr = this.choose(rlocs, received.message.nonce);
    if (etr !== undefined) this.send(etr, received, query, eid);
  }

  /** `told`: the registered EID. */
  forwardProtected(
    received: Received<MapRequest>,
    query: EidQuery,
    eid: PrefixEid,
    told: PrefixEid,
    protection: ReplyProtection,
  ): ProtectedForwarding {
    const etrs = this.parts.etrsOf(eidKey(told));
    const capable = etrs.filter(({ securedBy }) => securedBy !== undefined);
    if (capable.length === 0) return etrs.length > 0 && etrs.every(({ restored }) => restored) ? 'unheard' : 'none';
    const { nonce } = received.message;
    const address = this.choose(
      capable.flatMap(({ rlocs }) => rlocs),
      nonce,
    );
    const chosen = capable.find(({ rlocs }) => rlocs.some(({ locator }) => plainAddress(locator) === address));
    if (address === undefined || chosen?.securedBy === undefined) return 'asked';
    const unprotectedEtrs = capable.length < etrs.length;
    const { eid: prefix, maskLength } = eidToRecordKey(told);
    const security = protectedForEtr({ eid: prefix, maskLength }, protection, nonce, chosen.securedBy, unprotectedEtrs);
    this.send(address, received, query, eid, security);
    return 'asked';
  }

  private send(
    etr: IpAddress,
    { message, bytes, ecm, from }: Received<MapRequest>,
    query: EidQuery,
    eid: PrefixEid,
    security?: EcmSecurity,
  ): void {
    const destination = prefixAddress(eid.prefix);
    const family = ipFamily(destination);
    const sources = [ecm?.source, ...message.itrRlocs.map(plainAddress)];
    const alone = message.records.length === 1;
    const inner: EncapsulatedControl = {
      type: 'encapsulated-control',
      ddt: false,
      toEtr: true,
      toMapServer: false,
      forRtr: false,
      relayed: false,
      ...(security === undefined ? {} : { security }),
      source: sources.find((each) => each !== undefined && ipFamily(each) === family) ?? UNSPECIFIED[family],
      destination,
      hopLimit: 64,
      sourcePort: ecm?.sourcePort ?? from.port,
      destinationPort: LISP_CONTROL_PORT,
      payload: alone ? bytes : encodeLispMessage({ ...message, records: [query] }),
    };
    this.parts.send({ address: etr, port: LISP_CONTROL_PORT }, inner);
  }

  /** By priority; among equal ones by their weights. */
  private choose(rlocs: readonly RlocRecord[], random: Nonce): IpAddress | undefined {
    const candidates = rlocs.flatMap(({ priority, weight, reachable, locator }) => {
      const address = plainAddress(locator);
      const fits = address !== undefined && this.isUsable(address) && reachable && priority !== NEVER_USE;
      return fits ? [{ address, priority, weight }] : [];
    });
    const best = Math.min(...candidates.map(({ priority }) => priority));
    const equal = candidates.filter(({ priority }) => priority === best);
    const total = equal.reduce((sum, { weight }) => sum + weight, 0);
    if (total === 0) return equal[Number(random % BigInt(Math.max(1, equal.length)))]?.address;
    let left = Number(random % BigInt(total));
    for (const { address, weight } of equal) {
      if (left < weight) return address;
      left -= weight;
    }
    return undefined;
  }

  /** A site could name the map server's own host, or everybody. */
  private isUsable(address: IpAddress): boolean {
    return this.parts.families.has(ipFamily(address)) && isPlausibleLocator(address, this.parts.overlay.prefixes);
  }
}

/** The address behind an ITR-RLOC or RLOC, also with keys or a NAT around it. */
export function plainAddress(address: LispAddress): IpAddress | undefined {
  switch (address.kind) {
    case 'ip':
      return address.address;
    case 'security-key':
      return plainAddress(address.address);
    case 'nat':
      return plainAddress(address.globalEtr);
    case 'afi-list':
      for (const each of address.addresses) {
        const found = plainAddress(each);
        if (found !== undefined) return found;
      }
      return undefined;
    default:
      return undefined;
  }
}

const UNSPECIFIED = { 4: '0.0.0.0' as IpAddress, 6: '::' as IpAddress };
