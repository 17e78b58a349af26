/**
 * What a dynamic update (RFC 2136) asks for, as changes of what is set at names.
 *
 * Prerequisites look at the zone as it is served, and what is set at the names that they look at is to be the same
 * still when the changes are made. The update section works on copies of what is set, in order, and
 * yields all of the changes or a refusal, each change with the version that it was made from; so it is carried out as
 * a whole or, if a name was changed in between, judged again.
 *
 * Beyond the RFC, REFUSED says: the key is not granted the name; the type is none of A, AAAA, CNAME, SRV, TXT; the data
 * cannot be kept (`record-sets.ts`); what is to be deleted is what agents have registered, which only they can give up.
 */
import { ipFromBytes } from '../../proto/address.ts';
import { CLASS } from '../../proto/dns/header.ts';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import { isWithin, readName } from '../../proto/dns/name.ts';
import {
  hasRecords,
  isBare,
  MAX_TTL,
  NO_RECORDS,
  parseTarget,
  type RecordSets,
  type ServiceTarget,
} from '../../proto/dns/record-sets.ts';
import { type ResourceRecord, recordIdentity, type SectionMessage } from '../../proto/dns/sections.ts';
import { DecodeError } from '../../proto/errors.ts';
import { nameMatches } from './grants.ts';
import type { NameChange, SeenName } from './name-changes.ts';
import { setRecords } from './zone-content.ts';
import type { ZoneRecords } from './zone-records.ts';

export interface SetNames {
  /** What is set at a name, relative to the zone or a wildcard, and its version. */
  nameRecord(name: string): { readonly version: number; readonly records: RecordSets } | undefined;
}

export type UpdateVerdict =
  | {
      readonly kind: 'changes';
      readonly changes: readonly NameChange[];
      /** What the prerequisites looked at besides. */
      readonly unchanged: readonly SeenName[];
    }
  | { readonly kind: 'refused'; readonly rcode: number };

/** `granted`: names and patterns like `*.web`, relative to the zone. */
export function judgeUpdate(
  message: SectionMessage,
  zone: ZoneRecords,
  names: SetNames,
  granted: readonly string[],
): UpdateVerdict {
  const unmet = unmetPrerequisite(message.answers, zone) ?? malformedUpdate(message.authorities, zone);
  if (unmet !== undefined) return { kind: 'refused', rcode: unmet };
  const drafts = new Map<string, Draft>();
  for (const record of message.authorities) {
    const name = relativeName(record.name, zone);
    if (name === undefined || !granted.some((pattern) => nameMatches(pattern, name))) return REFUSED;
    const draft = drafts.get(name) ?? draftOf(name, names, zone);
    drafts.set(name, draft);
    const records = changedBy(draft, record, zone);
    if (records === undefined) return REFUSED;
    draft.records = records;
  }
  const changes = [...drafts].flatMap(([name, { before, version, records }]) =>
    same(before, records)
      ? []
      : [{ name, records: isBare(records) ? null : records, ifVersion: version } satisfies NameChange],
  );
  const changed = new Set(changes.map(({ name }) => name));
  const looked = new Set(message.answers.map(({ name }) => relativeName(name, zone)));
  const unchanged = [...looked]
    .filter((name) => name !== undefined && !changed.has(name))
    .map((name = '') => ({ name, version: names.nameRecord(name)?.version ?? 0 }));
  return { kind: 'changes', changes, unchanged };
}

interface Draft {
  readonly before: RecordSets;
  readonly version: number;
  /** Addresses that agents have registered, as records of the zone. */
  readonly registered: readonly ResourceRecord[];
  records: RecordSets;
}

