/**
 * Asks plain ITRs to ask again, when what they were told has changed (SMR, RFC 9301 section 6.1).
 *
 * The first SMR to an RLOC goes at once; after that an RLOC gets one in INTERVAL, whatever changes. One that is not
 * followed by a Map-Request for the EID is sent again, TRIES times in all, and nothing is sent of what the ITR has
 * forgotten by itself. An SMR names the EID that changed as its source EID, and asks for the EID that the ITR itself
 * had asked for, as ITRs look for the source EID in their map-caches. Bounded per RLOC and in all: what is not told
 * ends with the TTL of what was answered.
 */
import { type IpAddress, type IpFamily, ipFamily, prefixContains, prefixLength } from '../../../proto/address.ts';
import { type EidKey, eidKey, type PrefixEid } from '../../../proto/eid.ts';
import { ipLispAddress, type LispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import type { Nonce } from '../../../proto/lisp/header.ts';
import { type EidQuery, MAP_REQUEST, type MapRequest } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import { type Instant, seconds } from '../../../proto/time.ts';
import type { RememberedItr } from './itr-memory.ts';

export interface SolicitorParts {
  readonly randomNonce: () => Nonce;
  /** An address of the map server, for the ITR-RLOC that a Map-Request has to have. */
  readonly ownRloc: (family: IpFamily) => IpAddress | undefined;
  readonly send: (to: IpAddress, message: MapRequest) => void;
}

export class Solicitor {
  private readonly parts: SolicitorParts;
  /** The one that was sent to longest ago first. */
  private readonly itrs = new Map<IpAddress, Solicited>();

  constructor(parts: SolicitorParts) {
    this.parts = parts;
  }

  /** How many ITRs are being solicited, or were within INTERVAL. */
  get size(): number {
    return this.itrs.size;
  }

  /** `changed` is another EID than the ITR was told of, or the same. */
  solicit(itr: RememberedItr, changed: PrefixEid, now: Instant): void {
    const { rloc, told } = itr;
    const eid = prefixLength(told.prefix) > prefixLength(changed.prefix) ? told : changed;
    const solicitation = { itr, eid, tries: 0 };
    const known = this.itrs.get(rloc);
    if (known !== undefined) {
      if (known.queue.size < MAX_QUEUE || known.queue.has(eidKey(eid))) known.queue.set(eidKey(eid), solicitation);
      return;
    }
    if (this.itrs.size >= MAX_ITRS) return;
    this.sendFirst(rloc, new Map([[eidKey(eid), solicitation]]), now);
  }

  /** The ITR asks for `eid`: whatever it was to be told of that it is told now. */
  handleRequest(rloc: IpAddress, eid: PrefixEid): void {
    const queue = this.itrs.get(rloc)?.queue;
    if (queue === undefined) return;
    for (const [key, { eid: changed }] of queue) {
      if (changed.iid !== eid.iid) continue;
      if (prefixContains(changed.prefix, eid.prefix) || prefixContains(eid.prefix, changed.prefix)) queue.delete(key);
    }
  }

  handleTimeout(now: Instant): void {
    for (const [rloc, { nextAt, queue }] of this.itrs) {
      if (nextAt > now) return;
      this.itrs.delete(rloc);
      this.sendFirst(rloc, queue, now);
    }
  }

  pollTimeout(): Instant | undefined {
    for (const { nextAt } of this.itrs.values()) return nextAt;
    return undefined;
  }

  private sendFirst(rloc: IpAddress, queue: Map<EidKey, Solicitation>, now: Instant): void {
    for (const [key, { itr, eid, tries }] of queue) {
      queue.delete(key);
      if (itr.endsAt <= now) continue;
      this.parts.send(rloc, this.message(itr, eid));
      if (tries + 1 < TRIES) queue.set(key, { itr, eid, tries: tries + 1 });
      this.itrs.set(rloc, { nextAt: now + INTERVAL, queue });
      return;
    }
  }

  private message({ rloc, told, sourceEid }: RememberedItr, eid: PrefixEid): MapRequest {
    const { randomNonce, ownRloc } = this.parts;
    const own = ownRloc(ipFamily(rloc));
    return {
      ...MAP_REQUEST,
      smr: true,
      nonce: randomNonce(),
      sourceEid: eidToRecordKey(eid).eid,
      itrRlocs: [own === undefined ? NO_ADDRESS : ipLispAddress(own)],
      records: [queryFor(sourceEid) ?? { notify: false, ...eidToRecordKey(told) }],
    };
  }
}

interface Solicited {
  readonly nextAt: Instant;
  /** By the EID that changed. */
  readonly queue: Map<EidKey, Solicitation>;
}

interface Solicitation {
  readonly itr: RememberedItr;
  readonly eid: PrefixEid;
  readonly tries: number;
}

/** For the host whose packet made the ITR ask; undefined when it did not say. */
function queryFor(sourceEid: LispAddress): EidQuery | undefined {
  const inner = sourceEid.kind === 'instance-id' ? sourceEid.address : sourceEid;
  if (inner.kind !== 'ip') return undefined;
  return { notify: false, eid: sourceEid, maskLength: ipFamily(inner.address) === 4 ? 32 : 128 };
}

const INTERVAL = seconds(3);
const TRIES = 3;
const MAX_QUEUE = 256;
const MAX_ITRS = 20_000;
