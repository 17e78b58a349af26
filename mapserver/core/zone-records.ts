/**
 * The records of one zone as a primary name server keeps them: all of them at one serial, and the differences that
 * led there (RFC 1995).
 *
 * Records come from sources (a name of the overlay); what two sources say is there once, until neither says it any
 * more. Changes gather until `commit` gives them a serial. The journal is bounded by the number of its records: who is
 * further behind takes the whole zone.
 */
import { CLASS } from '../../proto/dns/header.ts';
import { TYPE } from '../../proto/dns/message.ts';
import { encodeName, isWithin, parentOf, readName } from '../../proto/dns/name.ts';
import { type ResourceRecord, recordIdentity } from '../../proto/dns/sections.ts';

/** Serial number arithmetic (RFC 1982) is modulo 2^32. */
export type Serial = number;

export interface ZoneChange {
  readonly from: Serial;
  readonly to: Serial;
  readonly removed: readonly ResourceRecord[];
  readonly added: readonly ResourceRecord[];
}

export interface ZoneApex {
  readonly origin: string;
  /** Host names, of NS; the first is that of SOA. */
  readonly nameServers: readonly string[];
}

export type ZoneLookup =
  | { readonly kind: 'records'; readonly records: readonly ResourceRecord[] }
  | { readonly kind: 'no-data' }
  | { readonly kind: 'referral'; readonly servers: readonly ResourceRecord[]; readonly glue: readonly ResourceRecord[] }
  | { readonly kind: 'absent' };

export class ZoneRecords {
  readonly origin: string;
  private readonly apex: ZoneApex;
  private readonly nodes = new Map<string, Held[]>();
  /** Owners at or below a name, for names that have no records themselves. */
  private readonly below = new Map<string, number>();
  private readonly added = new Map<string, ResourceRecord>();
  private readonly removed = new Map<string, ResourceRecord>();
  private readonly journal: ZoneChange[] = [];
  private journalled = 0;
  private current: Serial;
  private count = 0;
  private begun = false;

  constructor(apex: ZoneApex, serial: Serial) {
    this.origin = apex.origin;
    this.apex = apex;
    this.current = serial;
  }

  get serial(): Serial {
    return this.current;
  }

  /** Records, without those of the apex. */
  get size(): number {
    return this.count;
  }

  get isChanged(): boolean {
    return this.added.size + this.removed.size > 0;
  }

  put(record: ResourceRecord): void {
    const node = this.nodes.get(record.name) ?? [];
    const held = node.find((each) => isSame(each.record, record));
    if (held !== undefined) {
      held.sources++;
      return;
    }
    if (node.length === 0) {
      this.occupy(record.name, 1);
      this.nodes.set(record.name, node);
    }
    node.push({ record, sources: 1 });
    this.count++;
    this.note(this.removed, this.added, record);
  }

  take(record: ResourceRecord): void {
    const node = this.nodes.get(record.name) ?? [];
    const at = node.findIndex((each) => isSame(each.record, record));
    const held = node[at];
    if (held === undefined) return;
    held.sources--;
    if (held.sources > 0) return;
    node.splice(at, 1);
    this.count--;
    if (node.length === 0) {
      this.nodes.delete(record.name);
      this.occupy(record.name, -1);
    }
    this.note(this.added, this.removed, record);
  }

  /** What has changed is at this serial from now on. */
  commit(serial: Serial): void {
    const change = {
      from: this.current,
      to: serial,
      removed: [...this.removed.values()],
      added: [...this.added.values()],
    };
    this.current = serial;
    this.removed.clear();
    this.added.clear();
    this.journal.push(change);
    this.journalled += sizeOf(change);
    while (this.journalled > MAX_JOURNAL || this.journal.length > MAX_CHANGES) {
      const oldest = this.journal.shift();
      if (oldest === undefined) break;
      this.journalled -= sizeOf(oldest);
    }
  }

  /** It is complete at this serial. Nobody has seen it before, so what was put is no difference to anybody. */
  begin(serial: Serial): void {
    this.current = serial;
    this.begun = true;
  }

  /** From `serial` on, in order; undefined when that is not known, or the whole zone is less. */
  changesSince(serial: Serial): readonly ZoneChange[] | undefined {
    const start = this.journal.findIndex(({ from }) => from === serial);
    if (start < 0) return undefined;
    const changes = this.journal.slice(start);
    return changes.reduce((sum, change) => sum + sizeOf(change) + 2, 0) > this.count + 2 ? undefined : changes;
  }

  /** All records as they are now, also when they change afterwards; without those of the apex. */
  snapshot(): ResourceRecord[] {
    const records: ResourceRecord[] = [];
    for (const node of this.nodes.values()) for (const { record } of node) records.push(record);
    return records;
  }

  soa(serial: Serial = this.current): ResourceRecord {
    const rdata = new Uint8Array([
      ...encodeName(this.apex.nameServers[0] ?? this.origin),
      ...encodeName('nobody.invalid'),
      ...[serial, REFRESH, RETRY, EXPIRE, NEGATIVE_TTL].flatMap((value) => [
        value >>> 24,
        (value >>> 16) & 0xff,
        (value >>> 8) & 0xff,
        value & 0xff,
      ]),
    ]);
    return { name: this.origin, type: TYPE.soa, class: CLASS.in, ttl: ZONE_TTL, rdata };
  }