/** Section 3.2. */
function unmetPrerequisite(prerequisites: readonly ResourceRecord[], zone: ZoneRecords): number | undefined {
  const wanted = new Map<string, ResourceRecord[]>();
  for (const prerequisite of prerequisites) {
    const { name, type, class: kind, ttl, rdata } = prerequisite;
    if (ttl !== 0) return RCODE.formErr;
    if (!isWithin(name, zone.origin)) return RCODE.notZone;
    const present = zone.at(name);
    const ofType = present.filter((record) => record.type === type);
    switch (kind) {
      case CLASS.any:
        if (rdata.length > 0) return RCODE.formErr;
        if (type === TYPE.any ? present.length === 0 : ofType.length === 0)
          return type === TYPE.any ? RCODE.nxDomain : RCODE.nxRrset;
        break;
      case CLASS.none:
        if (rdata.length > 0) return RCODE.formErr;
        if (type === TYPE.any ? present.length > 0 : ofType.length > 0)
          return type === TYPE.any ? RCODE.yxDomain : RCODE.yxRrset;
        break;
      case CLASS.in: {
        const key = `${name} ${type}`;
        wanted.set(key, [...(wanted.get(key) ?? []), prerequisite]);
        break;
      }
      default:
        return RCODE.formErr;
    }
  }
  for (const records of wanted.values()) {
    const [first] = records;
    const present = zone.at(first?.name ?? '').filter(({ type }) => type === first?.type);
    const expected = new Set(records.map(recordIdentity));
    if (expected.size !== present.length || !present.every((record) => expected.has(recordIdentity(record))))
      return RCODE.nxRrset;
  }
  return undefined;
}

/** Section 3.4.1. */
function malformedUpdate(updates: readonly ResourceRecord[], zone: ZoneRecords): number | undefined {
  for (const { name, type, class: kind, ttl, rdata } of updates) {
    if (!isWithin(name, zone.origin)) return RCODE.notZone;
    const meta = type >= FIRST_META && type <= TYPE.any;
    const wrong =
      kind === CLASS.in
        ? meta
        : kind === CLASS.any
          ? ttl !== 0 || rdata.length > 0 || (meta && type !== TYPE.any)
          : kind !== CLASS.none || ttl !== 0 || meta;
    if (wrong) return RCODE.formErr;
  }
  return undefined;
}

/** Undefined at the apex, where nothing can be set. */
function relativeName(name: string, zone: ZoneRecords): string | undefined {
  return name === zone.origin ? undefined : name.slice(0, -zone.origin.length - 1);
}

function draftOf(name: string, names: SetNames, zone: ZoneRecords): Draft {
  const stored = names.nameRecord(name);
  const before = stored?.records ?? NO_RECORDS;
  const own = new Set<string>(before.addresses);
  const registered = zone
    .at(`${name}.${zone.origin}`)
    .filter((record) => isAddress(record) && !own.has(ipFromBytes(record.rdata)));
  return { before, version: stored?.version ?? 0, registered, records: before };
}

/** What is set after one record of the update section (section 3.4.2); undefined: refused. */
function changedBy(draft: Draft, record: ResourceRecord, zone: ZoneRecords): RecordSets | undefined {
  switch (record.class) {
    case CLASS.in:
      return withAdded(draft, record, zone);
    case CLASS.any:
      return withoutSet(draft, record);
    default:
      return withoutRecord(draft, record, zone);
  }
}

function withAdded(draft: Draft, record: ResourceRecord, zone: ZoneRecords): RecordSets | undefined {
  const { records, registered } = draft;
  const others = records.srv.length + records.txt.length + records.addresses.length + registered.length;
  // A CNAME beside other records is ignored, as are other records beside a CNAME.
  if (record.type === TYPE.cname ? others > 0 : records.cname !== null) return records;
  const ttl = Math.min(record.ttl, MAX_TTL);
  const data = dataOf(record, zone);
  if (data === undefined || record.ttl > MAX_TTL || records.ns.length > 0) return undefined;
  if (data.cname !== null) return { ...records, ttl, cname: data.cname };
  return {
    ...records,
    ttl,
    srv: [...without(records.srv, data.srv), ...data.srv],
    txt: [...without(records.txt, data.txt), ...data.txt],
    addresses: [...without(records.addresses, data.addresses), ...data.addresses],
  };
}

