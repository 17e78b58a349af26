import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { OperationResult } from '../../mapserver/core/actions.ts';
import type { NameChange } from '../../mapserver/core/name-changes.ts';
import { ZoneContent } from '../../mapserver/core/zone-content.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { readName } from '../../proto/dns/name.ts';
import { NO_RECORDS, type RecordSets } from '../../proto/dns/record-sets.ts';
import { APEX, DEFAULT_INSTANCE, zoneNameEid } from '../../proto/eid.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import type { Mapping } from '../../proto/mapping.ts';
import { type CoreAgent, CoreWorld, GRACE } from './core-world.ts';

const GRANT = { eids: ['10.77.0.0/24'], names: ['*'] };

describe('EIDs behind a name', () => {
  test('are all whose live registration carries it, whoever owns them', () => {
    const world = new CoreWorld();
    const [a, b] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    a.claim('10.77.0.5', 0, { names: ['web'] });
    b.claim('10.77.0.6', 0, { names: ['web', 'db'] });
    assert.deepEqual(addresses(world, 'web'), ['10.77.0.5', '10.77.0.6']);
    assert.deepEqual(addresses(world, 'db'), ['10.77.0.6']);
    a.claim('10.77.0.5', 1, { ttl: 0 });
    assert.deepEqual(addresses(world, 'web'), ['10.77.0.6'], 'one was given up');
  });

  test('are also what the registration of the name points to, and those that were set', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    agent.claim('db', 0, { targets: [parseIpAddress('10.77.0.5')] });
    set(world, 'db', { addresses: [parseIpAddress('10.77.0.9'), parseIpAddress('192.0.2.9')] });
    assert.deepEqual(addresses(world, 'db'), ['10.77.0.5', '10.77.0.9', '192.0.2.9']);
    assert.deepEqual(live(world, 'db'), ['192.0.2.9'], 'nobody answers for the two of the overlay');
    agent.claim('10.77.0.5');
    assert.deepEqual(live(world, 'db'), ['10.77.0.5', '192.0.2.9']);
  });

  // Attack: a name of one's own is pointed to an EID of somebody else | 1 | the EID's reverse name does not lead to it
  test('attack: a name that somebody else did not ask for', () => {
    const world = new CoreWorld();
    const [victim, rogue] = [world.agent('victim', GRANT), world.agent('rogue', GRANT)];
    victim.claim('10.77.0.5', 0, { names: ['db'] });
    victim.claim('db', 0, { targets: [parseIpAddress('10.77.0.5')] });
    rogue.claim('evil', 0, { targets: [parseIpAddress('10.77.0.5')] });
    set(world, 'alias', { addresses: [parseIpAddress('10.77.0.5')] });
    const settings = { zone: 'stayput.internal', prefixes: [parseIpPrefix('10.77.0.0/16')], nameServers: [] };
    const [, reverse] = new ZoneContent(world.core.names, settings, 1).zones;
    const found = reverse?.at('5.0.77.10.in-addr.arpa').map(({ rdata }) => readName(rdata, 0).name);
    assert.deepEqual(found?.sort(), ['alias.stayput.internal', 'db.stayput.internal']);
  });

  test('leave it when their owner was away for too long, and come back with it', () => {
    const world = new CoreWorld();
    const [a, b] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    a.claim('10.77.0.5', 0, { names: ['web'] });
    b.claim('10.77.0.6', 0, { names: ['web'] });
    a.disconnect();
    assert.deepEqual(addresses(world, 'web'), ['10.77.0.5', '10.77.0.6'], 'a lost session alone says nothing');
    world.advance(GRACE);
    assert.deepEqual(addresses(world, 'web'), ['10.77.0.6']);
    a.connect();
    a.claim('10.77.0.5', 1, { names: ['web'] });
    assert.deepEqual(addresses(world, 'web').sort(), ['10.77.0.5', '10.77.0.6']);
  });

  test('give way to others while their owner is away for longer than a roam takes, and not among themselves', () => {
    const world = new CoreWorld();
    const [a, b, c] = [world.agent('a', GRANT), world.agent('b', GRANT), world.agent('c', GRANT)];
    a.claim('10.77.0.5', 0, { names: ['web'] });
    b.claim('10.77.0.6', 0, { names: ['web'] });
    set(world, 'web', { addresses: [parseIpAddress('10.77.0.5')] });
    c.subscribe('web');
    c.pushed();
    a.disconnect();
    world.advance(4_999);
    assert.deepEqual(live(world, 'web'), ['10.77.0.5', '10.77.0.6']);
    world.advance(1);
    assert.deepEqual(live(world, 'web'), ['10.77.0.6']);
    const [told] = c.pushed();
    assert.deepEqual(
      [told?.targets, told?.zone?.weights],
      [
        ['10.77.0.6', '10.77.0.5'],
        [1, 0],
      ],
    );
    a.connect();
    assert.deepEqual(live(world, 'web').sort(), ['10.77.0.5', '10.77.0.6']);
    assert.equal(c.pushed().length, 1);
    for (const agent of [a, b]) agent.disconnect();
    world.advance(5_000);
    assert.deepEqual([live(world, 'web'), world.core.names.mapping('web')?.targets.length], [[], 2]);
  });

  test('stay through a move, which is no change of the name', () => {
    const world = new CoreWorld();
    const [a, b] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    a.claim('10.77.0.5', 0, { names: ['db'] });
    b.claim('10.77.0.5', 0, { names: ['db'] });
    assert.deepEqual(addresses(world, 'db'), ['10.77.0.5']);
  });

  test('are without the name once the grant of it is gone', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', { eids: ['10.77.0.0/24'], names: ['db'] });
    agent.claim('10.77.0.5', 0, { names: ['db', 'foreign'] });
    assert.equal(world.core.names.entry('foreign'), undefined);
    assert.ok(world.core.names.entry('db'));
    world.operate({ kind: 'remove-grant', xtrId: agent.xtrId, eids: [], names: ['db'], groups: [] });
    assert.equal(world.core.names.entry('db'), undefined);
  });

  test('are without it also when the grant went in the transaction in which they were registered', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', { eids: ['10.77.0.0/24'], names: ['db'] });
    world.durable = false;
    agent.claim('10.77.0.6');
    agent.claim('10.77.0.5', 0, { names: ['db'] });
    const less = { xtrId: agent.xtrId, eids: [], names: ['db'], groups: [] };
    world.core.handleOperation({ kind: 'remove-grant', ...less }, world.now);
    world.release();
    world.release();
    assert.equal(world.core.names.entry('db'), undefined);
  });
});

