/**
 * Our codecs against Wireshark's dissector, field by field: every vector, each type of LCAF, and generated messages of
 * each type. Where the dissector does less, DIFFERENCES in `lisp-fields.ts` says so; each of them must still occur.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { DATA_HEADER_LENGTH, LISP_DATA_PORT } from '../../proto/lisp/data-header.ts';
import { LISP_CONTROL_PORT } from '../../proto/lisp/header.ts';
import { encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { ipPacket, pcap } from '../cli/captures.ts';
import { LCAF_SAMPLES } from '../proto/lcaf-samples.ts';
import { lispMessages } from '../proto/lisp-arbitraries.ts';
import {
  DIFFERENCES,
  type Difference,
  fieldsOfDataHeader,
  fieldsOfMessage,
  type OurFields,
  type Value,
} from './lisp-fields.ts';
import { type DissectedField, dissect } from './tshark-fields.ts';

const folder = mkdtempSync(join(tmpdir(), 'stayput-tshark-'));
after(() => rmSync(folder, { recursive: true }));
const seen = new Set<Difference>();
let compared = 0;

test('vectors of other implementations', () => {
  const vectors = ['lisp-messages.json', 'lisp-golden.json'].flatMap(
    (file) => JSON.parse(readFileSync(join(PROJECT_ROOT, 'test/vectors', file), 'utf8')) as Vector[],
  );
  assert.ok(vectors.length >= 33);
  compare(vectors.map(({ name, udpPayload }) => packet(name, Buffer.from(udpPayload, 'hex'), name.includes('.data.'))));
});

test('every type of LCAF, as EID and as locator', () => {
  compare(
    LCAF_SAMPLES.flatMap(({ type, octets }) => [
      packet(`EID of type ${type}`, Buffer.from(`${REPLY}00000005002000000000${octets}`, 'hex')),
      packet(`locator of type ${type}`, Buffer.from(`${REPLY}0000000501000000000000000164ff000005${octets}`, 'hex')),
    ]),
  );
});

for (const [type, arbitrary] of Object.entries(lispMessages)) {
  test(`generated messages: ${type}`, () => {
    const messages = fc.sample(arbitrary, { numRuns: 80, seed: 1 }).map(readable);
    compare(messages.map((message, i) => packet(`${type} ${i}`, encodeLispMessage(message))));
  });
}

test('every combination of bits in the header of data packets', () => {
  const inner = ipPacket({
    source: '10.0.0.1',
    sourcePort: 1,
    destination: '10.0.0.2',
    destinationPort: 2,
    payload: Buffer.alloc(4),
  });
  compare(
    Array.from({ length: 256 }, (_, flags) => {
      const header = Buffer.from(`${flags.toString(16).padStart(2, '0')}abcdef00000700`, 'hex');
      header.writeUInt8(flags & 0x40 ? 0xa5 : 0, 7);
      return packet(`flags ${flags}`, Buffer.concat([header, inner]), true);
    }),
  );
});

test('no known difference is out of date', () => {
  assert.deepEqual([...seen].sort(), Object.keys(DIFFERENCES).sort());
  assert.ok(compared > 20_000, `${compared} fields`);
});

interface Vector {
  readonly name: string;
  readonly udpPayload: string;
}

interface Packet {
  readonly name: string;
  readonly payload: Uint8Array;
  readonly isData: boolean;
}

function packet(name: string, payload: Uint8Array, isData = false): Packet {
  return { name, payload, isData };
}

function compare(packets: readonly Packet[]): void {
  const file = join(folder, 'packets.pcap');
  const frames = packets.map(({ payload, isData }) =>
    ipPacket({
      ...{ source: '192.0.2.1', sourcePort: 61_000, destination: '192.0.2.2' },
      ...{ destinationPort: isData ? LISP_DATA_PORT : LISP_CONTROL_PORT, payload },
    }),
  );
  writeFileSync(file, pcap(RAW_IP, frames));
  const dissected = dissect(file);
  assert.equal(dissected.length, packets.length);
  for (const [i, { name, payload, isData }] of packets.entries()) {
    const ours = isData ? fieldsOfDataHeader(payload.subarray(0, DATA_HEADER_LENGTH)) : fieldsOfMessage(payload);
    for (const difference of ours.differences) seen.add(difference);
    const { fields, rest } = dissected[i] ?? assert.fail();
    // What a data packet carries is not LISP's.
    const theirs = fields.filter((field) => isCompared(field) && (!isData || field.name.startsWith('lisp')));
    agree(`${name}: ${Buffer.from(payload).toString('hex')}`, ours, theirs, rest && !isData);
  }
}

/** Names that look the same in XML; in an ECM another message, to the port where the dissector expects one. */
function readable(message: LispMessage): LispMessage {
  const named = JSON.stringify(message, (_, value) =>
    typeof value === 'bigint'
      ? { bigint: String(value) }
      : value instanceof Uint8Array
        ? { octets: [...value] }
        : value,
  );
  const plain = JSON.parse(named, (_, value) => {
    if (typeof value !== 'object' || value === null) return value;
    if ('bigint' in value) return BigInt(value.bigint);
    if ('octets' in value) return Uint8Array.from(value.octets);
    return value.kind === 'name' ? { ...value, name: `n${value.name.replace(/[^a-z0-9]/gi, '-')}` } : value;
  }) as LispMessage;
  if (plain.type !== 'encapsulated-control') return plain;
  const [inner] = fc.sample(lispMessages.mapRequest, { numRuns: 1, seed: plain.sourcePort }).map(readable);
  const payload = encodeLispMessage(inner ?? assert.fail());
  return { ...plain, payload, sourcePort: LISP_CONTROL_PORT, destinationPort: LISP_CONTROL_PORT };
}

