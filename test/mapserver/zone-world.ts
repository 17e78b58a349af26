/** A primary of zones over names that the test sets, in virtual time, with one secondary that has a key. */
import assert from 'node:assert/strict';
import type { NameChange, SeenName } from '../../mapserver/core/name-changes.ts';
import type { ZoneEntry } from '../../mapserver/core/names.ts';
import { type ZoneOutput, ZonePrimary, type ZonePrimaryOptions } from '../../mapserver/core/zone-primary.ts';
import { type IpAddress, type IpPrefix, parseIpAddress } from '../../proto/address.ts';
import { CLASS, FLAG, OPCODE } from '../../proto/dns/header.ts';
import { TYPE } from '../../proto/dns/message.ts';
import { hasRecords, NO_RECORDS, type RecordSets } from '../../proto/dns/record-sets.ts';
import {
  type DecodedMessage,
  decodeSections,
  encodeSections,
  type ResourceRecord,
  type SectionMessage,
} from '../../proto/dns/sections.ts';
import { signRequest, type TsigKey, TsigSession } from '../../proto/dns/tsig.ts';

export const ZONE = 'stayput.internal';
export const REVERSE = '77.10.in-addr.arpa';
export const KEY: TsigKey = { name: 'xfr.test', algorithm: 'hmac-sha256', secret: Buffer.alloc(32, 7) };
export const OTHER_KEY: TsigKey = { name: 'other.test', algorithm: 'hmac-sha256', secret: Buffer.alloc(32, 8) };

export interface Given {
  readonly members?: readonly string[];
  readonly records?: Partial<RecordSets>;
}

export class ZoneWorld {
  primary: ZonePrimary<string>;
  readonly notifies: Uint8Array[] = [];
  readonly outcomes: string[] = [];
  readonly audited: string[] = [];
  readonly stored = new Map<string, { readonly version: number; readonly records: RecordSets }>();
  /** Before a change is made. */
  beforeChange: () => void = () => {};
  private readonly entries = new Map<string, ZoneEntry>();
  /** Members of names as they were in the beginning. */
  private readonly registered: ReadonlyMap<string, ZoneEntry['members']>;
  private readonly answers: Iterator<Uint8Array>[] = [];
  private now = 0;
  private lastSerial = 0xffff_fff0;
  /** False: as when the disk is full. */
  hasSerials = true;
  private lastId = 0;
  private answered = 0;
  private readonly options: ZonePrimaryOptions;
  /** By key, as on disk. */
  private readonly signed = new Map<string, number>();
  private signedAtStart = new Map<string, number>();

  constructor(entries: Readonly<Record<string, Given>>) {
    for (const [name, given] of Object.entries(entries)) this.entries.set(name, entryOf(name, given));
    this.registered = new Map([...this.entries].map(([name, { members }]) => [name, members]));
    this.options = {
      zone: ZONE,
      prefixes: ['10.77.0.0/16' as IpPrefix, 'fd00:77::/32' as IpPrefix],
      nameServers: ['ns1.example'],
      names: { entries: () => this.visible(), entry: (name) => this.entries.get(name) },
      set: { nameRecord: (name) => this.stored.get(name) },
      keys: [KEY, OTHER_KEY],
      updates: new Map([[OTHER_KEY.name, ['*.web', '*._tcp', 'db', 'alias', 'x', 'sub', 't']]]),
      transfer: { keys: [KEY.name], addresses: ['127.0.0.0/8' as IpPrefix] },
      secondaries: [{ address: '192.0.2.53:53', key: KEY }],
      nextSerial: () => {
        if (!this.hasSerials) return undefined;
        this.lastSerial = (this.lastSerial + 1) >>> 0;
        return this.lastSerial;
      },
      signedTimes: {
        beforeStart: (key) => this.signedAtStart.get(key) ?? 0,
        note: (key, time) => {
          if (this.hasSerials) this.signed.set(key, Math.max(time, this.signed.get(key) ?? 0));
          return this.hasSerials;
        },
      },
      randomId: () => {
        this.lastId = (this.lastId + 1) & 0xffff;
        return this.lastId;
      },
      wallClock: () => this.wallClock(),
    };
    this.primary = new ZonePrimary(this.options, this.now);
    this.drain();
  }

