/** Questions and answers for the DNS tests, made and read by dns-packet's full codec. */
import { Buffer } from 'node:buffer';
import { type Answer, type DecodedPacket, decode, encode, type RecordType } from 'dns-packet';
import type { TransmitId } from '../../agent/core/dns-forwarder.ts';
import { type DnsAction, DnsService, type DnsServiceOptions } from '../../agent/core/dns-service.ts';
import { type IpPrefix, parseIpPrefix } from '../../proto/address.ts';
import { encodeRecord } from '../../runtime/dns-record-codec.ts';

export const ZONE = 'stayput.internal';
export const OVERLAY: readonly IpPrefix[] = ['10.77.0.0/16', '10.80.4.0/22', 'fd77::/32'].map(parseIpPrefix);

export interface AskOptions {
  readonly id?: number;
  /** Absent: no OPT. */
  readonly udpSize?: number;
  readonly transport?: 'udp' | 'tcp';
  readonly client?: string;
  readonly ednsVersion?: number;
}

export function query(name: string, type: RecordType | number, options: AskOptions = {}): Buffer {
  const additionals: Answer[] =
    options.udpSize === undefined
      ? []
      : [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: options.udpSize,
            flags: 0,
            options: [],
            extendedRcode: 0,
            ednsVersion: options.ednsVersion ?? 0,
            flag_do: false,
          } as Answer,
        ];
  const packet = encode({
    type: 'query',
    id: options.id ?? 4711,
    flags: 0x0100,
    questions: [{ name, type: typeof type === 'number' ? 'A' : type, class: 'IN' }],
    additionals,
  });
  if (typeof type === 'number') packet.writeUInt16BE(type, 12 + nameLength(name));
  return packet;
}

export interface Seen extends DecodedPacket {
  readonly raw: Buffer;
  readonly rcodeNumber: number;
  readonly zone: string;
  /** INFO-CODE of the extended error. */
  readonly ede: number | undefined;
}

export function read(raw: Uint8Array, zone = ''): Seen {
  const buffer = Buffer.from(raw);
  const packet = decode(buffer);
  const opt = packet.additionals?.find((record) => record.type === 'OPT') as
    | { options: { code: number; data: Buffer }[] }
    | undefined;
  const ede = opt?.options.find((option) => option.code === 15)?.data.readUInt16BE(0);
  return { ...packet, raw: buffer, rcodeNumber: buffer.readUInt8(3) & 0xf, zone, ede };
}

/** What an upstream sends back to `request`. */
export function answer(request: Uint8Array, rcode: number, answers: Answer[], extra: Partial<Parts> = {}): Buffer {
  const asked = decode(Buffer.from(request));
  return encode({
    type: 'response',
    id: extra.id ?? asked.id ?? 0,
    flags: 0x0180 | rcode | (extra.truncated === true ? 0x0200 : 0) | (extra.authentic === true ? 0x20 : 0),
    questions: extra.questions ?? asked.questions ?? [],
    answers,
    authorities: extra.authorities ?? [],
    additionals: [
      { type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0, options: [] } as unknown as Answer,
      ...(extra.additionals ?? []),
    ],
  });
}

interface Parts {
  readonly id: number;
  readonly truncated: boolean;
  readonly authentic: boolean;
  readonly questions: DecodedPacket['questions'];
  readonly authorities: Answer[];
  readonly additionals: Answer[];
}

export function soa(name: string, ttl: number, minimum: number): Answer {
  const data = { mname: 'ns.test', rname: 'h.test', serial: 1, refresh: 1, retry: 1, expire: 1, minimum };
  return { type: 'SOA', name, ttl, data };
}

type Of<K> = Extract<DnsAction<string>, { kind: K }>;

/** A service in virtual time that keeps what it did. */
export class Bench {
  readonly service: DnsService<string>;
  now = 1000;
  readonly replies: Of<'reply'>[] = [];
  readonly sent: Of<'send'>[] = [];
  readonly lookups: (Of<'resolve-name'> | Of<'resolve-pointer'>)[] = [];
  readonly ignored: string[] = [];
  readonly faults: unknown[] = [];
  readonly open = new Set<TransmitId>();

  constructor(limits: DnsServiceOptions['limits'] = {}, alwaysForwarded: readonly string[] = []) {
    let id = 100;
    this.service = new DnsService({
      encodeRecord,
      randomId: () => (id = (id * 7919 + 1) & 0xffff),
      limits,
      alwaysForwarded,
    });
    this.service.setZone(ZONE, OVERLAY);
  }

  upstreams(...hosts: string[]): void {
    this.service.setUpstreams(
      hosts.map((host) => ({ host, port: 53 })),
      this.now,
    );
    this.drain();
  }

  ask(name: string, type: RecordType | number, options: AskOptions = {}): void {
    this.give(query(name, type, options), options);
  }

  give(packet: Uint8Array, options: AskOptions = {}): void {
    this.service.handlePacket(options.client ?? 'client', packet, options.transport ?? 'udp', this.now);
    this.drain();
  }

  /** The upstream answers the latest transmit, or the one given. */
  upstreamSays(rcode: number, answers: Answer[], extra: Partial<Parts> = {}, transmit = this.sent.at(-1)!): void {
    this.service.handleUpstream(transmit.transmit, answer(transmit.packet, rcode, answers, extra), this.now);
    this.drain();
  }

  /** Time passes; every timeout happens when it is due. */
  pass(milliseconds: number): void {
    const end = this.now + milliseconds;
    for (let due = this.service.pollTimeout(); due !== undefined && due <= end; due = this.service.pollTimeout()) {
      this.now = Math.max(this.now, due);
      this.service.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
  }

  last(): Seen {
    const reply = this.replies.at(-1);
    if (reply === undefined) throw new Error('nothing has been answered');
    return read(reply.packet, reply.zone);
  }

  drain(): void {
    for (let action = this.service.pollAction(); action !== undefined; action = this.service.pollAction()) {
      if (action.kind === 'reply') this.replies.push(action);
      else if (action.kind === 'send') this.open.add(action.transmit) && this.sent.push(action);
      else if (action.kind === 'cancel') this.open.delete(action.transmit);
      else if (action.kind === 'ignore') this.ignored.push(action.client);
      else if (action.kind === 'fault') this.faults.push(action.error);
      else this.lookups.push(action);
    }
  }
}

function nameLength(name: string): number {
  return name === '.' ? 1 : name.length + 2;
}
