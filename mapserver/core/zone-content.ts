/**
 * What the zones hold: the overlay's names as records, and the reverse names of their addresses.
 *
 * There is one zone for names, and for each prefix of the overlay those reverse zones that cover exactly it (RFC 1035
 * section 3.5, RFC 3596): cut at whole octets or nibbles, a prefix in between has several. Each name of the overlay is
 * one source of records, in whichever of the zones; one that is too long for a domain name together with the zone has
 * none, as nobody could ask for it. Of the addresses of a family behind a name those are given that are live and
 * have a weight, or all when none does, as an agent would answer; DNS has no word for weights among addresses.
 */
import { type IpAddress, type IpPrefix, ipFamily, ipToBytes } from '../../proto/address.ts';
import { CLASS } from '../../proto/dns/header.ts';
import { TYPE } from '../../proto/dns/message.ts';
import { encodeName, fitsDomainName, isWithin, parentOf } from '../../proto/dns/name.ts';
import { absoluteTarget, insideZone, type RecordSets } from '../../proto/dns/record-sets.ts';
import { reverseName, reverseZones } from '../../proto/dns/reverse-zones.ts';
import type { ResourceRecord } from '../../proto/dns/sections.ts';
import { APEX } from '../../proto/eid.ts';
import type { Member, ZoneEntry } from './names.ts';
import { type Serial, ZONE_TTL, ZoneRecords } from './zone-records.ts';

export interface ZoneNames {
  /** Every name that exists and that no delegation hides. */
  entries(): Iterable<ZoneEntry>;
  /** Undefined: the name does not exist. */
  entry(name: string): ZoneEntry | undefined;
}

export interface ZoneSettings {
  /** Domain name of the zone. */
  readonly zone: string;
  readonly prefixes: readonly IpPrefix[];
  /** Host names that are told as name servers; none: the zone itself. */
  readonly nameServers: readonly string[];
}

export class ZoneContent {
  readonly zones: readonly ZoneRecords[];
  private readonly byOrigin: ReadonlyMap<string, ZoneRecords>;
  private readonly names: ZoneNames;
  private readonly settings: ZoneSettings;
  private readonly sources = new Map<string, readonly ResourceRecord[]>();

  /** Reads all names. */
  constructor(names: ZoneNames, settings: ZoneSettings, serial: Serial) {
    const { zone, prefixes, nameServers } = settings;
    const reverse = new Set(prefixes.flatMap(reverseZones));
    // What is in two prefixes is in the zone of the larger one only, or a secondary would find the other one empty.
    const outermost = [...reverse].filter((each) => ![...reverse].some((o) => o !== each && isWithin(each, o)));
    const origins = [zone, ...outermost];
    this.zones = origins.map((origin) => new ZoneRecords({ origin, nameServers }, serial));
    this.byOrigin = new Map(this.zones.map((each) => [each.origin, each]));
    this.names = names;
    this.settings = settings;
    for (const entry of names.entries()) this.set(entry.name, entry);
    for (const each of this.zones) each.begin(serial);
  }

  /** These names may be answered otherwise than before. */
  update(changed: Iterable<string>): void {
    let reshaped = false;
    for (const name of changed) {
      const entry = this.names.entry(name);
      const wasCut = this.isDelegated(name);
      this.set(name, this.isHidden(name) ? undefined : entry);
      reshaped ||= wasCut !== this.isDelegated(name);
    }
    if (reshaped) this.rebuild();
  }

  /** The zone that is responsible for the name. */
  zoneOf(name: string): ZoneRecords | undefined {
    for (let each: string | undefined = name; each !== undefined; each = parentOf(each)) {
      const zone = this.byOrigin.get(each);
      if (zone !== undefined) return zone;
    }
    return undefined;
  }

  /** A delegation that comes hides what is below it, and one that goes shows it. */
  private rebuild(): void {
    const before = new Set(this.sources.keys());
    for (const entry of this.names.entries()) {
      before.delete(entry.name);
      this.set(entry.name, entry);
    }
    for (const name of before) this.set(name, undefined);
  }

