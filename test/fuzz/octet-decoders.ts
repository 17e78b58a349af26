/** Decoders of octets from the network: LISP, DNS, and the cutting of streams into frames. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { DataplaneError, FrameReader as DataplaneFrames, encodeFrame } from '../../agent/shell/dataplane-link.ts';
import { readCapture } from '../../cli/lisp/capture-file.ts';
import { dissectControl, dissectData, portMeaning } from '../../cli/lisp/dissection.ts';
import { dissectionJson } from '../../cli/lisp/dissection-json.ts';
import { dissectionItem } from '../../cli/lisp/dissection-text.ts';
import { ipPacketOf, udpDatagramOf } from '../../cli/lisp/link-layer.ts';
import { linesOf } from '../../cli/lisp/text-tree.ts';
import { setRecords } from '../../mapserver/core/zone-content.ts';
import { ZoneRecords } from '../../mapserver/core/zone-records.ts';
import { judgeUpdate } from '../../mapserver/core/zone-update.ts';
import { readSigningRequest } from '../../mapserver/shell/signing-request.ts';
import { CertificateError } from '../../mapserver/shell/x509.ts';
import { Reader, Writer } from '../../proto/bytes.ts';
import { CLASS, FLAG } from '../../proto/dns/header.ts';
import { parseMessage, parseQuery, sameQuestion, TYPE } from '../../proto/dns/message.ts';
import { encodeName } from '../../proto/dns/name.ts';
import { hasRecords } from '../../proto/dns/record-sets.ts';
import { encodeReply, renderMessage, replyLimit } from '../../proto/dns/reply.ts';
import { decodeSections, encodeSections, type SectionMessage } from '../../proto/dns/sections.ts';
import { verifyRequest } from '../../proto/dns/tsig.ts';
import { encodeUpstreamQuery } from '../../proto/dns/upstream-query.ts';
import { DecodeError } from '../../proto/errors.ts';
import { decodeAddress, encodeAddress, type LispAddress } from '../../proto/lisp/afi.ts';
import { verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { decodeDataHeader, encodeDataHeader } from '../../proto/lisp/data-header.ts';
import { decodeLispMessage, encapsulatedMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf, queriesOf } from '../../proto/lisp/native.ts';
import { encodeRecord } from '../../runtime/dns-record-codec.ts';
import { FrameReader as DnsFrames, frame as dnsFrame } from '../../runtime/dns-stream.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { answer, query, soa } from '../agent/dns-support.ts';
import { ethernetFrame, ipPacket, pcap, pcapng } from '../cli/captures.ts';
import { ZONE, ZoneWorld } from '../mapserver/zone-world.ts';
import { DIG_SIGNED, NSUPDATE_SIGNED, TSIG_SECRET } from '../proto/dns-captures.ts';
import { LCAF_SAMPLES } from '../proto/lcaf-samples.ts';
import { lispMessages as lispArbitraries } from '../proto/lisp-arbitraries.ts';
import { type Decoder, isRefusal, outcome } from './decoder.ts';
import { DATAGRAM_SEEDS, receiveDatagram } from './map-server-datagrams.ts';

const lispMessages = ['lisp-messages.json', 'lisp-golden.json'].flatMap((file) => {
  const text = readFileSync(join(PROJECT_ROOT, 'test/vectors', file), 'utf8');
  const entries = JSON.parse(text) as { udpPayload: string }[];
  return entries.map(({ udpPayload }) => Uint8Array.from(Buffer.from(udpPayload, 'hex')));
});
const generated = Object.values(lispArbitraries).flatMap((arbitrary) =>
  fc.sample(arbitrary, { numRuns: 6, seed: 1 }).map(encodeLispMessage),
);
const decodable = [...lispMessages, ...generated].filter(
  (bytes) => !isRefusal(outcome([DecodeError], () => lisp(bytes))),
);
const datagram = { source: '192.0.2.1', sourcePort: 4342, destination: '192.0.2.2', destinationPort: 4342 };
const frames = decodable.slice(0, 8).map((payload) => ethernetFrame(ipPacket({ ...datagram, payload })));
const CAPTURES = [pcap(1, frames), pcapng(1, frames), pcap(101, [ipPacket({ ...datagram, payload: Buffer.alloc(3) })])];
const www = query('www.example', 'A', { udpSize: 1232 });
const zone = new ZoneWorld({
  db: { members: ['10.77.0.5'] },
  '*.web': { records: { cname: 'db' } },
  sub: { records: { ns: [{ host: 'ns.sub', addresses: [] }] } },
});
const zoneRecords = new ZoneRecords({ origin: ZONE, nameServers: [] }, 1);
for (const record of zone.ask(`db.${ZONE}`, TYPE.a).answers) zoneRecords.put(record);
const NOTHING_SET = { nameRecord: () => undefined };
const captures = [...DIG_SIGNED, NSUPDATE_SIGNED].map(({ hex }) => Buffer.from(hex, 'hex'));
const signed = new Set(captures.map((bytes) => meaning(decodeSections(bytes))));
const address = { type: 'A' as const, name: 'www.example', ttl: 60, data: '192.0.2.80' };

/** For a key that was made for this. */
const REQUEST = Buffer.from(
  [
    'MIHJMHECAQAwDzENMAsGA1UEAwwEaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHywAtcix6pUdxEi9j2QL+DZ3mBg0s9W',
    'pjcbbyD0z+5nWbt61Z/XoQRYKzHbrMoJl6xVTOoRvB7T2k0qNLRNQa+gADAKBggqhkjOPQQDAgNIADBFAiEA1uvUUHqnkk9qQxu1',
    'tyiyv4uRsSKIJ5bQnG3je32WxCYCID4J+y69WOQD9jyIpkOsg7OPpEP8txZtY2SpMsXywkbJ',
  ].join(''),
  'base64',
);

