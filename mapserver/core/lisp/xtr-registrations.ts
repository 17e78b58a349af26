/**
 * Which xTR of a site has registered which RLOCs for an EID, and until when: the soft state behind a site's mapping.
 *
 * Without the merge bit the latest registration of a site replaces those of its other xTRs; with it, the RLOCs of all
 * that set it are the mapping (RFC 9301 section 5.6). Sites are kept apart: who owns the EID is decided elsewhere. After
 * a restart the mapping as stored counts as the registration of an unknown xTR, until the real ones have spoken again.
 */
import { Writer } from '../../../proto/bytes.ts';
import type { EidKey } from '../../../proto/eid.ts';
import { encodeAddress } from '../../../proto/lisp/afi.ts';
import type { RlocRecord } from '../../../proto/lisp/eid-record.ts';
import type { Instant } from '../../../proto/time.ts';
import { Deadlines } from '../deadlines.ts';
import type { Xtr } from './xtrs.ts';

/** What one xTR says of an EID, or all together. */
export interface RegisteredContent {
  /** Minutes. */
  readonly ttl: number;
  readonly mapVersion: number;
  readonly rlocs: readonly RlocRecord[];
  readonly proxyReply: boolean;
  readonly merge: boolean;
  /** S: the xTR can do LISP-SEC. */
  readonly securityCapable: boolean;
}

export interface XtrRegistration {
  readonly eid: EidKey;
  readonly site: string;
  /** Undefined: as it was stored. */
  readonly xtr: Xtr | undefined;
  readonly content: RegisteredContent;
  /** All that it said, to see whether a refresh says anything new. */
  readonly fingerprint: string;
}

export class XtrRegistrations {
  private readonly byEid = new Map<EidKey, XtrRegistration[]>();
  private readonly deadlines = new Deadlines<XtrRegistration>();

  get size(): number {
    return this.deadlines.size;
  }

  /** False: it is no refresh, but news. */
  refresh(eid: EidKey, xtr: Xtr, fingerprint: string, expiresAt: Instant): boolean {
    const known = this.byEid.get(eid)?.find((each) => each.xtr === xtr);
    if (known?.fingerprint !== fingerprint) return false;
    this.deadlines.set(known, expiresAt);
    return true;
  }

  /** Returns the xTRs of the site whose registrations it replaces. */
  put(registration: XtrRegistration, expiresAt: Instant): Xtr[] {
    const { eid, site, xtr, content } = registration;
    const replaced = this.remove(eid, (each) => {
      return each.site === site && (each.xtr === xtr || !content.merge || !each.content.merge);
    });
    const known = this.byEid.get(eid);
    if (known === undefined) this.byEid.set(eid, [registration]);
    else known.push(registration);
    this.deadlines.set(registration, expiresAt);
    if (known !== undefined && known.length > MAX_XTRS) {
      const quietest = known.shift();
      if (quietest !== undefined) this.deadlines.delete(quietest);
    }
    return replaced.flatMap((each) => (each.xtr === undefined || each.xtr === xtr ? [] : [each.xtr]));
  }

  /** `stored`: also what was stored, which could be its own. */
  delete(eid: EidKey, xtr: Xtr, stored = false): void {
    this.remove(eid, (each) => each.xtr === xtr || (stored && each.xtr === undefined && each.site === xtr.site));
  }

  /** All but those of `site`, which are of no owner any more. */
  deleteOthers(eid: EidKey, site: string | undefined): XtrRegistration[] {
    return this.remove(eid, (each) => each.site !== site);
  }

  /** Those of one site. */
  of(eid: EidKey, site: string): XtrRegistration[] {
    return this.byEid.get(eid)?.filter((each) => each.site === site) ?? [];
  }

  /** Those that have not been refreshed in time; they are gone. */
  expire(now: Instant): XtrRegistration[] {
    const expired = this.deadlines.take(now);
    for (const each of expired) this.remove(each.eid, (other) => other === each);
    return expired;
  }

  pollTimeout(): Instant | undefined {
    return this.deadlines.next();
  }

  private remove(eid: EidKey, fits: (registration: XtrRegistration) => boolean): XtrRegistration[] {
    const all = this.byEid.get(eid) ?? [];
    const removed = all.filter(fits);
    if (removed.length === 0) return removed;
    for (const each of removed) this.deadlines.delete(each);
    const left = all.filter((each) => !removed.includes(each));
    if (left.length > 0) this.byEid.set(eid, left);
    else this.byEid.delete(eid);
    return removed;
  }
}

/** The mapping that registrations of one site make together; undefined: none. */
export function merged(registrations: readonly XtrRegistration[]): RegisteredContent | undefined {
  const last = registrations.at(-1)?.content;
  if (last === undefined) return undefined;
  const contents = registrations.map(({ content }) => content);
  return {
    ...last,
    rlocs: sorted(contents.flatMap(({ rlocs }) => rlocs)),
    proxyReply: contents.some(({ proxyReply }) => proxyReply),
  };
}

/** Ascending, as the standard has it, and each locator once, as its latest registration has it; as many as fit. */
function sorted(rlocs: readonly RlocRecord[]): readonly RlocRecord[] {
  const byOctets = new Map(rlocs.map((rloc) => [octetsOf(rloc), rloc]));
  const kept: RlocRecord[] = [];
  let room = MAX_OCTETS;
  for (const [octets, rloc] of [...byOctets].sort(([a], [b]) => (a < b ? -1 : 1))) {
    room -= octets.length / 2;
    if (room < 0 || kept.length === MAX_RLOCS) break;
    kept.push(rloc);
  }
  return kept;
}

function octetsOf({ locator }: RlocRecord): string {
  const writer = new Writer();
  encodeAddress(locator, writer);
  return Buffer.from(writer.finish()).toString('hex');
}

/** Of a mapping: what several xTRs say of an EID has to fit into a message, and into the store. */
const MAX_RLOCS = 32;
const MAX_OCTETS = 4_096;
/** That register the same EID; the one that said something new longest ago is forgotten first. */
export const MAX_XTRS = 256;