function withoutSet({ records, registered }: Draft, { type }: ResourceRecord): RecordSets | undefined {
  switch (type) {
    case TYPE.any:
      if (registered.length > 0 || records.ns.length > 0) return undefined;
      return { ...NO_RECORDS, weights: records.weights };
    case TYPE.a:
    case TYPE.aaaa: {
      if (registered.some((each) => each.type === type)) return undefined;
      const octets = type === TYPE.a ? '.' : ':';
      return { ...records, addresses: records.addresses.filter((address) => !address.includes(octets)) };
    }
    case TYPE.cname:
      return { ...records, cname: null };
    case TYPE.srv:
      return { ...records, srv: [] };
    case TYPE.txt:
      return { ...records, txt: [] };
    case TYPE.ns:
      return records.ns.length > 0 ? undefined : records;
    default:
      // There is none, and deleting what is not there is no error.
      return records;
  }
}

function withoutRecord(draft: Draft, record: ResourceRecord, zone: ZoneRecords): RecordSets | undefined {
  const { records, registered } = draft;
  if (registered.some((each) => recordIdentity(each) === recordIdentity(record))) return undefined;
  if (record.type === TYPE.ns && records.ns.length > 0) return undefined;
  const data = dataOf(record, zone);
  if (data === undefined) return records;
  return {
    ...records,
    cname: data.cname !== null && data.cname === records.cname ? null : records.cname,
    srv: without(records.srv, data.srv),
    txt: without(records.txt, data.txt),
    addresses: without(records.addresses, data.addresses),
  };
}

/** One record as what could be set; undefined: it could not. */
function dataOf(record: ResourceRecord, zone: ZoneRecords): RecordSets | undefined {
  const data = parsed(record, zone.origin);
  if (data === undefined || data.addresses.length > 0) return data;
  // What would be served for it must be what was asked for: texts of several strings would not.
  const [served] = setRecords(record.name, zone.origin, data, record.ttl);
  return served !== undefined && recordIdentity(served) === recordIdentity(record) ? data : undefined;
}

function parsed({ type, rdata }: ResourceRecord, origin: string): RecordSets | undefined {
  try {
    switch (type) {
      case TYPE.a:
        return rdata.length === 4 ? { ...NO_RECORDS, addresses: [ipFromBytes(rdata)] } : undefined;
      case TYPE.aaaa:
        return rdata.length === 16 ? { ...NO_RECORDS, addresses: [ipFromBytes(rdata)] } : undefined;
      case TYPE.cname:
        return { ...NO_RECORDS, cname: targetAt(rdata, 0, origin) };
      case TYPE.srv: {
        if (rdata.length < MIN_SRV) return undefined;
        const view = new DataView(rdata.buffer, rdata.byteOffset, rdata.length);
        const [priority, weight, port] = [view.getUint16(0), view.getUint16(2), view.getUint16(4)];
        return { ...NO_RECORDS, srv: [{ priority, weight, port, target: targetAt(rdata, 6, origin) }] };
      }
      case TYPE.txt:
        return { ...NO_RECORDS, txt: [textOf(rdata)] };
      default:
        return undefined;
    }
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

/** @throws DecodeError */
function targetAt(rdata: Uint8Array, offset: number, origin: string): string {
  return parseTarget(`${readName(rdata, offset).name}.`, origin);
}

/** All strings as one. */
function textOf(rdata: Uint8Array): string {
  let text = '';
  for (let at = 0; at < rdata.length; at += 1 + (rdata[at] ?? 0)) {
    text += String.fromCharCode(...rdata.subarray(at + 1, at + 1 + (rdata[at] ?? 0)));
  }
  return text;
}

function isAddress({ type }: ResourceRecord): boolean {
  return type === TYPE.a || type === TYPE.aaaa;
}

function without<T extends string | ServiceTarget>(from: readonly T[], gone: readonly T[]): T[] {
  const keys = new Set(gone.map(keyOf));
  return from.filter((each) => !keys.has(keyOf(each)));
}

function keyOf(value: string | ServiceTarget): string {
  return typeof value === 'string' ? value : `${value.priority} ${value.weight} ${value.port} ${value.target}`;
}

function same(before: RecordSets, after: RecordSets): boolean {
  if (!hasRecords(before) && !hasRecords(after)) return true;
  return JSON.stringify(before) === JSON.stringify(after);
}

/** Three numbers and the root. */
const MIN_SRV = 7;
const REFUSED: UpdateVerdict = { kind: 'refused', rcode: RCODE.refused };
/** TSIG and other types that are not of data: 128 to 255 (RFC 6895 section 3.1). */
const FIRST_META = 128;