export const OCTET_DECODERS: readonly Decoder[] = [
  {
    name: 'lisp-message',
    form: 'octets',
    seeds: decodable,
    run: (input) => outcome([DecodeError], () => lisp(input)),
  },
  {
    name: 'map-server-datagram',
    form: 'octets',
    seeds: [...DATAGRAM_SEEDS, ...decodable],
    run: receiveDatagram,
    slow: true,
  },
  {
    name: 'lisp-address',
    form: 'octets',
    seeds: [
      ...['00010a000001', '0002fd77000000000000000000000000000100', '0000', '0006001122aabbcc', '4005001122aabbcc'],
      ...['0011737761700000', '400300000220000a000003e800010a000001', '40030000010000080001010101010000'],
      ...LCAF_SAMPLES.map(({ octets }) => octets),
    ].map((hex) => Buffer.from(hex, 'hex')),
    run: (input) =>
      outcome([DecodeError], () => {
        const decoded = decodeAddress(new Reader(input), 'address');
        const encoded = addressOctets(decoded);
        same(addressOctets(decodeAddress(new Reader(encoded), 'address')), encoded);
        return decoded;
      }),
  },
  {
    name: 'lisp-authentication',
    form: 'octets',
    seeds: decodable,
    run: (input) => {
      const verification = verifyAuthentication(input, PSK);
      assert.equal(verification.ok, false, 'a message verifies that nobody has signed');
      return `not signed, type ${(input[0] ?? 0) >> 4}`;
    },
  },
  {
    name: 'data-header',
    form: 'octets',
    seeds: ['8d00000100000700', '1000100200000000', '0000000000000000', 'c8abcdef000001ff'].map((hex) =>
      Buffer.from(hex, 'hex'),
    ),
    run: (input) =>
      outcome([DecodeError], () => {
        const header = decodeDataHeader(input);
        const encoded = encodeDataHeader(header);
        same(encodeDataHeader(decodeDataHeader(encoded)), encoded);
        return header;
      }),
  },
  {
    name: 'capture',
    form: 'octets',
    seeds: CAPTURES,
    run: (input) => outcome([DecodeError], () => dissected(input)),
  },
  {
    name: 'dns-query',
    form: 'octets',
    seeds: [
      www,
      query('db.stayput.internal', 'AAAA'),
      query('5.0.77.10.in-addr.arpa', 'PTR'),
      query('stayput.internal', 'SOA', { udpSize: 512 }),
    ],
    run: (input) =>
      outcome([], () => {
        const parsed = parseQuery(input);
        if (parsed.kind === 'drop' || parsed.kind === 'malformed') return parsed;
        const { query: asked } = parsed;
        const limit = replyLimit(asked, 'udp');
        const reply = encodeReply(asked, { ...EMPTY_REPLY, rcode: 0 }, limit, encodeRecord);
        assert.ok(reply.length <= limit && reply[0] === input[0] && reply[1] === input[1]);
        if (parsed.kind === 'reject') return parsed;
        const onwards = parseQuery(encodeUpstreamQuery(asked, 7, true));
        assert.ok(onwards.kind === 'query' && onwards.query.id === 7);
        assert.ok(sameQuestion(onwards.query.question, asked.question));
        return parsed;
      }),
  },
  {
    name: 'dns-message',
    form: 'octets',
    seeds: [
      answer(www, 0, [address, { type: 'TXT', name: 'www.example', ttl: 1, data: ['x'] }], { additionals: [address] }),
      answer(www, 3, [{ type: 'CNAME', name: 'www.example', ttl: 9, data: 'cdn.example' }], {
        authorities: [soa('example', 9, 9)],
      }),
      answer(www, 0, [], { authorities: [soa('example', 600, 5)] }),
      answer(www, 0, [], { truncated: true }),
    ],
    run: (input) =>
      outcome([DecodeError], () => {
        const message = parseMessage(input);
        const asked = parseQuery(www);
        assert.ok(asked.kind === 'query');
        if (!sameQuestion(message.question, asked.query.question)) return message;
        for (const limit of [512, 1232, 65_535]) {
          const rendered = renderMessage(message, asked.query, 5, false, limit);
          assert.ok(rendered.length <= limit);
          parseMessage(rendered);
        }
        return message;
      }),
  },
  {
    name: 'dns-sections',
    form: 'octets',
    seeds: [...captures, answer(www, 0, [address, soa('example', 9, 9)], { additionals: [address] })],
    run: (input) =>
      outcome([DecodeError], () => {
        const message = decodeSections(input);
        const { lastRecord: _, ...sections } = message;
        const encoded = encodeSections(sections);
        const { lastRecord: __, ...again } = decodeSections(encoded);
        same(encodeSections(again), encoded);
        const verdict = verifyRequest(input, message, () => TSIG_KEY, 1000 * NSUPDATE_SIGNED.at);
        assert.ok(verdict.kind !== 'valid' || signed.has(meaning(message)), 'what verifies was never signed');
        return { sections, verdict: verdict.kind === 'refused' ? `error ${verdict.error}` : verdict.kind };
      }),
  },
  {
    name: 'zone-request',
    form: 'octets',
    seeds: [TYPE.axfr, TYPE.ixfr, TYPE.a, TYPE.any].map((type) => encodeSections(zone.query(ZONE, type, 7))),
    run: (input) =>
      outcome([], () => {
        const transport = input.length % 2 === 0 ? 'tcp' : 'udp';
        const rcodes = zone.answersTo(input, transport).map((bytes) => {
          assert.ok(bytes.length <= (transport === 'udp' ? 1232 : 65_535));
          const { flags, rcode } = decodeSections(bytes);
          assert.ok((flags & FLAG.qr) !== 0);
          return rcode;
        });
        return { kind: `RCODE ${rcodes}` };
      }),
  },
  {
    name: 'zone-update',
    form: 'octets',
    seeds: [
      Buffer.from(NSUPDATE_SIGNED.hex, 'hex'),
      ...[
        { name: `a.web.${ZONE}`, type: TYPE.txt, rdata: Buffer.from('\x01a') },
        { name: `a.${ZONE}`, type: TYPE.srv, rdata: Buffer.from('\0\x01\0\x02\0\x50\x02db\x03org\0') },
        { name: `b.${ZONE}`, type: TYPE.a, rdata: Buffer.from('0a4d0007', 'hex') },
        { name: `c.${ZONE}`, type: TYPE.cname, rdata: encodeName(`db.${ZONE}`) },
      ].map((record) => {
        const added = { ...record, class: CLASS.in, ttl: 60 };
        const deleted = { ...added, name: `db.${ZONE}`, class: CLASS.none, ttl: 0 };
        return encodeSections({ ...zone.query(ZONE, TYPE.soa), opcode: 5, authorities: [added, deleted] });
      }),
    ],
    run: (input) =>
      outcome([DecodeError], () => {
        const verdict = judgeUpdate(decodeSections(input), zoneRecords, NOTHING_SET, ['*']);
        if (verdict.kind === 'refused') return { kind: `RCODE ${verdict.rcode}` };
        for (const { name, records } of verdict.changes) {
          assert.ok(records !== null && hasRecords(records), 'there was nothing to delete');
          for (const record of setRecords(`${name}.${ZONE}`, ZONE, records, 30)) encodeName(record.name);
        }
        return verdict;
      }),
  },
  {
    name: 'dns-stream',
    form: 'octets',
    seeds: [Buffer.concat([dnsFrame(www), dnsFrame(new Uint8Array(0)), dnsFrame(www)]), dnsFrame(new Uint8Array(600))],
    run: (input) =>
      outcome([DecodeError], () => {
        const cut = (size: number): Buffer[] => inChunks(input, size, new DnsFrames(1000));
        const frames = cut(input.length || 1);
        same(Buffer.concat(cut(3)), Buffer.concat(frames));
        assert.ok(frames.reduce((sum, { length }) => sum + 2 + length, 0) <= input.length);
        return frames;
      }),
  },
  {
    name: 'dataplane-frames',
    form: 'octets',
    seeds: [Buffer.concat([encodeFrame({ type: 'superseded' }), encodeFrame({}), encodeFrame([1, 2, 3])])],
    run: (input) =>
      outcome([DataplaneError], () => {
        const cut = (size: number): string[] => inChunks(input, size, new DataplaneFrames());
        const frames = cut(input.length || 1);
        assert.equal(cut(3).join('\0'), frames.join('\0'));
        return frames;
      }),
  },
  {
    name: 'signing-request',
    form: 'octets',
    slow: true,
    seeds: [REQUEST],
    run: (input) =>
      outcome([CertificateError], () => {
        const base64 = Buffer.from(input).toString('base64');
        const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${base64}\n-----END CERTIFICATE REQUEST-----\n`;
        return readSigningRequest(pem).asymmetricKeyType;
      }),
  },
];

/** What a TSIG covers: all but the ID and itself. */
function meaning({ flags, opcode, rcode, questions, answers, authorities, additionals }: SectionMessage): string {
  const rest = additionals.filter(({ type }) => type !== TYPE.tsig);
  return JSON.stringify([flags, opcode, rcode, questions, answers, authorities, rest]);
}

function lisp(input: Uint8Array): unknown {
  const message = decodeLispMessage(input);
  const encoded = encodeLispMessage(message);
  same(encodeLispMessage(decodeLispMessage(encoded)), encoded);
  mappingsOf(message);
  if (message.type === 'map-request') queriesOf(message);
  if (message.type === 'encapsulated-control') encapsulatedMessage(message);
  return message;
}

/** As `stayput lisp decode --pcap` has it. */
function dissected(input: Uint8Array): unknown {
  const kinds: string[] = [];
  for (const { linkType, bytes } of readCapture(input)) {
    const packet = ipPacketOf(linkType, bytes);
    const datagram = packet === null ? null : udpDatagramOf(packet);
    const dissect = datagram !== null && portMeaning(datagram) === 'data' ? dissectData : dissectControl;
    const dissection = dissect(datagram?.payload ?? bytes, PSK);
    linesOf(dissectionItem(dissection));
    JSON.stringify(dissectionJson(dissection));
    kinds.push(dissection.kind);
  }
  return kinds;
}

function addressOctets(address: LispAddress): Uint8Array {
  const writer = new Writer();
  encodeAddress(address, writer);
  return writer.finish();
}

/** Much faster than a deep comparison. */
function same(actual: Uint8Array, expected: Uint8Array): void {
  assert.ok(Buffer.compare(actual, expected) === 0, 'what is decoded is not what was encoded');
}

function inChunks<T>(input: Uint8Array, size: number, frames: { push(chunk: Buffer): readonly T[] }): T[] {
  const bytes = Buffer.from(input);
  const found: T[] = [];
  for (let at = 0; at < bytes.length; at += size) found.push(...frames.push(bytes.subarray(at, at + size)));
  return found;
}

const TSIG_KEY = { name: 'xfr.test', algorithm: 'hmac-sha256' as const, secret: Buffer.from(TSIG_SECRET, 'base64') };
const PSK = Buffer.from('the key that nobody else has');
const EMPTY_REPLY = { authoritative: true, answers: [], authorities: [] };
