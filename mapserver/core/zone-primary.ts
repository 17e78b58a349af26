/**
 * The map server as an ordinary primary name server for the overlay's zones, so that others can serve clients that
 * have no agent (RFC 1034, 1995, 1996, 5936, 8945), and tools that know RFC 2136 can set records.
 *
 * Sans-IO. In: names that changed, requests, answers to NOTIFY, outcomes of changes, time. Out: answers, NOTIFYs,
 * changes of names to be carried out. Changes are taken over at once if the last ones are BATCH_TIME ago, and gathered until
 * then otherwise, so serials do not come faster than that and yet nothing waits without a reason.
 *
 * Nobody is answered who has not a known key or an allowed address: it all tells who is in the overlay.
 */
import { type IpAddress, type IpPrefix, prefixContains } from '../../proto/address.ts';
import { Reader } from '../../proto/bytes.ts';
import { CLASS, OPCODE } from '../../proto/dns/header.ts';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import { readName } from '../../proto/dns/name.ts';
import { decodeSections, type Question, type SectionMessage } from '../../proto/dns/sections.ts';
import { type TsigKey, type TsigVerdict, verifyRequest } from '../../proto/dns/tsig.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Instant, Millis, WallClock } from '../../proto/time.ts';
import type { NameChange, SeenName } from './name-changes.ts';
import type { OperationCode } from './operation-error.ts';
import {
  bareAnswer,
  differences,
  ednsVersion,
  hasWellFormedEdns,
  headerAnswer,
  QUERY_CLASSES,
  queryAnswer,
  wholeZone,
  type ZoneRequest,
} from './zone-answers.ts';
import { ZoneContent, type ZoneNames, type ZoneSettings } from './zone-content.ts';
import { type NotifierOutput, type Secondary, ZoneNotifier } from './zone-notifier.ts';
import type { Serial, ZoneRecords } from './zone-records.ts';
import { judgeUpdate, type SetNames, type UpdateVerdict } from './zone-update.ts';
import { type Update, ZoneUpdates } from './zone-updates.ts';

export interface ZonePrimaryOptions extends ZoneSettings {
  readonly names: ZoneNames;
  readonly set: SetNames;
  readonly keys: readonly TsigKey[];
  /** Who may ask and take zones: names of keys, and addresses that need none. */
  readonly transfer: { readonly keys: readonly string[]; readonly addresses: readonly IpPrefix[] };
  /** By the name of the key: names and patterns, relative to the zone, that it may change. */
  readonly updates: ReadonlyMap<string, readonly string[]>;
  readonly secondaries: readonly Secondary[];
  readonly signedTimes: SignedTimes;
  /** Larger than all before, also over restarts; modulo 2^32. Undefined: there is none now, changes have to wait. */
  readonly nextSerial: () => Serial | undefined;
  /** Unpredictable, 0 to 65535. */
  readonly randomId: () => number;
  readonly wallClock: () => WallClock;
}

/** Until when keys have signed updates, in seconds since 1970. It outlives this process, so nothing is done again. */
export interface SignedTimes {
  /** As it was when this process started; 0: none. */
  beforeStart(key: string): number;
  /** Kept when this returns. False: it cannot be now. */
  note(key: string, timeSigned: number): boolean;
}

export type ZoneRequestKind = 'query' | 'axfr' | 'ixfr' | 'update' | 'other';

export type ZoneOutput<Client> =
  | {
      readonly kind: 'answer';
      readonly client: Client;
      readonly request: ZoneRequestKind;
      /** One after the other, made as they are taken. */
      readonly messages: IterableIterator<Uint8Array>;
    }
  | { readonly kind: 'ignore'; readonly client: Client }
  /** To be carried out as a whole; `handleChanged` follows, before the next one comes. */
  | { readonly kind: 'change'; readonly changes: readonly NameChange[]; readonly unchanged: readonly SeenName[] }
  | {
      readonly kind: 'updated';
      readonly key: string;
      readonly from: IpAddress;
      readonly names: readonly string[];
      readonly rcode: number;
    }
  | NotifierOutput;

export class ZonePrimary<Client> {
  private readonly options: ZonePrimaryOptions;
  private readonly content: ZoneContent;
  private readonly notifier: ZoneNotifier;
  private readonly keys: ReadonlyMap<string, TsigKey>;
  private readonly updates: ZoneUpdates<Asked<Client>>;
  private readonly outputs: ZoneOutput<Client>[] = [];
  private readonly changed = new Set<string>();
  private committedAt = Number.NEGATIVE_INFINITY;