  /** Of a negative answer (RFC 2308 section 5). */
  negativeSoa(): ResourceRecord {
    return { ...this.soa(), ttl: NEGATIVE_TTL };
  }

  /** Where a CNAME leads, if that is in this zone. */
  aliasInside(alias: ResourceRecord): string | undefined {
    const { name } = readName(alias.rdata, 0);
    return isWithin(name, this.origin) ? name : undefined;
  }

  nameServers(): ResourceRecord[] {
    const hosts = this.apex.nameServers.length === 0 ? [this.origin] : this.apex.nameServers;
    return hosts.map((host) => ({
      name: this.origin,
      type: TYPE.ns,
      class: CLASS.in,
      ttl: ZONE_TTL,
      rdata: encodeName(host),
    }));
  }

  /** All at exactly this name, those of the apex included. */
  at(name: string): ResourceRecord[] {
    const records = (this.nodes.get(name) ?? []).map(({ record }) => record);
    return name === this.origin ? [this.soa(), ...this.nameServers(), ...records] : records;
  }

  /** RFC 1034 section 4.3.2, for a name in the zone. Type ANY gets one RRset (RFC 8482). */
  find(name: string, type: number): ZoneLookup {
    const cut = this.cutAbove(name);
    if (cut !== undefined) {
      const servers = this.at(cut).filter((record) => record.type === TYPE.ns);
      return { kind: 'referral', servers, glue: this.glueBelow(cut, servers) };
    }
    const owner = this.nodes.has(name) || name === this.origin ? name : undefined;
    if (owner === undefined && this.below.has(name)) return { kind: 'no-data' };
    const records = owner === undefined ? this.fromWildcard(name) : this.at(owner);
    if (records.length === 0) return { kind: 'absent' };
    const first = records[0]?.type;
    const wanted = type === TYPE.any ? first : type;
    const matching = records.filter((record) => record.type === wanted);
    const found = matching.length > 0 ? matching : records.filter((record) => record.type === TYPE.cname);
    return found.length > 0 ? { kind: 'records', records: found } : { kind: 'no-data' };
  }

  /** The highest delegated name at or above it. */
  cutAbove(name: string): string | undefined {
    let cut: string | undefined;
    for (let each = name; each !== this.origin; each = parentOf(each) ?? this.origin) {
      if (this.nodes.get(each)?.some(({ record }) => record.type === TYPE.ns) === true) cut = each;
    }
    return cut;
  }

  /** What was undone before anybody saw it has not been. */
  private note(undone: Map<string, ResourceRecord>, done: Map<string, ResourceRecord>, record: ResourceRecord): void {
    if (!this.begun) return;
    const key = `${record.name} ${record.ttl} ${recordIdentity(record)}`;
    if (!undone.delete(key)) done.set(key, record);
  }

  private glueBelow(cut: string, servers: readonly ResourceRecord[]): ResourceRecord[] {
    return servers
      .map(({ rdata }) => readName(rdata, 0).name)
      .filter((host) => isWithin(host, cut))
      .flatMap((host) => this.at(host).filter(({ type }) => type === TYPE.a || type === TYPE.aaaa));
  }

  /** RFC 4592: of the closest encloser only. */
  private fromWildcard(name: string): ResourceRecord[] {
    let encloser = parentOf(name) ?? this.origin;
    while (encloser !== this.origin && !this.nodes.has(encloser) && !this.below.has(encloser)) {
      encloser = parentOf(encloser) ?? this.origin;
    }
    return this.at(`*.${encloser}`).map((record) => ({ ...record, name }));
  }

  private occupy(owner: string, by: 1 | -1): void {
    for (let each = parentOf(owner); each !== undefined && each !== this.origin; each = parentOf(each)) {
      const count = (this.below.get(each) ?? 0) + by;
      if (count === 0) this.below.delete(each);
      else this.below.set(each, count);
    }
  }
}

interface Held {
  readonly record: ResourceRecord;
  sources: number;
}

function isSame(a: ResourceRecord, b: ResourceRecord): boolean {
  const [one, other] = [a.rdata, b.rdata];
  return (
    a.type === b.type && a.ttl === b.ttl && one.length === other.length && one.every((each, i) => each === other[i])
  );
}

function sizeOf({ removed, added }: ZoneChange): number {
  return removed.length + added.length + 2;
}

/** Seconds. An EID keeps its address when it moves, so only a change of membership has to wait for it. */
export const ZONE_TTL = 30;
/** Seconds. A name that is registered now should be visible soon. */
const NEGATIVE_TTL = 5;
/** Seconds; NOTIFY tells of changes, this is for when none of them arrives. */
const REFRESH = 300;
const RETRY = 60;
/** A week, in seconds. */
const EXPIRE = 604_800;
const MAX_CHANGES = 1_000;
/** Records of all changes in the journal. */
const MAX_JOURNAL = 20_000;
