/** Recorded packets that are meant to make a DNS implementation loop, read too far, allocate or answer wrongly. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeSections } from '../../proto/dns/sections.ts';
import { DecodeError } from '../../proto/errors.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { Bench } from './dns-support.ts';

interface Recorded {
  readonly what: string;
  /** The agent's own server, or the forwarder as an answer to `www.example A` (its ID is put in). */
  readonly to: 'server' | 'forwarder';
  readonly hex: string;
  /** The RCODE of the answer, `silence`, or `left`: not passed on, and the next resolver is asked. */
  readonly expect: string;
}

const RECORDED = readFileSync(join(PROJECT_ROOT, 'test', 'vectors', 'dns-hostile.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Recorded);
const RCODES: Readonly<Record<string, number>> = { FORMERR: 1, NOTIMP: 4, REFUSED: 5 };

// Attack: recorded questions with pointers in circles, labels and names that are too long, wrong counts, cut off | 19 |
// the error that RFC 1035 has for it, or silence
test('attack: recorded hostile DNS questions', () => {
  for (const { what, hex, expect } of RECORDED.filter(({ to }) => to === 'server')) {
    const packet = Buffer.from(hex, 'hex');
    const bench = new Bench();
    bench.upstreams('192.0.2.1');
    bench.give(packet);
    assert.equal(bench.sent.length + bench.lookups.length, 0, `${what}: nothing is looked up`);
    if (expect === 'silence') {
      assert.deepEqual([bench.replies.length, bench.ignored.length], [0, 1], what);
      continue;
    }
    const reply = Buffer.from(bench.replies[0]?.packet ?? []);
    assert.deepEqual([reply.readUInt16BE(0), reply.readUInt8(3) & 0xf], [packet.readUInt16BE(0), RCODES[expect]], what);
    assert.ok(reply.length <= packet.length + 11, `${what}: the answer is no larger than the question`);
  }
});

// Attack: recorded answers with pointers in circles, names that are too long, wrong counts and lengths, cut off | 10 |
// not passed on, not cached; the next resolver is asked
test('attack: recorded hostile DNS answers', () => {
  for (const { what, hex } of RECORDED.filter(({ to }) => to === 'forwarder')) {
    const bench = new Bench();
    bench.upstreams('192.0.2.1', '192.0.2.2');
    bench.ask('www.example', 'A');
    const [asked] = bench.sent;
    const packet = Buffer.from(hex, 'hex');
    packet.set(Buffer.from(asked!.packet).subarray(0, 2));
    if (packet.readUInt16BE(4) === 1) packet.set(Buffer.from(asked!.packet).subarray(12, 29), 12);
    bench.service.handleUpstream(asked!.transmit, packet, bench.now);
    bench.drain();
    assert.deepEqual([bench.replies.length, bench.service.cacheEntries], [0, 0], what);
    assert.equal(bench.sent[1]?.upstream.host, '192.0.2.2', what);
  }
});

test('The decoder of whole messages takes none of them for more than it is', () => {
  for (const { what, hex } of RECORDED) {
    try {
      const { records } = sectionsOf(Buffer.from(hex, 'hex'));
      assert.ok(records <= 4, what);
    } catch (error) {
      assert.ok(error instanceof DecodeError, `${what}: ${error}`);
    }
  }
});

function sectionsOf(packet: Buffer): { readonly records: number } {
  const { answers, authorities, additionals } = decodeSections(packet);
  return { records: answers.length + authorities.length + additionals.length };
}
