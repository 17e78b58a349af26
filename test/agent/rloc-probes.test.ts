/** RLOC-probing (RFC 9301 section 7.1) of the routers that an agent sends plain packets to, in virtual time. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DataplaneTable } from '../../agent/core/dataplane-table.ts';
import { Outbox } from '../../agent/core/outbox.ts';
import type { Note } from '../../agent/core/output.ts';
import { plainProbes, type RlocProbes } from '../../agent/core/rloc-probes.ts';
import { type IpAddress, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import type { DataplaneCommand, PlainRules } from '../../proto/dataplane/messages.ts';
import { DEFAULT_INSTANCE } from '../../proto/eid.ts';
import { ipLispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { nonce } from '../../proto/lisp/header.ts';
import type { MapReply } from '../../proto/lisp/map-reply.ts';
import type { MapRequest } from '../../proto/lisp/map-request.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import type { Generation, Locator } from '../../proto/mapping.ts';
import { World } from './world.ts';

const SITE = parseIpPrefix('10.77.50.0/24');
const FIRST = locator('192.0.2.1', 1);
const SECOND = locator('192.0.2.2', 2);
const PLAIN: PlainRules = {
  instance: DEFAULT_INSTANCE,
  gateway: false,
  sites: [{ rlocs: [parseIpPrefix('192.0.2.0/24')], eids: [] }],
};

describe('RLOC-probes of an agent', () => {
  test('an RLOC is asked when a mapping names it, directly, for the EID-prefix, with no source EID', () => {
    const { use, asked } = start();
    use(FIRST, locator('198.51.100.9', 1), locator('192.0.2.9', 255));
    const [first = assert.fail(), ...more] = asked();
    assert.deepEqual([first.to, more], [{ address: '192.0.2.1', port: 4342 }, []], 'allowed and usable ones only');
    const { probe, sourceEid, itrRlocs, records } = first.request;
    assert.deepEqual([probe, sourceEid, itrRlocs], [true, NO_ADDRESS, [ipLispAddress(parseIpAddress('203.0.113.1'))]]);
    assert.deepEqual([records[0]?.maskLength, records.length], [24, 1]);
  });

  test('one that does not answer three times is left for the next by priority, and taken again when it answers', () => {
    const { use, answerAll, advance, used, taken, notes } = start();
    use(FIRST, SECOND);
    assert.deepEqual(used(), ['192.0.2.1', '192.0.2.2'], 'before anything is known, all by priority');
    answerAll();
    advance(13_000, '192.0.2.1');
    assert.deepEqual(used(), ['192.0.2.1', '192.0.2.2']);
    // The round began within the jittered interval and takes three seconds.
    advance(3000, '192.0.2.1');
    assert.deepEqual(used(), ['192.0.2.2']);
    assert.deepEqual(taken(), ['192.0.2.1', '192.0.2.2'], 'packets may still come from it');
    advance(60_000);
    assert.deepEqual(used(), ['192.0.2.1', '192.0.2.2']);
    assert.deepEqual(
      notes().flatMap((note) => (note.type === 'rloc' ? [`${note.rloc} ${note.state}`] : [])),
      ['192.0.2.1 up', '192.0.2.2 up', '192.0.2.1 down', '192.0.2.1 up'],
    );
  });

  test('routers that answer no probes are sent to all the same', () => {
    const { use, advance, used, probes } = start();
    use(FIRST, SECOND);
    advance(60_000, '192.0.2.1', '192.0.2.2');
    assert.deepEqual(used(), ['192.0.2.1', '192.0.2.2']);
    assert.deepEqual(
      probes.list().map(({ state }) => state),
      ['down', 'down'],
    );
  });

  test('one that answers, but that a mapping forbids, does not stand in for those of this mapping', () => {
    const { use, answerAll, used, table } = start();
    use(FIRST);
    answerAll();
    table.forwardPlainly(parseIpPrefix('10.77.51.0/24'), 1 as Generation, [{ ...FIRST, priority: 255 }, SECOND]);
    assert.deepEqual(used(), ['192.0.2.2']);
    answerAll();
    assert.deepEqual(used(), ['192.0.2.2']);
  });

  test('one that is down is asked ever more rarely, up to a minute', () => {
    const { use, advance, rounds } = start();
    use(FIRST);
    advance(600_000, '192.0.2.1');
    const pauses = rounds().map((at, n, all) => at - (all[n - 1] ?? at));
    assert.ok((pauses[1] ?? 0) < 16_000 && (pauses[2] ?? 0) > 15_000, `${pauses}`);
    assert.ok(Math.max(...pauses) <= 60_000 * 1.25 + 3000 && Math.max(...pauses) > 40_000, `${pauses}`);
  });

  test('probes are spread: the interval has jitter', () => {
    const { use, advance, rounds } = start();
    use(FIRST);
    advance(200_000);
    const pauses = new Set(rounds().map((at, n, all) => Math.round(at - (all[n - 1] ?? at))));
    assert.ok(pauses.size > 10, `${[...pauses]}`);
    for (const pause of [...pauses].slice(1)) assert.ok(pause >= 7500 && pause <= 12_500, `${pause}`);
  });

  test('the round trip is measured where it is sure', () => {
    const { use, asked, step, answer, probes } = start();
    use(FIRST);
    const [first = assert.fail()] = asked();
    step(40);
    answer(first.request, '192.0.2.1');
    assert.deepEqual(probes.list(), [{ rloc: '192.0.2.1', state: 'up', rttMs: 40, eids: [SITE] }]);
  });

  test('an answer that says the RLOC is not reachable ends its use', () => {
    const { use, asked, answer, answerAll, used, advance } = start();
    use(FIRST, SECOND);
    answerAll();
    advance(7000);
    for (let turn = 0; turn < 20 && used().length === 2; turn++) {
      advance(500, '192.0.2.1');
      for (const { to, request } of asked()) if (to.address === '192.0.2.1') answer(request, to.address, REFUSED);
    }
    assert.deepEqual(used(), ['192.0.2.2']);
  });

  test('a host that moves asks all at once', () => {
    const { use, answerAll, asked, probes } = start();
    use(FIRST, SECOND);
    answerAll();
    assert.deepEqual(asked(), []);
    probes.handleMoved();
    assert.equal(asked().length, 2);
  });

  test('what no mapping names any more is not asked', () => {
    const { use, advance, probes, asked, table } = start();
    use(FIRST, SECOND);
    use(SECOND);
    assert.deepEqual(
      probes.list().map(({ rloc }) => rloc),
      ['192.0.2.2'],
    );
    table.removeMapping(SITE, 0);
    asked();
    advance(60_000);
    assert.deepEqual([asked(), probes.list(), probes.pollTimeout()], [[], [], Number.POSITIVE_INFINITY]);
  });

  // Attack: answers to RLOC-probes with a guessed nonce, from another address, without the A or the P bit | 4 | an RLOC that is down stays so
  test('attack: answers to probes that prove nothing', () => {
    const { use, asked, answer, probes } = start();
    use(FIRST, SECOND);
    const [first = assert.fail()] = asked();
    const { request } = first;
    assert.equal(answer({ ...request, nonce: nonce(request.nonce + 1n) }, '192.0.2.1'), false);
    assert.equal(answer(request, '192.0.2.2'), false);
    assert.equal(answer(request, '192.0.2.1', { ...ANSWER, authoritative: false }), false);
    assert.equal(answer(request, '192.0.2.1', { ...ANSWER, probe: false }), false);
    assert.ok(probes.list().every(({ state }) => state === 'unknown'));
    assert.equal(answer(request, '192.0.2.1'), true);
    assert.equal(answer(request, '192.0.2.1'), false, 'a second time');
  });

  // Attack: a mapping system that names very many RLOCs | 5000 RLOCs | 1,024 are probed, 200 in a second
  test('attack: very many RLOCs to be probed', () => {
    const rlocs = [parseIpPrefix('0.0.0.0/0')];
    const { table, asked, probes, advance } = start({ ...PLAIN, sites: [{ rlocs, eids: [] }] });
    for (let n = 0; n < 5000; n++) {
      const prefix = parseIpPrefix(`10.77.${n >> 8}.${n & 255}/32`);
      table.forwardPlainly(prefix, 1 as Generation, [locator(`198.18.${n >> 8}.${n & 255}`, 1)]);
    }
    assert.equal(asked().length, 200);
    assert.equal(probes.list().length, 1024);
    let sent = 0;
    for (let turn = 0; turn < 10; turn++) {
      advance(100, ...probes.list().map(({ rloc }) => rloc));
      sent += asked().length;
    }
    assert.ok(sent <= 200, `${sent}`);
  });

  test('one that is too many to be asked is used beside those that are up', () => {
    const { use, table, answerAll, used, probes } = start({
      ...PLAIN,
      sites: [{ rlocs: [parseIpPrefix('192.0.2.0/24'), parseIpPrefix('198.18.0.0/15')], eids: [] }],
    });
    use(FIRST);
    for (let n = 1; n < 1024; n++) {
      const prefix = parseIpPrefix(`10.77.${n >> 8}.${n & 255}/32`);
      table.forwardPlainly(prefix, 1 as Generation, [locator(`198.18.${n >> 8}.${n & 255}`, 1)]);
    }
    use(FIRST, SECOND, locator('203.0.113.9', 3));
    assert.equal(probes.list().length, 1024);
    assert.ok(probes.list().every(({ rloc }) => rloc !== SECOND.address));
    answerAll();
    table.repeatMapping(SITE);
    assert.deepEqual(used(), [FIRST.address, SECOND.address], 'and none that is not allowed');
  });

  test('an agent probes by itself, and uses what it finds', () => {
    const world = new World();
    let random = 0n;
    const probing = { interval: 10_000, timeout: 1000, tries: 3, randomNonce: () => nonce(++random) };
    const elsewhere = {
      mapServers: [],
      mapResolvers: [{ address: parseIpAddress('198.51.100.1'), port: 4342, resolve: [SITE] }],
      firstNonce: nonce(0n),
      randomNonce: () => nonce(1_000_000n + ++random),
    };
    const host = world.host('a', { address: '203.0.113.1', lisp: { plain: PLAIN, elsewhere, probing } });
    host.connect();
    host.miss('10.77.50.5');
    const question = decodeLispMessage(host.datagrams.pop() ?? assert.fail());
    assert.ok(question.type === 'encapsulated-control');
    const asked = decodeLispMessage(question.payload);
    assert.ok(asked.type === 'map-request');
    host.hear4342('198.51.100.1', replyTo(asked, { ...ANSWER, probe: false }, ['192.0.2.1', '192.0.2.2']));
    world.advance(0);
    const probes = host.datagrams.splice(0).map((bytes) => decodeLispMessage(bytes));
    assert.deepEqual(
      probes.map((message) => message.type === 'map-request' && message.probe),
      [true, true],
    );
    const [, second] = probes;
    assert.ok(second?.type === 'map-request');
    assert.equal(host.hear4342('192.0.2.2', replyTo(second, ANSWER, ['192.0.2.2'])), 'probed');
    world.advance(3000);
    assert.deepEqual(
      host.agent.probedRlocs().map(({ rloc, state }) => `${rloc} ${state}`),
      ['192.0.2.1 down', '192.0.2.2 up'],
    );
  });
});

const ANSWER = { probe: true, authoritative: true, reachable: true };
const REFUSED = { ...ANSWER, reachable: false };

function start(plain = PLAIN) {
  let now = 0;
  // The middle of what is possible, then anything.
  let random = 0x40n;
  const outbox = new Outbox();
  const commands: DataplaneCommand[] = [];
  const noted: Note[] = [];
  const begun: number[] = [];
  const seen = new Set<bigint>();
  let waiting: { readonly to: { readonly address: IpAddress; readonly port: number }; readonly request: MapRequest }[] =
    [];
  const probing = {
    interval: 10_000,
    timeout: 1000,
    tries: 3,
    randomNonce: () => {
      random = (random * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn;
      return nonce(random ^ (random >> 33n));
    },
  };
  const own = [locator('203.0.113.1', 1)];
  const probes: RlocProbes =
    plainProbes({ plain, probing }, { locators: () => own, changed: (each) => table.repeatMapping(each), outbox }, 0) ??
    assert.fail();
  const table = new DataplaneTable((command) => commands.push(command), plain, probes);
  table.attach({ enforces: true, knowsPlain: true }, 0);

  const drain = () => {
    if (probes.pollTimeout() <= now) probes.handleTimeout(now);
    for (let output = outbox.poll(); output !== undefined; output = outbox.poll()) {
      if (output.to === 'operator') noted.push(output.note);
      if (output.to !== 'lisp-router') continue;
      const request = decodeLispMessage(output.bytes);
      assert.ok(request.type === 'map-request');
      if (!seen.has(request.nonce)) begun.push(now);
      seen.add(request.nonce);
      waiting.push({ to: output.peer, request });
    }
  };
  const asked = () => {
    drain();
    const all = waiting;
    waiting = [];
    return all;
  };
  const answer = (request: MapRequest, from: string, how = ANSWER) => {
    const reply = decodeLispMessage(replyTo(request, how, [from]));
    assert.ok(reply.type === 'map-reply');
    return probes.handleReply(parseIpAddress(from), reply as MapReply, now);
  };
  /** Of all that are asked but those that are silent. */
  const answerAll = (...silent: string[]) => {
    const kept = asked().filter(({ to, request }) => silent.includes(to.address) || !answer(request, to.address));
    waiting = kept;
  };
  const addresses = (which: (locator: Locator) => boolean) => {
    const last = commands.filter((command) => command.type === 'mapping-set').at(-1);
    return last?.type === 'mapping-set' ? (last.locators ?? []).filter(which).map(({ address }) => address) : [];
  };
  return {
    probes,
    table,
    asked,
    answer,
    answerAll,
    use: (...locators: Locator[]) => table.forwardPlainly(SITE, 1 as Generation, locators),
    step: (ms: number) => {
      now += ms;
    },
    advance: (ms: number, ...silent: string[]) => {
      for (const end = now + ms; ; ) {
        answerAll(...silent);
        const next = Math.max(now, probes.pollTimeout());
        if (next > end) {
          now = end;
          return;
        }
        now = next;
      }
    },
    /** RLOCs that the data plane may send to, by what it was told last. */
    used: () => addresses(({ priority }) => priority < 255),
    /** And those that packets may come from. */
    taken: () => addresses(() => true),
    notes: () => noted,
    /** When the first of several tries was sent. */
    rounds: () => begun,
  };
}

function locator(address: string, priority: number): Locator {
  return { address: parseIpAddress(address), port: 4341, priority, weight: 100 };
}

function replyTo({ nonce, records }: MapRequest, how: typeof ANSWER, rlocs: readonly string[]): Uint8Array {
  const [asked = assert.fail()] = records;
  const told = rlocs.map((rloc, at) => ({
    priority: at + 1,
    weight: 100,
    multicastPriority: 255,
    multicastWeight: 0,
    local: true,
    probed: how.probe,
    reachable: how.reachable,
    locator: ipLispAddress(parseIpAddress(rloc)),
  }));
  const record = {
    ...{ eid: asked.eid, maskLength: asked.maskLength },
    ...{ ttl: 1, action: 0, authoritative: how.authoritative, mapVersion: 0, locators: told },
  };
  return encodeLispMessage({ type: 'map-reply', probe: how.probe, echoNonce: false, nonce, records: [record] });
}
