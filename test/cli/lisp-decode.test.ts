/** `stayput lisp decode`: what it reads, what it says, and how it ends. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { readCapture } from '../../cli/lisp/capture-file.ts';
import { dissectControl, dissectData } from '../../cli/lisp/dissection.ts';
import { dissectionJson } from '../../cli/lisp/dissection-json.ts';
import { dissectionItem } from '../../cli/lisp/dissection-text.ts';
import { ipPacketOf, udpDatagramOf } from '../../cli/lisp/link-layer.ts';
import { linesOf } from '../../cli/lisp/text-tree.ts';
import { DecodeError } from '../../proto/errors.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { LCAF_SAMPLES } from '../proto/lcaf-samples.ts';
import { lispMessage } from '../proto/lisp-arbitraries.ts';
import { runs } from '../runs.ts';
import { type Datagram, ethernetFrame, ipPacket, pcap, pcapng } from './captures.ts';

const folder = mkdtempSync(join(tmpdir(), 'stayput-decode-'));
after(() => rmSync(folder, { recursive: true }));

test('a Map-Register is told line by line, with its authentication checked', () => {
  const { status, stdout } = decode(['--key-file', file('key', 'secret\n'), REGISTER]);
  assert.equal(status, 0);
  assert.equal(
    stdout,
    [
      'Map-Register (3), 112 octets',
      '  bits: P proxy Map-Reply, I xTR-ID present, T TTL is the time-out, M Map-Notify wanted',
      '  nonce 0x8877665544332211',
      '  authentication key 0, algorithm 2 HMAC-SHA-256-128, 044a7d51557c491641af43c09806fc24b33f2ef408657d59a5bf17711b164a5d: right, over the whole payload',
      '  record 1 LCAF 2, instance ID 1000',
      '    address 10.1.1.1/32',
      '    TTL 3 min, A authoritative',
      '    locator 1 192.0.2.10',
      '      priority 1, weight 100, multicast 255/0, L local, R reachable',
      '  xTR-ID 000102030405060708090a0b0c0d0e0f',
      '  site ID 1',
      '',
    ].join('\n'),
  );
});

test('with a wrong key the authentication is wrong, and the exit code is 1', () => {
  const { status, stdout } = decode(['--key-file', file('wrong', 'Secret'), REGISTER]);
  assert.equal(status, 1);
  assert.match(stdout, /algorithm 2 .*: WRONG with this key/);
});

test('hex may have spaces, colons and 0x, and standard input a message for each line', () => {
  const pairs = REGISTER.match(/../g) ?? [];
  const { stdout } = decode([REGISTER]);
  for (const text of [pairs.join(' '), pairs.join(':'), pairs.map((pair) => `0x${pair}`).join(', ')]) {
    assert.equal(decode([text]).stdout, stdout);
  }
  assert.equal(decode(pairs).stdout, stdout);
  const twice = decode(['-'], `# from a capture\n${REGISTER}\n\n${pairs.join(' ')}\r\n`);
  assert.equal(twice.stdout, stdout + stdout);
});

test('what cannot be read is shown with the place where reading ended, and the exit code is 1', () => {
  const { status, stdout } = decode([PROXY.slice(0, 72)]);
  assert.equal(status, 1);
  assert.deepEqual(stdout.split('\n'), [
    'NOT READABLE, 36 octets: locator at offset 36: 4 octets needed, 0 left',
    '  0020  00 01 00 01',
    '                    ^^',
    '',
  ]);
});

test('what is no hex or no capture is one line, and the exit code is 2', () => {
  for (const [args, message] of [
    [['12345'], 'an odd number of hex digits'],
    [['xyz0'], '"x" is not a hex digit'],
    [[], 'give a message in hex'],
    [['--pcap', file('no.pcap', 'x'.repeat(100))], 'is neither pcap nor pcapng'],
    [['--pcap', join(folder, 'missing')], 'ENOENT'],
    [['--pcap', 'x', '00'], '--pcap stands alone'],
    [['--pcap', file('other.pcap', pcap(147, [Buffer.alloc(20)]))], 'link type at offset 0: 147 is not known'],
  ] as const) {
    const { status, stdout, stderr } = decode(args);
    assert.equal(status, 2, message);
    assert.equal(stdout, '');
    assert.ok(stderr.startsWith('stayput: ') && stderr.includes(message), stderr);
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
  }
});

test('JSON has everything that the message has', () => {
  const [entry] = JSON.parse(decode(['--json', REGISTER]).stdout);
  assert.deepEqual(entry.bits.slice(0, 2), ['P: proxy Map-Reply', 'I: xTR-ID present']);
  assert.equal(entry.message.nonce, '0x8877665544332211');
  assert.equal(entry.message.authentication.data.length, 64);
  assert.deepEqual(entry.message.records[0].eid.address, { kind: 'ip', address: '10.1.1.1' });
  const [damaged] = JSON.parse(decode(['--json', '3000']).stdout);
  assert.deepEqual([damaged.kind, damaged.error.offset, damaged.octets], ['malformed', 0, '3000']);
});

test('reserved bits that nobody knows are named as such', () => {
  const bytes = Buffer.from(NEGATIVE, 'hex');
  bytes.writeUInt32BE(bytes.readUInt32BE(0) | 0x0000_8000, 0);
  assert.match(lines(bytes), /bits: unknown bits 0x00008000/);
});

test('captures of every format and link type lead to the same message', () => {
  const packet = ipPacket(DATAGRAM);
  const cooked = Buffer.concat([Buffer.from('00000001000602000000000100000800', 'hex'), packet]);
  const cooked2 = Buffer.concat([Buffer.from('0800000000000001000100060200000000010000', 'hex'), packet]);
  const captures: [string, Buffer][] = [
    ['pcap', pcap(1, [ethernetFrame(packet)])],
    ['pcap, big-endian', pcap(1, [ethernetFrame(packet)], true)],
    ['pcapng', pcapng(1, [ethernetFrame(packet)])],
    ['pcapng, big-endian', pcapng(1, [ethernetFrame(packet)], true)],
    ['a VLAN', pcap(1, [ethernetFrame(packet, ['81000064'])])],
    ['two VLANs', pcap(1, [ethernetFrame(packet, ['88a80064', '81000065'])])],
    ['Linux cooked', pcap(113, [cooked])],
    ['Linux cooked 2', pcap(276, [cooked2])],
    ['raw IP', pcap(101, [packet])],
    ['IPv4', pcap(228, [packet])],
    ['loopback', pcap(0, [Buffer.concat([Buffer.from('02000000', 'hex'), packet])])],
  ];
  for (const [name, capture] of captures) {
    const { status, stdout, stderr } = decode(['--pcap', '-'], capture);
    assert.equal(status, 0, `${name}: ${stderr}`);
    assert.equal(
      stdout.split('\n')[0],
      'frame 1, 2023-11-14T22:13:20.250000Z, 192.0.2.1 port 4342 > 192.0.2.2 port 61000',
      name,
    );
    assert.match(stdout, /Map-Reply \(2\), 28 octets/, name);
  }
});

test('IPv6, extension headers, other traffic and fragments in a capture', () => {
  const six = ipPacket({ ...DATAGRAM, source: '2001:db8::1', destination: '2001:db8::2' });
  const options = Buffer.concat([six.subarray(0, 40), Buffer.from('1100010400000000', 'hex'), six.subarray(40)]);
  options.writeUInt8(60, 6);
  options.writeUInt16BE(options.length - 40, 4);
  const fragment = ipPacket(DATAGRAM);
  fragment.writeUInt16BE(0x2000, 6);
  const dns = ipPacket({ ...DATAGRAM, sourcePort: 53, destinationPort: 5353 });
  const arp = Buffer.from(`ffffffffffff0200000000010806${'00'.repeat(28)}`, 'hex');
  const frames = [...[six, options, fragment, dns].map((packet) => ethernetFrame(packet)), arp];
  const { status, stdout, stderr } = decode(['--json', '--pcap', file('mixed.pcap', pcap(1, frames))]);
  assert.equal(status, 0);
  const found = JSON.parse(stdout) as { frame: number; from: unknown }[];
  assert.deepEqual(
    found.map(({ frame, from }) => [frame, from]),
    [
      [1, { address: '2001:db8::1', port: 4342 }],
      [2, { address: '2001:db8::1', port: 4342 }],
    ],
  );
  assert.match(stderr, /1 IP fragments left out/);
});

test('a capture that is cut off gives what precedes the cut, and the exit code 1', () => {
  const whole = pcap(1, [ethernetFrame(ipPacket(DATAGRAM)), ethernetFrame(ipPacket(DATAGRAM))]);
  const { status, stdout, stderr } = decode(['--pcap', '-'], whole.subarray(0, whole.length - 5));
  assert.equal(status, 1);
  assert.match(stdout, /frame 1,/);
  assert.match(stderr, /the capture is cut off; what precedes it follows/);
});

test('data packets have their header and a line about the packet inside', () => {
  const inner = ipPacket({
    ...DATAGRAM,
    source: '10.0.0.1',
    sourcePort: 5000,
    destination: '10.0.0.2',
    destinationPort: 80,
  });
  const text = dataLines(Buffer.concat([Buffer.from('cc0000ab000007ff', 'hex'), inner]));
  assert.deepEqual(text, [
    'LISP data packet, 64 octets',
    '  header: N nonce 0x0000ab, I instance ID 7, L locator-status-bits 0x000000ff',
    '  IPv4 10.0.0.1 port 5000 > 10.0.0.2 port 80, UDP, TTL 64, 36 octets',
  ]);
  const tunnel = dataLines(Buffer.from('8900000100000700aabbcc', 'hex'));
  assert.equal(tunnel[2], '  Stayput tunnel packet, data');
});

test("an RTR's keep-alive for NAT bindings has a Map-Notify inside", () => {
  const notify = Buffer.from('400000000000000000000000' + '00000000', 'hex');
  const inner = ipPacket({ ...DATAGRAM, payload: notify, destinationPort: 4342 });
  const text = dataLines(Buffer.concat([Buffer.from('08000000ffffff00', 'hex'), inner]));
  assert.match(text.join('\n'), /instance ID 16777215\n.*\n {2}Map-Notify \(4\), 16 octets/);
});

test('every type of LCAF is told, names cannot write to the terminal', () => {
  for (const { type, octets } of LCAF_SAMPLES) {
    const reply = Buffer.from(`20000001${'00'.repeat(8)}00000005012000000000${octets}0164ff0000050000`, 'hex');
    assert.match(lines(reply), new RegExp(`record 1 (\\(mask-len 32\\) )?LCAF ${type}, `));
  }
  const name = Buffer.from('\u001b[2J\u0007', 'utf8').toString('hex');
  const request = Buffer.from(`10000001${'00'.repeat(8)}0000000000000011${name}00`, 'hex');
  assert.match(lines(request), /record 1 "\\u001b\[2J\\u0007"/);
});

test('whatever the octets, there is something to say and to print as JSON', () => {
  const octets = fc.oneof(fc.uint8Array({ maxLength: 200 }), lispMessage.map(encodeLispMessage));
  fc.assert(
    fc.property(octets, fc.nat(), (bytes, cut) => {
      for (const dissection of [
        dissectControl(bytes, Buffer.from('key')),
        dissectControl(bytes.subarray(0, cut % (bytes.length + 1)), null),
        dissectData(bytes, null),
      ]) {
        for (const line of linesOf(dissectionItem(dissection))) assert.doesNotMatch(line, /[^\P{Cc}]/u);
        JSON.stringify(dissectionJson(dissection));
      }
    }),
    { numRuns: runs(400) },
  );
});

test('damaged captures are DecodeErrors', () => {
  const seeds = [pcap, pcapng].map((write) => write(1, [ethernetFrame(ipPacket(DATAGRAM)), Buffer.alloc(33)]));
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
      (seed, changes) => {
        const bytes = Buffer.from(seed);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        try {
          for (const { linkType, bytes: frame } of readCapture(bytes)) {
            const packet = ipPacketOf(linkType, frame);
            if (packet !== null) udpDatagramOf(packet);
          }
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      },
    ),
    { numRuns: runs(1000) },
  );
});

function decode(
  args: readonly string[],
  input: string | Uint8Array = '',
): { status: number | null; stdout: string; stderr: string } {
  const main = join(PROJECT_ROOT, 'dist', 'cli', 'main.js');
  return spawnSync(process.execPath, [main, 'lisp', 'decode', ...args], { input, encoding: 'utf8' });
}

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

function lines(bytes: Uint8Array): string {
  return linesOf(dissectionItem(dissectControl(bytes, null))).join('\n');
}

function dataLines(bytes: Uint8Array): string[] {
  return linesOf(dissectionItem(dissectData(bytes, null)));
}

const golden = JSON.parse(readFileSync(join(PROJECT_ROOT, 'test/vectors/lisp-golden.json'), 'utf8')) as {
  name: string;
  udpPayload: string;
}[];
const payload = (name: string): string => golden.find((entry) => entry.name === name)?.udpPayload ?? assert.fail(name);
const REGISTER = payload('lispers-made.reg-alg2-iid1000');
const PROXY = payload('lispers-made.map-reply-proxy');
const NEGATIVE = payload('lispers-made.map-reply-negative');
const DATAGRAM: Datagram = {
  source: '192.0.2.1',
  sourcePort: 4342,
  destination: '192.0.2.2',
  destinationPort: 61_000,
  payload: Buffer.from(NEGATIVE, 'hex'),
};