  /** Reads all names, and tells the secondaries. */
  constructor(options: ZonePrimaryOptions, now: Instant) {
    this.options = options;
    this.keys = new Map(options.keys.map((key) => [key.name, key]));
    this.content = new ZoneContent(options.names, options, options.nextSerial() ?? 0);
    this.notifier = new ZoneNotifier(options);
    this.updates = new ZoneUpdates({
      judge: ({ message, key }) => this.judge(message, key),
      change: (changes, unchanged) => this.outputs.push({ kind: 'change', changes, unchanged }),
      answer: (update, rcode) => this.bare(update, rcode),
      settled: (update, rcode) => this.settled(update, rcode),
      ignore: ({ client }) => this.outputs.push({ kind: 'ignore', client }),
    });
    for (const zone of this.content.zones) this.notifier.handleSerial(zone, now);
  }

  get statistics(): readonly { readonly zone: string; readonly serial: Serial; readonly records: number }[] {
    return this.content.zones.map(({ origin, serial, size }) => ({ zone: origin, serial, records: size }));
  }

  /** These names may be answered otherwise than before. */
  handleNames(names: Iterable<string>, now: Instant): void {
    for (const name of names) this.changed.add(name);
    this.handleTimeout(now);
  }

  handleRequest(client: Client, bytes: Uint8Array, transport: 'udp' | 'tcp', from: IpAddress, now: Instant): void {
    if (bytes.length < HEADER_SIZE || ((bytes[2] ?? 0) & 0x80) !== 0) {
      this.outputs.push({ kind: 'ignore', client });
      return;
    }
    try {
      const message = decodeSections(bytes);
      const { signedTimes, wallClock } = this.options;
      const isUpdate = message.opcode === OPCODE.update;
      const signedBefore = (key: string): number => (isUpdate ? signedTimes.beforeStart(key) : 0);
      const verdict = verifyRequest(bytes, message, (name) => this.keys.get(name), wallClock(), signedBefore);
      this.answer({ client, message, transport, from, verdict }, now);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      const messages = [headerAnswer(bytes, RCODE.formErr)].values();
      this.outputs.push({ kind: 'answer', client, request: 'other', messages });
    }
  }

  handleNotifyAnswer(address: string, bytes: Uint8Array): void {
    this.notifier.handleAnswer(address, bytes);
  }

  /** What became of the change under way: the code of the error, or null. After the names have changed. */
  handleChanged(error: OperationCode | null): void {
    this.updates.handleChanged(error);
  }

  handleTimeout(now: Instant): void {
    if (this.isChanged && now >= this.committedAt + BATCH_TIME) this.commit(now);
    this.notifier.handleTimeout(now);
  }

  pollTimeout(): Instant | undefined {
    const commit = this.isChanged ? this.committedAt + BATCH_TIME : Number.POSITIVE_INFINITY;
    const due = Math.min(commit, this.notifier.pollTimeout() ?? Number.POSITIVE_INFINITY);
    return due === Number.POSITIVE_INFINITY ? undefined : due;
  }

  pollOutput(): ZoneOutput<Client> | undefined {
    return this.outputs.shift() ?? this.notifier.pollOutput();
  }

  private get isChanged(): boolean {
    return this.changed.size > 0 || this.content.zones.some(({ isChanged }) => isChanged);
  }

  /** So that what is looked at is what is so, whatever the serial. */
  private absorb(): void {
    this.content.update(this.changed);
    this.changed.clear();
  }

  private commit(now: Instant): void {
    this.absorb();
    const changed = this.content.zones.filter(({ isChanged }) => isChanged);
    if (changed.length === 0) return;
    this.committedAt = now;
    const serial = this.options.nextSerial();
    if (serial === undefined) return;
    for (const zone of changed) {
      zone.commit(serial);
      this.notifier.handleSerial(zone, now);
    }
  }

  private answer(asked: Asked<Client>, now: Instant): void {
    const { message, verdict } = asked;
    const [question] = message.questions;
    if (verdict.kind === 'refused') {
      this.bare(asked, RCODE.notAuth, (bytes) => verdict.reply(bytes));
    } else if (message.questions.length !== 1 || question === undefined || !hasWellFormedEdns(message)) {
      this.bare(asked, RCODE.formErr);
    } else if ((ednsVersion(message) ?? 0) > 0) {
      this.bare(asked, RCODE.badVers);
    } else if (message.opcode === OPCODE.update) {
      this.update(asked, question);
    } else if (message.opcode !== OPCODE.query) {
      this.bare(asked, RCODE.notImp);
    } else if (!this.mayAsk(asked, question.type) || !QUERY_CLASSES.has(question.class)) {
      this.bare(asked, RCODE.refused);
    } else {
      const zone = this.content.zoneOf(question.name);
      if (zone === undefined) this.bare(asked, RCODE.refused);
      else this.query(asked, zone, now);
    }
  }