describe('records of names', () => {
  test('are durable, and their version grows over a removal', () => {
    const world = new CoreWorld();
    const first = version(set(world, 'web', { txt: ['one'] }));
    const second = version(set(world, 'web', { txt: ['two'] }));
    assert.ok(second > first);
    assert.deepEqual(world.restarted().core.names.entry('web')?.records.txt, ['two']);
    assert.equal(version(remove(world, 'web')), 0);
    assert.equal(world.core.names.entry('web'), undefined);
    world.advance(1);
    assert.ok(version(set(world, 'web', { txt: ['three'] })) >= second);
  });

  test('that somebody else has changed are not overwritten unseen, and of several changes none holds then', () => {
    const world = new CoreWorld();
    const seen = version(set(world, 'web', { txt: ['one'] }));
    set(world, 'web', { txt: ['two'] });
    const changes: NameChange[] = [
      { name: 'other', records: { ...NO_RECORDS, txt: ['x'] }, ifVersion: 0 },
      { name: 'web', records: { ...NO_RECORDS, txt: ['x'] }, ifVersion: seen },
    ];
    assert.equal(code(world.operate({ kind: 'change-names', changes })), 'STAYPUT_NAME_CHANGED');
    assert.equal(world.core.names.entry('other'), undefined);
  });

  test('what DNS forbids is refused', () => {
    const world = new CoreWorld();
    world.agent('a', GRANT).claim('10.77.0.5', 0, { names: ['db'] });
    set(world, 'www', { cname: 'db' });
    set(world, 'sub', { ns: [{ host: 'ns.example.', addresses: [] }] });
    const srv = { priority: 0, weight: 0, port: 80, target: 'www' };
    const refused: [string, Partial<RecordSets>][] = [
      ['web', { cname: 'db', txt: ['x'] }],
      ['web', { cname: 'web' }],
      ['db', { cname: 'www' }],
      ['db', { ns: [{ host: 'ns.example.', addresses: [] }] }],
      ['x.sub', { txt: ['hidden'] }],
      ['*.web', { ns: [{ host: 'ns.example.', addresses: [] }] }],
      ['_http._tcp', { srv: [srv] }],
      ['web', { srv: [{ ...srv, target: 'db', port: 70_000 }] }],
      ['web', { txt: ['x'.repeat(2049)] }],
      ['web', { txt: Array.from({ length: 33 }, () => 'x') }],
      ['web..x', { txt: ['x'] }],
      ['a.*.web', { txt: ['x'] }],
      ['Web', { txt: ['x'] }],
    ];
    for (const [name, records] of refused)
      assert.equal(code(set(world, name, records)), 'STAYPUT_NAME_RECORDS', `${name} ${JSON.stringify(records)}`);
    assert.equal(code(remove(world, 'web')), 'STAYPUT_NAME_UNKNOWN');
  });

  test('are no CNAME where SRV or NS lead to, for as long as they do', () => {
    const world = new CoreWorld();
    set(world, '_http._tcp', { srv: [{ priority: 0, weight: 0, port: 80, target: 'web' }] });
    set(world, 'sub', { ns: [{ host: 'ns', addresses: [] }] });
    for (const name of ['web', 'ns']) assert.equal(code(set(world, name, { cname: 'db' })), 'STAYPUT_NAME_RECORDS');
    const together: NameChange[] = [
      { name: 'sub', records: null, ifVersion: null },
      { name: 'ns', records: { ...NO_RECORDS, cname: 'db' }, ifVersion: 0 },
    ];
    assert.equal(code(world.operate({ kind: 'change-names', changes: together })), undefined);
    remove(world, '_http._tcp');
    assert.equal(code(set(world, 'web', { cname: 'db' })), undefined);
  });

  test('are not changed when a name that was looked at is another one now', () => {
    const world = new CoreWorld();
    const seen = version(set(world, 'lock', { txt: ['one'] }));
    set(world, 'lock', { txt: ['two'] });
    const changes: NameChange[] = [{ name: 'x', records: { ...NO_RECORDS, txt: ['x'] }, ifVersion: 0 }];
    const unchanged = [{ name: 'lock', version: seen }];
    assert.equal(code(world.operate({ kind: 'change-names', changes, unchanged })), 'STAYPUT_NAME_CHANGED');
  });

  test('can be set at the zone itself, which no agent can have and no wildcard covers', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    set(world, '*', { txt: ['any'] });
    assert.deepEqual(world.core.names.mapping(APEX)?.zone?.records.txt, []);
    set(world, APEX, { txt: ['zone'], addresses: [parseIpAddress('192.0.2.1')] });
    const told = world.core.names.mapping(APEX);
    assert.deepEqual([told?.zone?.records.txt, told?.targets], [['zone'], ['192.0.2.1']]);
    assert.deepEqual(world.restarted().core.names.entry(APEX)?.records.txt, ['zone']);
    for (const records of [{ cname: 'db' }, { ns: [{ host: 'ns.example.', addresses: [] }] }])
      assert.equal(code(set(world, APEX, { ...NO_RECORDS, ...records })), 'STAYPUT_NAME_RECORDS');
    const claim = { ...agent.mapping('db'), eid: zoneNameEid(DEFAULT_INSTANCE, APEX) };
    assert.deepEqual(agent.register(claim)[0]?.owner, undefined);
    assert.ok(!world.core.names.isRegistered(APEX));
  });

  test('are bounded in their number', () => {
    const world = new CoreWorld({ limits: { names: 2 } });
    for (const name of ['a', 'b']) set(world, name, { txt: ['x'] });
    assert.equal(code(set(world, 'c', { txt: ['x'] })), 'STAYPUT_TOO_MANY');
    assert.equal(code(set(world, 'b', { txt: ['y'] })), undefined);
  });

  test('a CNAME gives way to the EIDs that an agent registers later', () => {
    const world = new CoreWorld();
    set(world, 'db', { cname: 'other' });
    world.agent('a', GRANT).claim('10.77.0.5', 0, { names: ['db'] });
    assert.deepEqual(addresses(world, 'db'), ['10.77.0.5']);
    assert.equal(world.core.names.entry('db')?.records.cname, null);
  });
});

