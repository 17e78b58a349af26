/** Sites of LISP routers: what administrators do with them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { OperationResult } from '../../mapserver/core/actions.ts';
import type { SiteSettings } from '../../mapserver/core/lisp/site-changes.ts';
import { Sites } from '../../mapserver/core/lisp/sites.ts';
import type { SiteKey, SiteRecord } from '../../mapserver/core/records.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, type InstanceId, type PrefixEid, parseEid } from '../../proto/eid.ts';
import { CoreWorld } from './core-world.ts';

const KEY: SiteKey = { keyId: 0, algorithm: 2, secret: 'c2VjcmV0LXNlY3JldA==' };

describe('a site', () => {
  test('survives a restart, with its keys', () => {
    const world = new CoreWorld();
    assert.ok(add(world, 'paris', ['10.50.0.0/16']).ok);
    const stored = [...world.restarted().core.state.records()].find(({ kind }) => kind === 'site');
    assert.deepEqual(stored?.kind === 'site' && stored.keys, [KEY]);
  });

  const wrong: Record<string, { readonly prefixes?: string[]; readonly keys?: SiteKey[] }> = {
    'no prefix': { prefixes: [] },
    'the default route': { prefixes: ['0.0.0.0/0'] },
    'a prefix twice': { prefixes: ['10.50.0.0/16', '10.50.0.0/16'] },
    'two keys of one ID': { keys: [KEY, { ...KEY, algorithm: 3 }] },
    'SHA-1 unasked': { keys: [{ ...KEY, algorithm: 1 }] },
  };
  for (const [what, { prefixes = ['10.50.0.0/16'], ...fields }] of Object.entries(wrong)) {
    test(`is refused with ${what}`, () => {
      const result = add(new CoreWorld(), 'paris', prefixes, fields);
      assert.equal(!result.ok && result.error.code, 'STAYPUT_SITE');
    });
  }

  test('gets a second key, and loses the first', () => {
    const world = new CoreWorld();
    add(world, 'paris', ['10.50.0.0/16']);
    world.operate({ kind: 'add-site-key', name: 'paris', key: { ...KEY, keyId: 1 } });
    const result = world.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
    assert.deepEqual(result.ok && result.record.kind === 'site' && result.record.keys.map(({ keyId }) => keyId), [1]);
    const again = world.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
    assert.equal(!again.ok && again.error.code, 'STAYPUT_SITE_UNKNOWN');
  });

  test('is changed in place: what is not named stays, and so do its keys', () => {
    const world = new CoreWorld();
    add(world, 'paris', ['10.50.0.0/16']);
    const view = (result: OperationResult): unknown => {
      if (!result.ok || result.record.kind !== 'site') return result;
      const { prefixes, keys, allowSha1, legacyReplay, maxEids } = result.record;
      return [prefixes.map(({ prefix }) => prefix), keys, allowSha1, legacyReplay, maxEids];
    };
    const set = (changes: SiteSettings): unknown =>
      view(world.operate({ kind: 'set-site', name: 'paris', ...changes }));
    assert.deepEqual(set({ legacyReplay: true, maxEids: 7 }), [['10.50.0.0/16'], [KEY], false, true, 7]);
    const prefixes = [{ prefix: '10.51.0.0/16' as IpPrefix, moreSpecifics: true }];
    assert.deepEqual(set({ prefixes }), [['10.51.0.0/16'], [KEY], false, true, 7]);
    assert.deepEqual(set({ legacyReplay: false, maxEids: 0 }), [['10.51.0.0/16'], [KEY], false, false, undefined]);
    const wrong = world.operate({ kind: 'set-site', name: 'paris', prefixes: [] });
    assert.equal(!wrong.ok && wrong.error.code, 'STAYPUT_SITE');
    const unknown = world.operate({ kind: 'set-site', name: 'lyon', maxEids: 1 });
    assert.equal(!unknown.ok && unknown.error.code, 'STAYPUT_SITE_UNKNOWN');
  });

  test('may refuse HMAC-SHA-1 only once it has no key for it', () => {
    const world = new CoreWorld();
    add(world, 'paris', ['10.50.0.0/16'], { allowSha1: true, keys: [{ ...KEY, algorithm: 1 }] });
    const result = world.operate({ kind: 'set-site', name: 'paris', allowSha1: false });
    assert.equal(!result.ok && result.error.code, 'STAYPUT_SITE');
  });

  test('there are no more of than the limit', () => {
    const world = new CoreWorld({ limits: { sites: 1 } });
    add(world, 'paris', ['10.50.0.0/16']);
    const result = add(world, 'lyon', ['10.51.0.0/16']);
    assert.equal(!result.ok && result.error.code, 'STAYPUT_TOO_MANY');
  });
});

describe('who may register an EID', () => {
  const sites = new Sites();
  for (const record of [
    site('wide', [{ prefix: '10.0.0.0/8', moreSpecifics: true }]),
    site('exact', [{ prefix: '10.1.0.0/16', moreSpecifics: false }]),
    site('other', [{ prefix: '10.0.0.0/8', moreSpecifics: true }], 7),
  ]) {
    sites.follow(undefined, record);
  }
  const cases = {
    '10.1.0.0/16': ['exact', 'wide'],
    '10.1.2.0/24': ['wide'],
    '10.0.0.0/8': ['wide'],
    '10.0.0.0/7': [],
    'fd00::/16': [],
  };
  for (const [eid, names] of Object.entries(cases)) {
    test(`${eid}: ${names.join(', ') || 'nobody'}`, () => {
      const candidates = sites.candidates(parseEid(eid) as PrefixEid);
      assert.deepEqual(
        candidates.map(({ record }) => record.name),
        names,
      );
    });
  }

  test('a removed site may not', () => {
    const record = site('gone', [{ prefix: '10.9.0.0/16', moreSpecifics: true }]);
    sites.follow(undefined, record);
    sites.follow(record, undefined);
    const candidates = sites.candidates(parseEid('10.9.1.1') as PrefixEid);
    assert.deepEqual(
      candidates.map(({ record: { name } }) => name),
      ['wide'],
    );
  });
});

function add(
  world: CoreWorld,
  name: string,
  prefixes: readonly string[],
  fields: Partial<SiteRecord> = {},
): ReturnType<CoreWorld['operate']> {
  const list = prefixes.map((prefix) => ({ prefix: prefix as IpPrefix, moreSpecifics: true }));
  const { keys = [KEY], allowSha1 = false, legacyReplay = false } = fields;
  return world.operate({
    kind: 'add-site',
    name,
    iid: DEFAULT_INSTANCE,
    prefixes: list,
    keys,
    allowSha1,
    legacyReplay,
  });
}

function site(name: string, prefixes: readonly { prefix: string; moreSpecifics: boolean }[], iid = 0): SiteRecord {
  const list = prefixes as SiteRecord['prefixes'];
  const legacy = { allowSha1: false, legacyReplay: false };
  return { kind: 'site', name, iid: iid as InstanceId, prefixes: list, keys: [KEY], ...legacy, createdAt: 0 };
}
