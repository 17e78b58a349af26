/**
 * What the map server keeps of many registrations. V8 can have all records share what describes their properties; where
 * it gives each a description of its own, that takes more than the record.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';
import type { OwnershipRecord } from '../../mapserver/core/records.ts';
import { CoreWorld } from './core-world.ts';
import { addSite, SiteXtr } from './site-world.ts';

setFlagsFromString('--allow-natives-syntax');
const describedAlike = runInThisContext('(a, b) => %HaveSameMap(a, b)') as (a: object, b: object) => boolean;

/** More than it takes until V8 makes objects another way than the first ones. */
const EIDS = 200;

describe('records of many registrations, and their locators, share the description of their properties', () => {
  const limits = { mappingsPerAgent: EIDS, mappingsPerSite: EIDS };

  test('as agents take EIDs and refresh them', () => {
    const world = new CoreWorld({ limits });
    const agent = world.agent('a', { eids: ['10.77.0.0/16'] });
    for (let i = 0; i < EIDS; i++) agent.claim(`10.77.0.${i}`);
    assertAlike(world);
    for (let i = 0; i < EIDS; i++) agent.claim(`10.77.0.${i}`, 1, { names: ['db'] });
    assertAlike(world);
  });

  test('as routers of sites register EIDs and refresh them', () => {
    const world = new CoreWorld({ limits });
    addSite(world, 'paris', { within: ['10.50.0.0/16'] });
    const xtr = new SiteXtr(world, '192.0.2.1');
    for (let i = 0; i < EIDS; i++) xtr.register(`10.50.0.${i}`);
    assertAlike(world);
    for (let i = 0; i < EIDS; i++) xtr.register(`10.50.0.${i}`, { ttl: 6 });
    assertAlike(world);
  });
});

/** The latest, as the first ones are made before V8 has learned how. */
function assertAlike(world: CoreWorld): void {
  const records = [...world.core.state.records()].filter((record) => record.kind === 'eid');
  assert.equal(records.length, EIDS);
  const latest = records.slice(EIDS / 2);
  const [first] = latest;
  assert.ok(first);
  const locator = locatorOf(first);
  for (const record of latest) {
    assert.ok(describedAlike(first, record), `the record of ${record.eid}`);
    assert.ok(describedAlike(locator, locatorOf(record)), `the locator of ${record.eid}`);
  }
}

function locatorOf({ eid, locators: [locator] }: OwnershipRecord): object {
  assert.ok(locator, eid);
  return locator;
}