function agree(name: string, ours: OurFields, theirs: readonly DissectedField[], rest: boolean): void {
  for (const [i, [field, value]] of ours.fields.entries()) {
    assert.deepEqual([theirs[i]?.name, readAs(theirs[i]?.value, value)], [field, text(value)], name);
  }
  compared += ours.fields.length;
  if (ours.ended) return;
  assert.deepEqual(theirs.slice(ours.fields.length), [], `${name}: tshark has more`);
  assert.equal(rest, false, `${name}: tshark has octets left`);
}

function isCompared({ name }: DissectedField): boolean {
  return name.startsWith('lisp') ? !IGNORED.has(name) : OF_INNER_HEADERS.has(name);
}

function text(value: Value): string {
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value);
}

/** What tshark shows as what we have, so that notations do not differ. */
function readAs(theirs: string | undefined, ours: Value): string | undefined {
  if (theirs === undefined || typeof ours === 'string') return theirs;
  if (ours instanceof Uint8Array) return theirs.replaceAll(':', '');
  if (/^(true|false)$/i.test(theirs)) return /^t/i.test(theirs) ? '1' : '0';
  return /^(0x[0-9a-f]+|[0-9]+)$/i.test(theirs) ? BigInt(theirs).toString() : theirs;
}

/** Raw IP. */
const RAW_IP = 101;
const REPLY = `20000001${'00'.repeat(8)}`;

const OF_INNER_HEADERS = new Set([
  ...['ip.ttl', 'ip.src', 'ip.dst', 'ipv6.hlim', 'ipv6.src', 'ipv6.dst'],
  ...['udp.srcport', 'udp.dstport'],
]);

/** Headings, sums of fields that follow one by one, and reserved octets of records, which have no part in a message. */
const IGNORED = new Set([
  ...['lisp.mreq.flags', 'lisp.mreq.itr.rloc', 'lisp.mreq.record', 'lisp.mrep.record', 'lisp.mapping', 'lisp.loc'],
  ...[
    'lisp.loc.flags',
    'lisp.loc.flags.res',
    'lisp.mapping.res1',
    'lisp.mapping.res2',
    'lisp.lcaf',
    'lisp.lcaf.header',
  ],
  ...['lisp.lcaf.mcinfo.flags', 'lisp.lcaf.mcinfo.flags.res', 'lisp.lcaf.mcinfo.res', 'lisp.lcaf.mcinfo.src'],
  ...['lisp.lcaf.mcinfo.grp', 'lisp.lcaf.afi.list.item', 'lisp.lcaf.geo.lat', 'lisp.lcaf.geo.lon', 'lisp.lcaf.geo.alt'],
  ...['lisp.lcaf.natt.rloc', 'lisp.lcaf.elp.hop', 'lisp.lcaf.elp.hop.flags', 'lisp.lcaf.elp.hop.flags.res'],
  ...['lisp.lcaf.srcdst.res', 'lisp.lcaf.srcdst.src', 'lisp.lcaf.srcdst.dst', 'lisp.lcaf.rle.entry'],
  ...['lisp.lcaf.rle.entry.res', 'lisp.lcaf.kv.key', 'lisp.lcaf.kv.value', 'lisp.lcaf.vendor.res'],
  ...['lisp-data.flags', 'lisp-data.mapver', 'lisp-data.flags.nv.invalid', 'lisp-data.flags.en.invalid'],
  ...['lisp.undecoded', 'lisp.unexpected.field', 'lisp.invalid.field', 'lisp.expected.field'],
]);
