/** Dynamic updates (RFC 2136): what they change, what they are refused with, and that each happens once. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { CLASS, OPCODE } from '../../proto/dns/header.ts';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import { encodeName } from '../../proto/dns/name.ts';
import { NO_RECORDS } from '../../proto/dns/record-sets.ts';
import { decodeSections, encodeSections, type ResourceRecord } from '../../proto/dns/sections.ts';
import { signRequest } from '../../proto/dns/tsig.ts';
import { KEY, OTHER_KEY, short, ZONE, ZoneWorld } from './zone-world.ts';

const TXT_A = Buffer.from('\x01a');
const SRV = Uint8Array.of(0, 1, 0, 2, 21, 56, ...encodeName(`db.${ZONE}`));
const ADDRESS = Uint8Array.of(10, 77, 0, 9);

describe('changes', () => {
  test('records are added, replaced and deleted, and are there for the next question', () => {
    const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
    assert.equal(
      update(world, [], [add('_sql._tcp', TYPE.srv, SRV), add('_sql._tcp', TYPE.txt, TXT_A)]),
      RCODE.noError,
    );
    assert.deepEqual(world.ask(`_sql._tcp.${ZONE}`, TYPE.srv).answers.map(short), ['_sql._tcp SRV']);
    assert.deepEqual(world.stored.get('_sql._tcp')?.records.srv, [
      { priority: 1, weight: 2, port: 5432, target: 'db' },
    ]);
    assert.equal(update(world, [], [drop('_sql._tcp', TYPE.srv)]), RCODE.noError);
    assert.equal(world.ask(`_sql._tcp.${ZONE}`, TYPE.srv).answers.length, 0);
    assert.deepEqual(world.stored.get('_sql._tcp')?.records.txt, ['a']);
    assert.equal(update(world, [], [remove('_sql._tcp', TYPE.txt, TXT_A)]), RCODE.noError);
    assert.equal(world.ask(`_sql._tcp.${ZONE}`, TYPE.any).rcode, RCODE.nxDomain);
    assert.deepEqual(world.audited.length, 3);
  });

  test('addresses are set beside those that agents registered', () => {
    const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
    assert.equal(update(world, [], [add('db', TYPE.a, ADDRESS)]), RCODE.noError);
    assert.deepEqual(world.ask(`db.${ZONE}`, TYPE.a).answers.map(short), ['db A 0a4d0005', 'db A 0a4d0009']);
    assert.equal(update(world, [], [remove('db', TYPE.a, ADDRESS)]), RCODE.noError);
    assert.deepEqual(world.ask(`db.${ZONE}`, TYPE.a).answers.map(short), ['db A 0a4d0005']);
  });

  test('a CNAME replaces a CNAME, and is ignored beside others as they are beside it', () => {
    const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
    assert.equal(update(world, [], [add('alias', TYPE.cname, encodeName('example.org'))]), RCODE.noError);
    assert.equal(update(world, [], [add('alias', TYPE.cname, encodeName(`db.${ZONE}`))]), RCODE.noError);
    assert.equal(world.stored.get('alias')?.records.cname, 'db');
    assert.equal(update(world, [], [add('alias', TYPE.txt, TXT_A)]), RCODE.noError);
    assert.deepEqual(world.stored.get('alias')?.records.txt, []);
    assert.equal(update(world, [], [add('db', TYPE.cname, encodeName('example.org'))]), RCODE.noError);
    assert.equal(world.stored.get('db'), undefined);
  });

  test('all of an update is done, or nothing', () => {
    const world = new ZoneWorld({});
    const outside = { ...add('x', TYPE.txt, TXT_A), name: 'example.org' };
    assert.equal(update(world, [], [add('a.web', TYPE.txt, TXT_A), outside]), RCODE.notZone);
    assert.equal(update(world, [], [add('a.web', TYPE.txt, TXT_A), add('b.web', 99, TXT_A)]), RCODE.refused);
    assert.equal(world.stored.size, 0);
  });

  test('a name that somebody else changed meanwhile is looked at again', () => {
    const world = new ZoneWorld({});
    world.beforeChange = () => {
      world.beforeChange = () => {};
      world.store('x', { ...NO_RECORDS, txt: ['other'] });
    };
    assert.equal(update(world, [need('x', TYPE.any, CLASS.none)], [add('x', TYPE.txt, TXT_A)]), RCODE.yxDomain);
    assert.deepEqual(world.stored.get('x')?.records.txt, ['other']);
  });
});

test('a prerequisite about another name holds still when the change is made', () => {
  const world = new ZoneWorld({});
  world.beforeChange = () => {
    world.beforeChange = () => {};
    world.store('lock', { ...NO_RECORDS, txt: ['taken'] });
  };
  assert.equal(update(world, [need('lock', TYPE.any, CLASS.none)], [add('x', TYPE.txt, TXT_A)]), RCODE.yxDomain);
  assert.equal(world.stored.get('x'), undefined);
});

describe('prerequisites', () => {
  const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
  const cases: readonly (readonly [string, ResourceRecord, number])[] = [
    ['a name in use', need('db', TYPE.any, CLASS.any), RCODE.noError],
    ['a name that is not in use', need('no', TYPE.any, CLASS.any), RCODE.nxDomain],
    ['an RRset that exists', need('db', TYPE.a, CLASS.any), RCODE.noError],
    ['an RRset that does not', need('db', TYPE.txt, CLASS.any), RCODE.nxRrset],
    ['no name', need('no', TYPE.any, CLASS.none), RCODE.noError],
    ['no name where there is one', need('db', TYPE.any, CLASS.none), RCODE.yxDomain],
    ['no RRset', need('db', TYPE.txt, CLASS.none), RCODE.noError],
    ['no RRset where there is one', need('db', TYPE.a, CLASS.none), RCODE.yxRrset],
    ['an RRset with this value', value('db', TYPE.a, Uint8Array.of(10, 77, 0, 5)), RCODE.noError],
    ['an RRset with another value', value('db', TYPE.a, ADDRESS), RCODE.nxRrset],
    ['a name elsewhere', { ...need('db', TYPE.any, CLASS.any), name: 'example.org' }, RCODE.notZone],
    ['a TTL', { ...need('db', TYPE.any, CLASS.any), ttl: 1 }, RCODE.formErr],
    ['an unknown class', need('db', TYPE.any, 3), RCODE.formErr],
  ];
  for (const [what, prerequisite, rcode] of cases) {
    test(what, () => {
      assert.equal(update(world, [prerequisite], []), rcode);
    });
  }
});

// Attack: updates without a key, with a key for transfers only, of a reverse zone and of a zone of others, of a name
// that is not granted, of what agents registered, of types and data that are not kept | 12 | refused with the RCODE of
// RFC 2136; nothing is changed
test('attack: updates beyond what the key may', () => {
  const world = new ZoneWorld({ db: { members: ['10.77.0.5'] } });
  const text = [add('a.web', TYPE.txt, TXT_A)];
  assert.equal(update(world, [], text, { key: undefined }), RCODE.refused);
  assert.equal(update(world, [], text, { key: KEY }), RCODE.refused);
  assert.equal(update(world, [], [], { zone: '77.10.in-addr.arpa' }), RCODE.refused);
  assert.equal(update(world, [], [], { zone: 'example.org' }), RCODE.notAuth);
  assert.equal(update(world, [], [{ ...add('x', TYPE.txt, TXT_A), name: ZONE }]), RCODE.refused);
  assert.equal(update(world, [], [remove('db', TYPE.a, Uint8Array.of(10, 77, 0, 5))]), RCODE.refused);
  assert.equal(update(world, [], [drop('db', TYPE.any)]), RCODE.refused);
  assert.equal(update(world, [], [add('sub', TYPE.ns, encodeName('ns.example'))]), RCODE.refused);
  assert.equal(update(world, [], [add('t', TYPE.txt, Buffer.from('\x01a\x01b'))]), RCODE.refused);
  assert.equal(update(world, [], [add('s._tcp', TYPE.srv, new Uint8Array(0))]), RCODE.refused);
  assert.equal(update(world, [], [add('foreign', TYPE.txt, TXT_A)]), RCODE.refused);
  assert.equal(update(world, [], [add('m', TYPE.axfr, TXT_A)]), RCODE.formErr);
  assert.equal(world.stored.size, 0);
});

// Attack: a signed update is recorded and sent again, after what it set was deleted | 1 | the answer of the first one;
// nothing is set again
test('attack: an update is replayed', () => {
  const world = new ZoneWorld({});
  const bytes = signed(world, [], [add('a.web', TYPE.txt, TXT_A)]);
  assert.equal(answerTo(world, bytes), RCODE.noError);
  assert.equal(update(world, [], [drop('a.web', TYPE.any)]), RCODE.noError);
  assert.equal(answerTo(world, bytes), RCODE.noError);
  assert.equal(world.stored.size, 0);
  assert.equal(world.audited.length, 2);
});

// Attack: a signed update is recorded, and sent again after the map server was started anew | 1 | refused as not timely
// (BADTIME); nothing is set again
test('attack: an update is replayed after a restart', () => {
  const world = new ZoneWorld({});
  const bytes = signed(world, [], [add('a.web', TYPE.txt, TXT_A)]);
  assert.equal(answerTo(world, bytes), RCODE.noError);
  assert.equal(update(world, [], [drop('a.web', TYPE.any)]), RCODE.noError);
  world.restart();
  assert.equal(answerTo(world, bytes), RCODE.notAuth);
  assert.equal(world.stored.size, 0);
  world.pass(1000);
  assert.equal(update(world, [], [add('a.web', TYPE.txt, TXT_A)]), RCODE.noError, 'what is signed later is new');
});

test('an update of which the time cannot be kept waits', () => {
  const world = new ZoneWorld({});
  world.hasSerials = false;
  assert.equal(update(world, [], [add('a.web', TYPE.txt, TXT_A)]), RCODE.servFail);
  assert.equal(world.stored.size, 0);
});

interface Options {
  readonly key?: typeof KEY | undefined;
  readonly zone?: string;
}

let lastId = 0;

function signed(
  world: ZoneWorld,
  answers: readonly ResourceRecord[],
  authorities: readonly ResourceRecord[],
  options: Options = {},
): Uint8Array {
  lastId++;
  const { zone = ZONE } = options;
  const questions = [{ name: zone, type: TYPE.soa, class: CLASS.in }];
  const head = { id: lastId, flags: 0, opcode: OPCODE.update, rcode: 0 };
  const bytes = encodeSections({ ...head, questions, answers, authorities, additionals: [] });
  const key = 'key' in options ? options.key : OTHER_KEY;
  return key === undefined ? bytes : signRequest(bytes, key, world.wallClock()).bytes;
}

function update(
  world: ZoneWorld,
  prerequisites: readonly ResourceRecord[],
  updates: readonly ResourceRecord[],
  options: Options = {},
): number {
  return answerTo(world, signed(world, prerequisites, updates, options));
}

function answerTo(world: ZoneWorld, bytes: Uint8Array): number {
  const [answer = new Uint8Array(0)] = world.answersTo(bytes, 'udp', parseIpAddress('192.0.2.7'));
  return decodeSections(answer).rcode;
}

function add(name: string, type: number, rdata: Uint8Array): ResourceRecord {
  return { name: `${name}.${ZONE}`, type, class: CLASS.in, ttl: 60, rdata: new Uint8Array(rdata) };
}

function drop(name: string, type: number): ResourceRecord {
  return need(name, type, CLASS.any);
}

function remove(name: string, type: number, rdata: Uint8Array): ResourceRecord {
  return { ...add(name, type, rdata), class: CLASS.none, ttl: 0 };
}

function need(name: string, type: number, kind: number): ResourceRecord {
  return { name: `${name}.${ZONE}`, type, class: kind, ttl: 0, rdata: new Uint8Array(0) };
}

function value(name: string, type: number, rdata: Uint8Array): ResourceRecord {
  return { ...add(name, type, rdata), ttl: 0 };
}