describe('the zone', () => {
  test('has each name once, and nothing of what is delegated', () => {
    const world = new CoreWorld();
    world.agent('a', GRANT).claim('10.77.0.5', 0, { names: ['db', 'x.sub'] });
    set(world, 'db', { txt: ['x'] });
    set(world, '*.web', { cname: 'db' });
    set(world, 'sub', { ns: [{ host: 'ns.example.', addresses: [] }] });
    const names = [...world.core.names.entries()].map(({ name }) => name);
    assert.deepEqual(names.sort(), ['*.web', 'db', 'sub']);
  });

  test('tells what has changed, once', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    const changes = (): string[][] =>
      world.events
        .splice(0)
        .flatMap((event) => (event.kind === 'names-changed' ? [[...event.names], [...event.below]] : []));
    changes();
    agent.claim('10.77.0.5', 0, { names: ['db.blue'] });
    assert.deepEqual(changes(), [['db.blue', 'blue'], []], '"blue" is not absent any more, but empty');
    agent.claim('10.77.0.5', 1, { names: ['db.blue'], locators: [] });
    assert.deepEqual(changes(), [], 'locators are no news of the zone');
    set(world, '*.blue', { txt: ['x'] });
    assert.deepEqual(changes(), [['*.blue'], ['blue']]);
    agent.claim('10.77.0.5', 1, { names: ['web.blue'], locators: [] });
    assert.deepEqual(changes(), [
      ['db.blue', 'web.blue'],
      ['db.blue', 'web.blue'],
    ]);
  });
});

