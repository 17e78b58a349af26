/** EIDs that a site may not have any more are taken from it in slices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IpPrefix } from '../../../proto/address.ts';
import { minutes } from '../../../proto/time.ts';
import { CoreWorld, stored } from '../core-world.ts';
import { addSite, SiteXtr } from '../site-world.ts';

const MANY = 1_500;

test('of a site that gets other prefixes only what is beyond them is withdrawn, and followers are told', () => {
  const { world, xtr } = paris();
  const agent = world.agent('a');
  xtr.register(['10.50.1.0/24', '10.50.2.0/24']);
  agent.subscribe('10.50.1.7');
  agent.subscribe('10.50.2.7');
  agent.pushed();
  setPrefixes(world, ['10.50.2.0/24', '10.51.0.0/16']);
  assert.deepEqual(
    agent.pushed().map(({ ttl }) => ttl),
    [0],
  );
  assert.equal(stored(world, '10.50.1.0/24')?.state, 'released');
  assert.equal(stored(world, '10.50.2.0/24')?.state, 'live');
  assert.equal(xtr.register('10.50.1.0/24'), 'site-unknown');
  assert.equal(xtr.register('10.51.1.0/24'), 'accepted');
});

test('very many go in slices, between which others are served', () => {
  const { world, xtr } = paris();
  registerMany(xtr);
  const sizes: number[] = [];
  const commit = world.store.commit.bind(world.store);
  world.store.commit = (asked) => {
    sizes.push(asked.writes.length);
    return commit(asked);
  };
  assert.ok(world.operate({ kind: 'remove-site', name: 'paris' }).ok);
  assert.equal(liveOf(world) > 0, true, 'not all of them at once');
  addSite(world, 'lyon', { within: ['10.50.0.0/16'] });
  world.advance(minutes(1));
  assert.equal(liveOf(world), 0);
  assert.ok(Math.max(...sizes) <= 260, `${sizes}`);
});

test('a map server that was stopped on the way goes on with it', () => {
  const { world, xtr } = paris();
  registerMany(xtr);
  world.operate({ kind: 'remove-site', name: 'paris' });
  const after = world.restarted();
  assert.ok(liveOf(after) > 0);
  after.advance(minutes(1));
  assert.equal(liveOf(after), 0);
});

test('while the store fails it is tried again', () => {
  const { world, xtr } = paris();
  registerMany(xtr);
  world.operate({ kind: 'remove-site', name: 'paris' });
  world.durable = false;
  for (let i = 0; i < 4; i++) {
    world.advance(11_000);
    world.release('failed');
  }
  assert.ok(liveOf(world) > 0);
  world.durable = true;
  world.advance(minutes(2));
  assert.equal(liveOf(world), 0);
});

test('a site that is made again on the way keeps what it may have', () => {
  const { world, xtr } = paris();
  registerMany(xtr);
  world.operate({ kind: 'remove-site', name: 'paris' });
  const left = liveOf(world);
  addSite(world, 'paris', { within: ['10.50.0.0/16'] });
  world.advance(1_000);
  assert.equal(liveOf(world), left);
  assert.ok(left > 0 && left < MANY);
});

test('a registration that waits while its prefix is taken away is not carried out', () => {
  const { world, xtr } = paris();
  world.durable = false;
  const within = [{ prefix: '10.51.0.0/16' as IpPrefix, moreSpecifics: true }];
  world.core.handleOperation({ kind: 'set-site', name: 'paris', prefixes: within }, world.now);
  world.drain();
  xtr.register('10.50.1.0/24');
  world.durable = true;
  world.release();
  world.advance(minutes(1));
  assert.equal(stored(world, '10.50.1.0/24'), undefined);
  const refused = world.events.filter((event) => event.kind === 'registration' && event.result === 'not-granted');
  assert.equal(refused.length, 1);
});

test('a limit of its own bounds a site below that of all', () => {
  const { world, xtr } = paris();
  world.operate({ kind: 'set-site', name: 'paris', maxEids: 2 });
  xtr.register(['10.50.1.0/24', '10.50.2.0/24', '10.50.3.0/24']);
  assert.equal(liveOf(world), 2);
  world.operate({ kind: 'set-site', name: 'paris', maxEids: 0 });
  xtr.register('10.50.3.0/24');
  assert.equal(liveOf(world), 3);
});

function paris(): { world: CoreWorld; xtr: SiteXtr } {
  const world = new CoreWorld({ limits: { mappings: 10_000, mappingsPerSite: 5_000 } });
  addSite(world, 'paris', { within: ['10.50.0.0/16'] });
  return { world, xtr: new SiteXtr(world, '192.0.2.1') };
}

function registerMany(xtr: SiteXtr): void {
  for (let from = 0; from < MANY; from += 100) {
    const eids = Array.from({ length: 100 }, (_, i) => `10.50.${(from + i) >> 8}.${(from + i) & 255}/32`);
    assert.equal(xtr.register(eids), 'accepted');
  }
  xtr.world.advance(1_000);
}

function setPrefixes(world: CoreWorld, prefixes: readonly string[]): void {
  const within = prefixes.map((prefix) => ({ prefix: prefix as IpPrefix, moreSpecifics: true }));
  const result = world.operate({ kind: 'set-site', name: 'paris', prefixes: within });
  assert.ok(result.ok, JSON.stringify(result));
}

function liveOf(world: CoreWorld): number {
  return [...world.core.state.records()].filter((record) => record.kind === 'eid' && record.state === 'live').length;
}
