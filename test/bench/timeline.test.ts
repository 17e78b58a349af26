/** The picture of one event, from packets and logs to the SVG. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { analyse, type Watch } from '../../bench/handover/analysis.ts';
import type { ProbeName, Samples } from '../../bench/handover/samples.ts';
import { messagesOf, parseLog, type Timeline } from '../../bench/handover/timeline.ts';
import { drawTimeline } from '../../bench/handover/timeline-picture.ts';
import type { Packet } from '../lab/capture.ts';
import { assertWellFormed } from './well-formed.ts';

const WATCH: Watch = { fromMs: -100, begunMs: 0, countedMs: 8, carriedMs: 8, endMs: 1000, interrupted: true };

test('captured packets are told by their kind and direction; data and empty TCP segments are none', () => {
  const own = new Set(['198.18.1.10', '198.18.2.11']);
  const packets = [
    udp('198.18.1.10', '198.18.3.12', 0x10, 160),
    udp('198.18.3.12', '198.18.1.10', 0x11, 92),
    udp('198.18.2.11', '198.18.3.12', 0x20, 41),
    udp('198.18.2.11', '198.18.3.12', 0x20, 80),
    udp('198.18.2.11', '198.18.3.12', 0x00, 1000),
    tcp('198.18.2.11', '198.18.4.9', 300),
    tcp('198.18.4.9', '198.18.2.11', 0),
  ];
  const messages = messagesOf('vm', packets, own, (wallMs) => wallMs - 1000);
  assert.deepEqual(
    messages.map(({ kind, direction }) => `${kind} ${direction}`),
    ['handshake sent', 'handshake received', 'probe sent', 'report sent', 'map server sent'],
  );
  assert.deepEqual(new Set(messages.map(({ atMs }) => atMs)), new Set([5]));
});

test('lines of both kinds of logs are read, whatever else is in the file', () => {
  const log = [
    '{"level":"info","time":"2026-01-02T03:04:05.678Z","eid":"10.77.0.5/32","state":"live","msg":"EID changed its state"}',
    '{"level":30,"time":1767323045679,"name":"stayput-dataplane","micros":"1500","msg":"handover"}',
    'a warning of Node',
    '{"time":',
  ].join('\n');
  assert.deepEqual(parseLog(log), [
    { wallMs: Date.parse('2026-01-02T03:04:05.678Z'), text: 'EID changed its state: 10.77.0.5/32 live' },
    { wallMs: 1767323045679, text: 'handover: 1500 µs' },
  ]);
});

test('the picture has a lane for each probe and host, what was lost, the messages and the logs of its time', () => {
  const svg = drawTimeline(timeline([probe('udp-in', 20), probe('tcp-bulk', 20)]));
  assertWellFormed(svg);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/);
  for (const text of ['udp-in', 'tcp-bulk', 'vm', '20 lost, 0 twice', '9 ms  vm agent: locators &#60;changed&#62;']) {
    assert.ok(svg.includes(`>${text}<`), text);
  }
  assert.ok(!svg.includes('long before'));
  const away = /<rect x="([\d.]+)"[^>]* width="([\d.]+)"[^>]*fill="#f6e6d6"/.exec(svg);
  assert.ok(Number(away?.[2]) > 0);
});

test('a silence of half a minute does not make the picture unreadable', () => {
  const svg = drawTimeline(timeline([probe('udp-in', 900)]));
  assertWellFormed(svg);
  assert.ok(svg.length < 300_000);
});

function timeline(probes: Timeline['probes']): Timeline {
  const message = { host: 'vm', kind: 'probe', direction: 'sent', atMs: 9 } as const;
  const notes = [
    { who: 'vm agent', text: 'locators <changed>', atMs: 9 },
    { who: 'vm agent', text: 'long before', atMs: -5000 },
  ];
  return { system: 'stayput', event: 'roam', rttMs: 10, countedMs: 8, probes, messages: [message], notes };
}

/** One packet a millisecond; those sent in the first `lost` of the event never arrive. */
function probe(name: ProbeName, lost: number): Timeline['probes'][number] {
  const sent = Array.from({ length: 1100 }, (_, number) => ({ number, atMs: number - 100 }));
  const received = sent
    .filter(({ atMs }) => atMs < 0 || atMs >= lost)
    .map(({ number, atMs }) => ({ number, atMs: atMs + 5 }));
  const samples: Samples = { probe: name, sent, received, resets: 0, sha256Match: null };
  return { samples, outcome: analyse(samples, WATCH) };
}

function udp(source: string, destination: string, kind: number, length: number): Packet {
  const payload = Buffer.from([0x89, 0, 0, 1, 0, 0, 0, kind]);
  return { ...COMMON, protocol: 'udp', source, destination, payload, length };
}

function tcp(source: string, destination: string, length: number): Packet {
  return { ...COMMON, protocol: 'tcp', source, destination, payload: Buffer.alloc(0), length };
}

const COMMON = { atMs: 1005, sourcePort: 4341, destinationPort: 4341 };