test('names that point into a prefix change with it, and no others', () => {
  const world = new CoreWorld();
  const agent = world.agent('a', GRANT);
  const changes = (): string[] =>
    world.events.splice(0).flatMap((event) => (event.kind === 'names-changed' ? [...event.names] : []));
  set(world, 'in', { addresses: [parseIpAddress('10.77.0.9')] });
  set(world, 'both', { addresses: [parseIpAddress('10.77.0.9'), parseIpAddress('10.77.0.20')] });
  set(world, 'out', { addresses: [parseIpAddress('10.77.0.20')] });
  changes();
  agent.claim('10.77.0.8/29');
  assert.deepEqual(changes(), ['in', 'both']);
  assert.deepEqual(live(world, 'both'), ['10.77.0.9']);
  set(world, 'in', { txt: ['x'] });
  changes();
  agent.claim('10.77.0.8/29', 1, { ttl: 0 });
  assert.deepEqual(changes(), ['both']);
  assert.deepEqual(live(world, 'both'), []);
});

describe('what agents are told of a name', () => {
  test('is everything at it, and each change at once', () => {
    const world = new CoreWorld();
    const [a, b] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    const client = world.agent('c');
    a.claim('10.77.0.5', 0, { names: ['web'] });
    client.subscribe('web');
    b.claim('10.77.0.6', 0, { names: ['web'] });
    assert.deepEqual(pushed(client, 'web')?.targets, ['10.77.0.5', '10.77.0.6']);
    set(world, 'web', { txt: ['hello'], weights: [{ address: parseIpAddress('10.77.0.6'), weight: 9 }] });
    const told = pushed(client, 'web');
    assert.deepEqual([told?.zone?.weights, told?.zone?.records.txt], [[1, 9], ['hello']]);
    remove(world, 'web');
    assert.equal(pushed(client, 'web')?.zone, undefined);
    b.claim('10.77.0.6', 1, { ttl: 0 });
    assert.deepEqual(pushed(client, 'web')?.targets, ['10.77.0.5']);
    a.claim('10.77.0.5', 1, { ttl: 0 });
    assert.equal(pushed(client, 'web')?.ttl, 0, 'it does not exist any more');
  });

  test('also goes to the agent that owns it', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    agent.claim('db');
    agent.subscribe('db');
    set(world, 'db', { txt: ['x'] });
    assert.deepEqual(pushed(agent, 'db')?.zone?.records.txt, ['x']);
  });

  test('comes from the wildcard that covers it, until it exists itself', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    set(world, '*.web', { cname: 'db' });
    assert.equal(answered(client.subscribe('x.web'))?.zone?.records.cname, 'db');
    assert.equal(answered(client.subscribe('y.x.web'))?.zone?.records.cname, 'db', 'of any depth (RFC 4592)');
    agent.claim('10.77.0.5', 0, { names: ['x.web'] });
    const pushes = client.pushed();
    assert.deepEqual(find(pushes, 'x.web')?.targets, ['10.77.0.5']);
    assert.equal(find(pushes, 'y.x.web')?.ttl, 0, 'what exists above it hides the wildcard');
  });

  test('is that it is empty when only names below it exist, as soon as they do', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    assert.equal(answered(client.subscribe('blue'))?.zone, undefined);
    agent.claim('10.77.0.5', 0, { names: ['db.blue'] });
    const told = pushed(client, 'blue');
    assert.deepEqual([told?.ttl === 0, told?.targets, told?.zone?.records], [false, [], NO_RECORDS]);
    agent.claim('10.77.0.5', 1, { ttl: 0 });
    assert.equal(pushed(client, 'blue')?.ttl, 0);
  });

  test('is the delegation that is above it', () => {
    const world = new CoreWorld();
    const client = world.agent('c');
    client.subscribe('a.b.sub');
    const ns = [{ host: 'ns.example.', addresses: [parseIpAddress('192.0.2.53')] }];
    set(world, 'sub', { ns });
    const told = pushed(client, 'a.b.sub');
    assert.deepEqual([told?.zone?.cut, told?.zone?.records.ns], ['sub', ns]);
  });
});