  /** With what is on disk. */
  restart(): void {
    this.signedAtStart = new Map(this.signed);
    this.primary = new ZonePrimary(this.options, this.now);
    this.drain();
  }

  get serial(): number {
    return this.primary.statistics[0]?.serial ?? 0;
  }

  wallClock(): number {
    return 1_795_300_000_000 + this.now;
  }

  set(name: string, given: Given | undefined): void {
    if (given === undefined) this.entries.delete(name);
    else this.entries.set(name, entryOf(name, given));
    this.primary.handleNames([name], this.now);
    this.drain();
  }

  /** Jumps from deadline to deadline. */
  pass(duration: number): void {
    const end = this.now + duration;
    for (;;) {
      const due = this.primary.pollTimeout();
      if (due === undefined || due > end) break;
      this.now = Math.max(this.now, due);
      this.primary.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
  }

  query(name: string, type: number, serial?: number): SectionMessage {
    const soa = { name, type: TYPE.soa, class: CLASS.in, ttl: 0, rdata: soaOf(serial ?? 0) };
    return {
      id: 77,
      flags: 0,
      opcode: OPCODE.query,
      rcode: 0,
      questions: [{ name, type, class: CLASS.in }],
      answers: [],
      authorities: serial === undefined ? [] : [soa],
      additionals: [],
    };
  }

  ask(name: string, type: number): DecodedMessage {
    return decodeSections(this.request(this.query(name, type), KEY).next().value ?? new Uint8Array(0));
  }

  /** The messages of a transfer, whose signatures hold. */
  transfer(type: number, serial?: number): DecodedMessage[] {
    const { bytes, session } = signRequest(encodeSections(this.query(ZONE, type, serial)), KEY, this.wallClock());
    return [...this.raw(bytes, parseIpAddress('192.0.2.53'), 'tcp')].map((each) => {
      const message = decodeSections(each);
      assert.ok(each.length <= 65_535);
      assert.ok(session.verifies(each, message, this.wallClock()));
      return message;
    });
  }

  request(
    message: SectionMessage,
    key: TsigKey | undefined,
    from: IpAddress = parseIpAddress('192.0.2.53'),
    transport: 'udp' | 'tcp' = 'tcp',
  ): IterableIterator<Uint8Array> {
    const plain = encodeSections(message);
    return this.raw(key === undefined ? plain : signRequest(plain, key, this.wallClock()).bytes, from, transport);
  }

  /** To whatever octets from an allowed address: at most one answer, of one or more messages. */
  answersTo(
    bytes: Uint8Array,
    transport: 'udp' | 'tcp',
    from: IpAddress = parseIpAddress('127.0.0.1'),
  ): readonly Uint8Array[] {
    this.primary.handleRequest('client', bytes, transport, from, this.now);
    this.drain();
    assert.ok(this.answers.length <= 1);
    const messages = this.answers.shift();
    return messages === undefined ? [] : [...(messages as IterableIterator<Uint8Array>)];
  }

  /** From the secondary. */
  give(bytes: Uint8Array): void {
    this.primary.handleNotifyAnswer('192.0.2.53:53', bytes);
    this.drain();
  }

  answerNotifies(): void {
    for (const packet of this.notifies.slice(this.answered)) {
      const answer = { ...decodeSections(packet), flags: FLAG.qr | FLAG.aa, answers: [], additionals: [] };
      this.give(new TsigSession(KEY, macOf(packet)).sign(encodeSections(answer), this.wallClock()));
    }
    this.answered = this.notifies.length;
  }

  /** As the map server does it. */
  private change(changes: readonly NameChange[], unchanged: readonly SeenName[]): void {
    this.beforeChange();
    const seen = [...unchanged, ...changes.map(({ name, ifVersion }) => ({ name, version: ifVersion }))];
    const isOld = seen.some(({ name, version }) => (this.stored.get(name)?.version ?? 0) !== version);
    if (!isOld) for (const { name, records } of changes) this.store(name, records);
    this.primary.handleChanged(isOld ? 'STAYPUT_NAME_CHANGED' : null);
  }

  /** Beside whatever agents have registered. */
  store(name: string, records: RecordSets | null): void {
    const version = (this.stored.get(name)?.version ?? 0) + 1;
    const members = this.registered.get(name) ?? [];
    if (records === null) this.stored.delete(name);
    else this.stored.set(name, { version, records });
    const own = (records?.addresses ?? []).map((address) => ({ address, weight: 1, live: true, leadsBack: true }));
    const entry = { name, members: [...members, ...own], records: records ?? NO_RECORDS };
    if (entry.members.length === 0 && !hasRecords(entry.records)) this.entries.delete(name);
    else this.entries.set(name, entry);
    this.primary.handleNames([name], this.now);
  }

  /** What no delegation hides. */
  private *visible(): IterableIterator<ZoneEntry> {
    for (const entry of this.entries.values()) {
      const labels = entry.name.split('.');
      const above = labels.slice(1).map((_, i) => labels.slice(i + 1).join('.'));
      if (!above.some((name) => (this.entries.get(name)?.records.ns.length ?? 0) > 0)) yield entry;
    }
  }

  private raw(bytes: Uint8Array, from: IpAddress, transport: 'udp' | 'tcp'): IterableIterator<Uint8Array> {
    this.primary.handleRequest('client', bytes, transport, from, this.now);
    this.drain();
    const messages = this.answers.shift();
    assert.ok(messages, 'the request is answered');
    return messages as IterableIterator<Uint8Array>;
  }

  private drain(): void {
    let output: ZoneOutput<string> | undefined = this.primary.pollOutput();
    for (; output !== undefined; output = this.primary.pollOutput()) {
      if (output.kind === 'answer') this.answers.push(output.messages);
      if (output.kind === 'notify') this.notifies.push(output.packet);
      if (output.kind === 'notified') this.outcomes.push(output.result);
      if (output.kind === 'updated') this.audited.push(`${output.key} ${output.names} ${output.rcode}`);
      if (output.kind === 'change') this.change(output.changes, output.unchanged);
    }
  }
}

function entryOf(name: string, { members = [], records = {} }: Given): ZoneEntry {
  return {
    name,
    members: members.map((text) => ({ address: parseIpAddress(text), weight: 1, live: true, leadsBack: true })),
    records: { ...NO_RECORDS, ...records },
  };
}

/** Owner, type and data of all records but the apex's. */
export function contentOf(world: ZoneWorld): Set<string> {
  const records = world.transfer(TYPE.axfr).flatMap(({ answers }) => answers);
  return new Set(records.filter(({ name }) => name !== ZONE).map(short));
}

/** What a secondary with these records has after an IXFR (or AXFR) answer. */
export function applied(held: ReadonlySet<string>, messages: readonly DecodedMessage[]): Set<string> {
  const records = messages.flatMap(({ answers }) => answers);
  const plain = (each: readonly ResourceRecord[]): string[] => each.filter(({ name }) => name !== ZONE).map(short);
  if (records[1] !== undefined && records[1].type !== TYPE.soa) return new Set(plain(records));
  const content = new Set(held);
  let adding = true;
  for (const record of records.slice(1, -1)) {
    if (record.type === TYPE.soa) adding = !adding;
    else if (adding) content.add(short(record));
    else assert.ok(content.delete(short(record)), `${short(record)} is removed but was not there`);
  }
  return content;
}

export function short({ name, type, rdata }: ResourceRecord): string {
  const relative = name === ZONE ? '@' : name.slice(0, -ZONE.length - 1);
  const typeName = Object.entries(TYPE)
    .find(([, value]) => value === type)?.[0]
    ?.toUpperCase();
  const isAddress = type === TYPE.a || type === TYPE.aaaa;
  return `${relative} ${typeName}${isAddress ? ` ${Buffer.from(rdata).toString('hex')}` : ''}`;
}

export function serialOf(soa: ResourceRecord | undefined): number {
  assert.equal(soa?.type, TYPE.soa);
  return Buffer.from(soa?.rdata ?? []).readUInt32BE((soa?.rdata.length ?? 20) - 20);
}

function soaOf(serial: number): Uint8Array {
  const rdata = Buffer.alloc(22);
  rdata.writeUInt32BE(serial, 2);
  return new Uint8Array(rdata);
}

/** Of the TSIG at the end: in front of original ID, error and other length. */
export function macOf(packet: Uint8Array): Uint8Array {
  return packet.slice(packet.length - 38, packet.length - 6);
}

export const FILLER: Readonly<Record<string, Given>> = Object.fromEntries(
  Array.from({ length: 100 }, (_, i) => [`filler-${i}`, { members: [`10.77.1.${i}`] }]),
);