  private query(asked: Asked<Client>, zone: ZoneRecords, now: Instant): void {
    const { message, transport } = asked;
    const request = requestOf(asked);
    const [question = NO_QUESTION] = message.questions;
    // A transfer is of a serial, so what it would tell has to have one.
    if (!isTransfer(question.type)) this.absorb();
    else if (this.isChanged) this.commit(now);
    if (!isTransfer(question.type)) {
      this.reply(asked, 'query', [queryAnswer(request, zone, question)].values());
    } else if (question.name !== zone.origin) {
      this.bare(asked, RCODE.notAuth);
    } else if (this.isChanged) {
      this.bare(asked, RCODE.servFail);
    } else if (question.type === TYPE.axfr) {
      if (transport === 'udp') this.bare(asked, RCODE.formErr);
      else this.reply(asked, 'axfr', wholeZone(request, zone));
    } else {
      const [soa] = message.authorities;
      if (soa?.type === TYPE.soa) this.reply(asked, 'ixfr', differences(request, zone, serialOf(soa.rdata)));
      else this.bare(asked, RCODE.formErr);
    }
  }

  private update(asked: Asked<Client>, { name, type, class: kind }: Question): void {
    const { message, verdict } = asked;
    const key = verdict.kind === 'valid' ? verdict.session.key.name : undefined;
    if (type !== TYPE.soa) this.bare(asked, RCODE.formErr);
    else if (kind !== CLASS.in || !this.content.zones.some(({ origin }) => origin === name))
      this.bare(asked, RCODE.notAuth);
    else if (
      key === undefined ||
      verdict.kind !== 'valid' ||
      !this.options.updates.has(key) ||
      name !== this.options.zone
    )
      this.bare(asked, RCODE.refused);
    else if (!this.options.signedTimes.note(key, verdict.timeSigned)) this.bare(asked, RCODE.servFail);
    else this.updates.handle({ ...asked, message, key, mac: verdict.session.mac }, this.options.wallClock());
  }

  private judge(message: SectionMessage, key: string): UpdateVerdict {
    this.absorb();
    const [zone] = this.content.zones;
    if (zone === undefined) return { kind: 'refused', rcode: RCODE.notAuth };
    return judgeUpdate(message, zone, this.options.set, this.options.updates.get(key) ?? []);
  }

  private settled(update: Update<Asked<Client>>, rcode: number): void {
    const { key, from, message } = update;
    const names = [...new Set(message.authorities.map(({ name }) => name))];
    this.outputs.push({ kind: 'updated', key, from, names, rcode });
  }

  /** Whoever may update may ask, since updaters look before they do. */
  private mayAsk({ verdict, from }: Asked<Client>, type: number): boolean {
    const { transfer, updates } = this.options;
    if (verdict.kind !== 'valid') return transfer.addresses.some((prefix) => prefixContains(prefix, from));
    const { name } = verdict.session.key;
    return transfer.keys.includes(name) || (updates.has(name) && !isTransfer(type));
  }

  /** Without records. */
  private bare(asked: Asked<Client>, rcode: number, sign?: (bytes: Uint8Array) => Uint8Array): void {
    const bytes = bareAnswer(requestOf(asked), rcode);
    if (sign === undefined) this.reply(asked, kindOf(asked.message), [bytes].values());
    else this.push(asked, kindOf(asked.message), [sign(bytes)].values());
  }

  private reply(asked: Asked<Client>, kind: ZoneRequestKind, messages: IterableIterator<Uint8Array>): void {
    const { verdict } = asked;
    const { wallClock } = this.options;
    const signed =
      verdict.kind === 'valid' ? map(messages, (bytes) => verdict.session.sign(bytes, wallClock())) : messages;
    this.push(asked, kind, signed);
  }

  private push({ client }: Asked<Client>, request: ZoneRequestKind, messages: IterableIterator<Uint8Array>): void {
    this.outputs.push({ kind: 'answer', client, request, messages });
  }
}

interface Asked<Client> {
  readonly client: Client;
  readonly message: SectionMessage;
  readonly transport: 'udp' | 'tcp';
  readonly from: IpAddress;
  readonly verdict: TsigVerdict;
}

function requestOf<Client>({ message, transport, verdict }: Asked<Client>): ZoneRequest {
  return { message, transport, overhead: verdict.kind === 'valid' ? verdict.session.overhead : 0 };
}

function isTransfer(type: number): boolean {
  return type === TYPE.axfr || type === TYPE.ixfr;
}

function kindOf({ opcode, questions }: SectionMessage): ZoneRequestKind {
  if (opcode === OPCODE.update) return 'update';
  if (opcode !== OPCODE.query) return 'other';
  switch (questions[0]?.type) {
    case TYPE.axfr:
      return 'axfr';
    case TYPE.ixfr:
      return 'ixfr';
    default:
      return 'query';
  }
}

/** @throws DecodeError */
function serialOf(soa: Uint8Array): Serial {
  const { end } = readName(soa, 0);
  return new Reader(soa, readName(soa, end).end).u32('serial');
}

function* map<T, U>(values: Iterable<T>, convert: (value: T) => U): IterableIterator<U> {
  for (const value of values) yield convert(value);
}

const HEADER_SIZE = 12;
const NO_QUESTION = { name: '', type: 0, class: 0 };
/** So there are at most four serials in a second. */
const BATCH_TIME: Millis = 250;