  private set(name: string, entry: ZoneEntry | undefined): void {
    const before = this.sources.get(name) ?? [];
    const after = entry === undefined ? [] : this.recordsOf(entry);
    // First what is new, so that what stays is never gone.
    for (const record of after) this.zoneOf(record.name)?.put(record);
    for (const record of before) this.zoneOf(record.name)?.take(record);
    if (after.length === 0) this.sources.delete(name);
    else this.sources.set(name, after);
  }

  private isDelegated(name: string): boolean {
    return this.sources.get(name)?.some(({ type }) => type === TYPE.ns) ?? false;
  }

  private isHidden(name: string): boolean {
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      if (this.isDelegated(name.slice(dot + 1))) return true;
    }
    return false;
  }

  private recordsOf({ name, members, records }: ZoneEntry): ResourceRecord[] {
    const { zone } = this.settings;
    const owner = name === APEX ? zone : `${name}.${zone}`;
    if (!fitsDomainName(owner)) return [];
    const ttl = records.ttl ?? ZONE_TTL;
    const given = [4, 6]
      .flatMap((family) => wellOf(members.filter(({ address }) => ipFamily(address) === family)))
      .slice(0, MAX_ADDRESSES);
    const found = [
      ...setRecords(owner, zone, records, ttl),
      ...given.map(({ address }) => addressRecord(owner, address, ttl)),
    ];
    if (name.startsWith('*')) return found;
    // Of those outside the overlay the reverse name is in no zone of ours.
    return [
      ...found,
      ...given
        .filter(({ leadsBack }) => leadsBack)
        .map(({ address }) => record(reverseName(address), TYPE.ptr, ZONE_TTL, encodeName(owner))),
    ];
  }
}

/** Those that somebody answers for and that have a weight; all when there is none. */
function wellOf(members: readonly Member[]): readonly Member[] {
  const well = members.filter(({ live, weight }) => live && weight > 0);
  return well.length > 0 ? well : members;
}

/** What was set, without the addresses, which are among the members, and without targets too long for a domain name. */
export function setRecords(owner: string, zone: string, sets: RecordSets, ttl: number): ResourceRecord[] {
  const fits = (target: string): boolean => fitsDomainName(absoluteTarget(target, zone));
  const { txt } = sets;
  const cname = sets.cname !== null && fits(sets.cname) ? sets.cname : null;
  const srv = sets.srv.filter(({ target }) => fits(target));
  const ns = sets.ns.filter(({ host }) => fits(host));
  return [
    ...(cname === null ? [] : [record(owner, TYPE.cname, ttl, encodeName(absoluteTarget(cname, zone)))]),
    ...srv.map(({ priority, weight, port, target }) =>
      record(
        owner,
        TYPE.srv,
        ttl,
        Uint8Array.of(
          ...[priority, weight, port].flatMap((each) => [each >> 8, each & 0xff]),
          ...encodeName(absoluteTarget(target, zone)),
        ),
      ),
    ),
    ...txt.map((text) => record(owner, TYPE.txt, ttl, characterStrings(text))),
    ...ns.flatMap(({ host, addresses }) => {
      const server = absoluteTarget(host, zone);
      const glue = insideZone(host) !== null && isWithin(server, owner) ? addresses : [];
      return [
        record(owner, TYPE.ns, ttl, encodeName(server)),
        ...glue.map((address) => addressRecord(server, address, ttl)),
      ];
    }),
  ];
}

export function addressRecord(owner: string, address: IpAddress, ttl: number): ResourceRecord {
  return record(owner, ipFamily(address) === 4 ? TYPE.a : TYPE.aaaa, ttl, ipToBytes(address));
}

/** Strings of at most 255 octets (RFC 1035 section 3.3.14). */
function characterStrings(text: string): Uint8Array {
  const octets: number[] = [];
  for (let at = 0; at === 0 || at < text.length; at += 255) {
    const part = text.slice(at, at + 255);
    octets.push(part.length, ...[...part].map((each) => each.charCodeAt(0)));
  }
  return Uint8Array.from(octets);
}

function record(name: string, type: number, ttl: number, rdata: Uint8Array): ResourceRecord {
  return { name, type, class: CLASS.in, ttl, rdata };
}

/** Of one name. */
const MAX_ADDRESSES = 128;
