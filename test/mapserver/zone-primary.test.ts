/** The zone's primary without sockets: what it answers, in which order serials and NOTIFYs come, and who is refused. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { isNewer } from '../../mapserver/core/zone-answers.ts';
import { ZoneContent } from '../../mapserver/core/zone-content.ts';
import { type IpPrefix, parseIpAddress } from '../../proto/address.ts';
import { FLAG } from '../../proto/dns/header.ts';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import { decodeSections, encodeSections } from '../../proto/dns/sections.ts';
import { TsigSession } from '../../proto/dns/tsig.ts';
import { runs } from '../runs.ts';
import {
  applied,
  contentOf,
  FILLER,
  KEY,
  macOf,
  OTHER_KEY,
  REVERSE,
  serialOf,
  short,
  ZONE,
  ZoneWorld,
} from './zone-world.ts';

test('there is one reverse zone for what several prefixes of the overlay cover', () => {
  const names = { entries: () => [], entry: () => undefined };
  const prefixes = ['10.77.0.0/16', '10.0.0.0/8', '192.0.2.0/25', '192.0.2.0/24'] as IpPrefix[];
  const { zones } = new ZoneContent(names, { zone: ZONE, prefixes, nameServers: [] }, 1);
  assert.deepEqual(
    zones.map(({ origin }) => origin),
    [ZONE, '10.in-addr.arpa', '2.0.192.in-addr.arpa'],
  );
});

describe('questions', () => {
  const world = new ZoneWorld({
    db: { members: ['10.77.0.5', 'fd00:77::5'] },
    'a.blue': { members: ['10.77.0.6'] },
    '*.web': { members: ['10.77.0.7'] },
    www: { records: { cname: 'db' } },
    away: { records: { cname: 'example.org.' } },
    '_sql._tcp': { records: { srv: [{ priority: 1, weight: 2, port: 5432, target: 'db' }], txt: ['a b'] } },
    sub: { records: { ns: [{ host: 'ns.sub', addresses: [parseIpAddress('10.77.0.9')] }] } },
  });
  const cases: readonly (readonly [string, number, number, readonly string[]])[] = [
    ['db', TYPE.a, RCODE.noError, ['db A 0a4d0005']],
    ['db', TYPE.txt, RCODE.noError, []],
    ['blue', TYPE.a, RCODE.noError, []],
    ['none', TYPE.a, RCODE.nxDomain, []],
    ['x.web', TYPE.a, RCODE.noError, ['x.web A 0a4d0007']],
    ['web', TYPE.a, RCODE.noError, []],
    ['x.y.web', TYPE.a, RCODE.noError, ['x.y.web A 0a4d0007']],
    ['www', TYPE.a, RCODE.noError, ['www CNAME', 'db A 0a4d0005']],
    ['www', TYPE.cname, RCODE.noError, ['www CNAME']],
    ['away', TYPE.a, RCODE.noError, ['away CNAME']],
    ['_sql._tcp', TYPE.srv, RCODE.noError, ['_sql._tcp SRV']],
  ];
  for (const [name, type, rcode, answers] of cases) {
    test(`${name} ${type}`, () => {
      const reply = world.ask(`${name}.${ZONE}`, type);
      assert.equal(reply.rcode, rcode);
      assert.ok((reply.flags & FLAG.aa) !== 0);
      assert.deepEqual(reply.answers.map(short), answers);
      if (answers.length === 0)
        assert.deepEqual(
          reply.authorities.map(({ type: each }) => each),
          [TYPE.soa],
        );
    });
  }

  test('the zone itself has what is set there beside SOA and NS, and so has a transfer', () => {
    const own = new ZoneWorld({ '@': { members: ['10.77.0.5'], records: { txt: ['zone'] } } });
    assert.deepEqual(own.ask(ZONE, TYPE.txt).answers.map(short), ['@ TXT']);
    assert.deepEqual(own.ask(ZONE, TYPE.a).answers.map(short), ['@ A 0a4d0005']);
    assert.deepEqual(own.ask(ZONE, TYPE.ns).answers.map(short), ['@ NS']);
    const records = own.transfer(TYPE.axfr).flatMap(({ answers }) => answers);
    assert.deepEqual(records.map(short), ['@ SOA', '@ NS', '@ TXT', '@ A 0a4d0005', '@ SOA']);
  });

  test('eight aliases are followed to where they lead', () => {
    const chain = Array.from({ length: 8 }, (_, i) => [`a${i}`, { records: { cname: i === 7 ? 'db' : `a${i + 1}` } }]);
    const long = new ZoneWorld({ db: { members: ['10.77.0.5'] }, ...Object.fromEntries(chain) });
    assert.deepEqual(long.ask(`a0.${ZONE}`, TYPE.a).answers.map(short).at(-1), 'db A 0a4d0005');
  });

  test('below a delegation there is a referral with glue', () => {
    const reply = world.ask(`host.sub.${ZONE}`, TYPE.a);
    assert.equal(reply.flags & FLAG.aa, 0);
    assert.deepEqual(reply.authorities.map(short), ['sub NS']);
    assert.deepEqual(reply.additionals.slice(0, -1).map(short), ['ns.sub A 0a4d0009']);
  });

  test('a service comes with the addresses that it leads to', () => {
    const reply = world.ask(`_sql._tcp.${ZONE}`, TYPE.srv);
    assert.deepEqual(reply.additionals.filter(({ type }) => type === TYPE.a || type === TYPE.aaaa).map(short), [
      'db A 0a4d0005',
      'db AAAA fd000077000000000000000000000005',
    ]);
  });

  test('addresses lead back to their names', () => {
    const reply = world.ask(`5.0.${REVERSE}`, TYPE.ptr);
    assert.deepEqual(
      reply.answers.map(({ rdata }) => Buffer.from(rdata).toString('latin1')),
      ['\x02db\x07stayput\x08internal\0'],
    );
    assert.equal(world.ask(`4.0.${REVERSE}`, TYPE.ptr).rcode, RCODE.nxDomain);
  });

  test('names of other zones are refused', () => {
    assert.equal(world.ask('example.org', TYPE.a).rcode, RCODE.refused);
  });
});

describe('transfers', () => {
  test('a zone of many messages begins and ends with its SOA, and each message is signed', () => {
    const entries = Object.fromEntries(
      Array.from({ length: 5_000 }, (_, i) => [`host-${i}`, { members: [`10.77.${i >> 8}.${i & 255}`] }]),
    );
    const world = new ZoneWorld(entries);
    const messages = world.transfer(TYPE.axfr);
    assert.ok(messages.length > 1);
    const records = messages.flatMap(({ answers }) => answers);
    assert.equal(records.length, 5_000 + 3);
    assert.deepEqual([records[0]?.type, records[1]?.type, records.at(-1)?.type], [TYPE.soa, TYPE.ns, TYPE.soa]);
  });

  test('a zone that changes while it is sent arrives as it was', () => {
    const entries = Object.fromEntries(
      Array.from({ length: 5_000 }, (_, i) => [`host-${i}`, { members: [`10.77.${i >> 8}.${i & 255}`] }]),
    );
    const world = new ZoneWorld(entries);
    const output = world.request(world.query(ZONE, TYPE.axfr), KEY);
    const first = output.next().value;
    world.pass(1_000);
    world.set('host-1', undefined);
    world.set('new', { members: ['10.77.200.1'] });
    const records = [first, ...output].flatMap((bytes) => decodeSections(bytes ?? new Uint8Array(0)).answers);
    assert.equal(records.length, 5_003);
    assert.equal(serialOf(records[0]), serialOf(records.at(-1)));
    assert.ok(isNewer(world.serial, serialOf(records[0])));
  });

  test('differences lead from any serial in the journal to the zone as it is', () => {
    const change = fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd'),
      last: fc.option(fc.integer({ min: 1, max: 9 })),
    });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 20 }), fc.nat(20), (changes, start) => {
        const world = new ZoneWorld(FILLER);
        let held: { serial: number; records: Set<string> } | undefined;
        for (const [i, { name, last }] of changes.entries()) {
          if (i === start % changes.length) held = { serial: world.serial, records: contentOf(world) };
          world.pass(1_000);
          world.set(name, last === null ? undefined : { members: [`10.77.0.${last}`] });
        }
        assert.ok(held);
        assert.deepEqual(applied(held.records, world.transfer(TYPE.ixfr, held.serial)), contentOf(world));
      }),
      { numRuns: runs(80) },
    );
  });

  test('who is at the newest serial, or beyond it, is told the SOA alone', () => {
    const world = new ZoneWorld(FILLER);
    for (const serial of [world.serial, (world.serial + 5) >>> 0]) {
      const records = world.transfer(TYPE.ixfr, serial).flatMap(({ answers }) => answers);
      assert.deepEqual(
        records.map(({ type }) => type),
        [TYPE.soa],
      );
    }
  });

  test('after a restart, of which no differences are known, there is the whole zone', () => {
    const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
    const { serial } = world;
    world.restart();
    world.set('web', { members: ['10.77.0.6'] });
    const messages = world.transfer(TYPE.ixfr, serial);
    const [first, second] = messages.flatMap(({ answers }) => answers);
    assert.deepEqual([first?.type, second?.type], [TYPE.soa, TYPE.ns]);
    assert.deepEqual(applied(new Set(), messages), contentOf(world));
  });

  test('who is too far behind takes the whole zone', () => {
    const world = new ZoneWorld(FILLER);
    const records = world.transfer(TYPE.ixfr, (world.serial - 7) >>> 0).flatMap(({ answers }) => answers);
    assert.deepEqual(records.map(({ type }) => type).slice(0, 2), [TYPE.soa, TYPE.ns]);
    assert.equal(records.length, Object.keys(FILLER).length + 3);
  });

  // Attack: a name of 253 characters, which an agent may register, and targets of that length: longer with the zone than
  // DNS allows | 4 | left out of the zone; all else is served on
  test('attack: names too long for DNS', () => {
    const long = `${'a'.repeat(63)}.`.repeat(4).slice(0, 253);
    const target = `${long.slice(0, 251)}x`;
    const world = new ZoneWorld({ [long]: { members: ['10.77.0.5'] }, db: { members: ['10.77.0.6'] } });
    const srv = [{ priority: 1, weight: 1, port: 1, target }];
    world.set(`b${long.slice(1)}`, { members: ['10.77.0.7'] });
    world.set('alias', { records: { cname: target } });
    world.set('service', { records: { srv, txt: ['a'] } });
    world.set('sub', { records: { ns: [{ host: target, addresses: [] }] } });
    world.pass(1000);
    assert.deepEqual(contentOf(world), new Set(['db A 0a4d0006', 'service TXT']));
    assert.equal(world.ask(`5.0.${REVERSE}`, TYPE.ptr).rcode, RCODE.nxDomain);
    world.set(long, undefined);
  });

  test('a delegation hides what is below it, and shows it again when it goes', () => {
    const world = new ZoneWorld({ 'a.sub': { members: ['10.77.0.1'] } });
    world.set('sub', { records: { ns: [{ host: 'ns.example.', addresses: [] }] } });
    assert.ok(![...contentOf(world)].some((each) => each.startsWith('a.sub')));
    world.pass(1_000);
    world.set('sub', undefined);
    assert.ok([...contentOf(world)].some((each) => each.startsWith('a.sub')));
  });
});

describe('serials and NOTIFY', () => {
  test('a first change is told at once, those that follow closely are told together', () => {
    const world = new ZoneWorld({});
    world.answerNotifies();
    const { serial } = world;
    world.pass(1_000);
    world.set('a', { members: ['10.77.0.1'] });
    assert.equal(world.serial, serial + 1);
    for (let i = 2; i < 50; i++) world.set(`n${i}`, { members: [`10.77.0.${i}`] });
    assert.equal(world.serial, serial + 1);
    world.pass(250);
    assert.equal(world.serial, serial + 2);
    assert.equal(contentOf(world).size, 49);
  });

  test('without a serial changes wait, are answered already, and are told when there is one', () => {
    const world = new ZoneWorld({});
    world.answerNotifies();
    const { serial } = world;
    world.hasSerials = false;
    world.set('a', { members: ['10.77.0.1'] });
    world.pass(1_000);
    assert.equal(world.serial, serial);
    assert.equal(world.ask(`a.${ZONE}`, TYPE.a).answers.length, 1);
    assert.deepEqual(
      world.transfer(TYPE.axfr).map(({ rcode }) => rcode),
      [RCODE.servFail],
    );
    world.hasSerials = true;
    world.pass(250);
    assert.equal(world.serial, serial + 1);
    assert.equal(contentOf(world).size, 1);
  });

  test('a NOTIFY is repeated until it is answered, and then not', () => {
    const world = new ZoneWorld({});
    world.answerNotifies();
    world.set('a', { members: ['10.77.0.1'] });
    const before = world.notifies.length;
    world.pass(3_500);
    assert.equal(world.notifies.length, before + 2 * 2);
    world.answerNotifies();
    world.pass(60_000);
    assert.equal(world.notifies.length, before + 2 * 2);
  });

  test('a secondary that never answers is given up after five tries', () => {
    const world = new ZoneWorld({});
    world.pass(120_000);
    assert.equal(world.notifies.length, 3 * 5);
    assert.equal(world.outcomes.filter((each) => each === 'unanswered').length, 3);
    assert.equal(world.primary.pollTimeout(), undefined);
  });

  // Attack: answers to NOTIFY without a signature, with another key and with another ID | 3 | not heard: it is repeated
  test('attack: forged answers to a NOTIFY', () => {
    const world = new ZoneWorld({});
    const [packet = new Uint8Array(0)] = world.notifies;
    const answer = { ...decodeSections(packet), flags: FLAG.qr | FLAG.aa, answers: [], additionals: [] };
    world.give(encodeSections(answer));
    const signed = new TsigSession(OTHER_KEY, macOf(packet)).sign(encodeSections(answer), world.wallClock());
    world.give(signed);
    const proper = new TsigSession(KEY, macOf(packet));
    world.give(proper.sign(encodeSections({ ...answer, id: (answer.id + 1) & 0xffff }), world.wallClock()));
    assert.deepEqual(world.outcomes, []);
    world.pass(1_000);
    assert.equal(world.notifies.length, 6);
  });
});

// Attack: zone transfers, queries and updates without a key, with an unknown one, with one that is for something else,
// from an address that is not allowed; a transfer over UDP | 7 | REFUSED, NOTAUTH or FORMERR, without one record
test('attack: taking the zone without the right to', () => {
  const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
  const stranger = parseIpAddress('192.0.2.99');
  const refused = (rcode: number, bytes: Iterator<Uint8Array>): void => {
    const reply = decodeSections(bytes.next().value ?? new Uint8Array(0));
    assert.equal(reply.rcode, rcode);
    assert.equal(reply.answers.length + reply.authorities.length, 0);
  };
  const axfr = world.query(ZONE, TYPE.axfr);
  refused(RCODE.refused, world.request(axfr, undefined, stranger));
  refused(RCODE.refused, world.request(world.query(`db.${ZONE}`, TYPE.a), undefined, stranger));
  refused(RCODE.refused, world.request(axfr, OTHER_KEY, stranger));
  refused(RCODE.refused, world.request(axfr, OTHER_KEY, parseIpAddress('127.0.0.1')));
  refused(RCODE.notAuth, world.request(axfr, { ...KEY, name: 'unknown.test' }));
  refused(RCODE.notAuth, world.request(axfr, { ...KEY, secret: Buffer.alloc(32, 9) }));
  refused(RCODE.formErr, world.request(axfr, KEY, stranger, 'udp'));
});

test('an allowed address needs no key', () => {
  const world = new ZoneWorld({});
  const bytes = world.request(world.query(ZONE, TYPE.axfr), undefined, parseIpAddress('127.0.0.1')).next().value;
  assert.equal(decodeSections(bytes ?? new Uint8Array(0)).answers.length, 3);
});