function find(mappings: readonly Mapping[], name: string): Mapping | undefined {
  return mappings.findLast(({ eid }) => eid.kind === 'name' && eid.name === name);
}

function pushed(agent: CoreAgent, name: string): Mapping | undefined {
  return find(agent.pushed(), name);
}

function answered(message: LispMessage | undefined): Mapping | undefined {
  return message === undefined ? undefined : mappingsOf(message)[0];
}

function set(world: CoreWorld, name: string, records: Partial<RecordSets>): OperationResult {
  const change: NameChange = { name, records: { ...NO_RECORDS, ...records }, ifVersion: null };
  return world.operate({ kind: 'change-names', changes: [change] });
}

function remove(world: CoreWorld, name: string): OperationResult {
  return world.operate({ kind: 'change-names', changes: [{ name, records: null, ifVersion: null }] });
}

function version(result: OperationResult): number {
  assert.ok(result.ok && result.record.kind === 'names', code(result));
  return result.record.names[0]?.version ?? -1;
}

function code(result: OperationResult): string | undefined {
  return result.ok ? undefined : result.error.code;
}

function addresses(world: CoreWorld, name: string): string[] {
  return world.core.names.entry(name)?.members.map(({ address }) => address) ?? [];
}

function live(world: CoreWorld, name: string): string[] {
  return world.core.names.entry(name)?.members.flatMap((member) => (member.live ? [member.address] : [])) ?? [];
}
