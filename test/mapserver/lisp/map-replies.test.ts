/** What plain LISP askers are told: of sites, of agents behind a gateway, and of what is nowhere. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type MapAnswer, MapReplies } from '../../../mapserver/core/lisp/map-replies.ts';
import { MappingDatabase } from '../../../mapserver/core/mapping-database.ts';
import type { OwnershipRecord, SiteContent } from '../../../mapserver/core/records.ts';
import {
  type IpPrefix,
  ipPrefix,
  parseIpAddress,
  parseIpPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, instanceId, type PrefixEid, prefixEid } from '../../../proto/eid.ts';
import { ipLispAddress, type LispAddress } from '../../../proto/lisp/afi.ts';
import { recordKeyToEid } from '../../../proto/lisp/mapping-record.ts';
import type { Generation, Locator, XtrId } from '../../../proto/mapping.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';
import { minutes } from '../../../proto/time.ts';
import { runs } from '../../runs.ts';
import { rloc, type SiteOptions, siteContent } from './site-content.ts';

const [NATIVELY_FORWARD, DROP] = [1, 3];
const ROOM = 512;

test('a site is told of with its RLOCs: sorted, neither authoritative nor local, and not for long', () => {
  const world = new World();
  const rlocs = ['2001:db8::1', '192.0.2.11', '192.0.2.9'].map((text) => rloc(ipLispAddress(parseIpAddress(text))));
  const unknown: LispAddress = { kind: 'lcaf', type: 99, flags: 0, rsvd2: 0, body: Uint8Array.of(0, 1, 0, 0) };
  world.site('10.1.0.0/16', { rlocs: [rloc(unknown), ...rlocs], mapVersion: 7 });
  const answer = world.answer('10.1.2.3');
  assert.deepEqual(summary(answer), ['10.1.0.0/16 ttl 1 act 0: 192.0.2.9 192.0.2.11 2001:db8::1 lcaf']);
  const [record] = records(answer);
  assert.equal(record?.authoritative, false);
  assert.equal(record?.mapVersion, 7);
  assert.ok(record?.locators.every(({ local, probed }) => !local && !probed));
  assert.deepEqual(record?.locators[3]?.locator, unknown, 'what we do not understand is given back as it came');
});

test('a site that answers itself is to be asked itself', () => {
  const world = new World();
  world.site('10.1.0.0/16', { proxyReply: false });
  const answer = world.answer('10.1.2.3');
  assert.equal(answer.kind, 'forward');
});

test('the prefixes inside the best match are told with it, with the same TTL', () => {
  const world = new World({ ttl: minutes(60) });
  world.site('2001:db8::/32', { ttl: minutes(60) });
  world.site('2001:db8:1::/48', { ttl: minutes(30) });
  world.site('2001:db8:1:1::/64', { ttl: minutes(5) });
  world.site('2001:db8:1:2::/64', { ttl: minutes(40) });
  world.site('2001:db8:2::/48', { ttl: minutes(1) });
  assert.deepEqual(summary(world.answer('2001:db8:1:5::5')), [
    '2001:db8:1::/48 ttl 5 act 0: 192.0.2.10',
    '2001:db8:1:1::/64 ttl 5 act 0: 192.0.2.10',
    '2001:db8:1:2::/64 ttl 5 act 0: 192.0.2.10',
  ]);
  assert.deepEqual(summary(world.answer('2001:db8:1:2::9')), ['2001:db8:1:2::/64 ttl 40 act 0: 192.0.2.10']);
});

test('when the prefixes inside do not fit, the answer is about the part of the best match without them', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  for (let i = 0; i < 200; i++) world.site(`10.1.0.${i}/32`);
  assert.deepEqual(summary(world.answer('10.1.128.1')), ['10.1.128.0/17 ttl 1 act 0: 192.0.2.10']);
  assert.deepEqual(summary(world.answer('10.1.0.201')), ['10.1.0.200/29 ttl 1 act 0: 192.0.2.10']);
});

test('an EID of an agent is at the gateways, and without one nowhere', () => {
  const world = new World();
  world.agent('10.77.0.5/32');
  assert.deepEqual(summary(world.answer('10.77.0.5')), ['10.77.0.5/32 ttl 1 act 3:']);
  world.gateways.push(locator('198.51.100.2'), locator('2001:db8::2'), locator('198.51.100.1'));
  assert.deepEqual(summary(world.answer('10.77.0.5')), [
    '10.77.0.5/32 ttl 1 act 0: 198.51.100.1 198.51.100.2 2001:db8::2',
  ]);
});

test('what is nowhere is dropped inside the overlay and forwarded natively outside, for 1 and 15 minutes', () => {
  const world = new World();
  world.site('10.77.5.0/24');
  world.configure('10.99.0.0/16');
  for (const [asked, told, ttl, action] of [
    ['10.77.0.9', '10.77.0.0/22', 1, DROP],
    ['10.77.255.1', '10.77.128.0/17', 1, DROP],
    // Only what a site may register ends here, so it may come back soon.
    ['10.99.3.3', '10.99.0.0/16', 1, NATIVELY_FORWARD],
    ['10.64.0.1', '10.64.0.0/13', 15, NATIVELY_FORWARD],
    ['192.0.2.1', '128.0.0.0/1', 15, NATIVELY_FORWARD],
    ['2001:db8::1', '::/0', 15, NATIVELY_FORWARD],
  ] as const) {
    assert.deepEqual(summary(world.answer(asked)), [`${told} ttl ${ttl} act ${action}:`], asked);
  }
});

test('nothing of one instance is told in another', () => {
  const world = new World();
  world.site('10.1.0.0/16', {}, 7);
  assert.deepEqual(summary(world.answer('10.1.2.3')), ['10.0.0.0/10 ttl 15 act 1:']);
  assert.deepEqual(summary(world.answer('10.1.2.3', 7)), ['10.1.0.0/16 ttl 1 act 0: 192.0.2.10']);
  assert.deepEqual(summary(world.answer('10.77.2.3', 7)), ['10.64.0.0/10 ttl 15 act 1:'], 'no overlay there');
});

test('who asks for a prefix that holds more than can be told learns nothing of it that lasts', () => {
  const world = new World();
  for (let i = 0; i < 200; i++) world.site(`10.77.0.${i}/32`);
  assert.deepEqual(summary(world.answer('10.77.0.0/24')), ['10.77.0.0/24 ttl 1 act 3:']);
});

test('every answer covers what was asked for and hides nothing that is registered', () => {
  fc.assert(
    fc.property(
      fc.array(crowded(), { maxLength: 24 }),
      fc.array(crowded(), { maxLength: 4 }),
      crowded(),
      fc.constantFrom(60, 512),
      (registered, configured, asked, room) => {
        const world = new World();
        for (const prefix of registered) world.site(prefix);
        for (const prefix of configured) world.configure(prefix);
        const answer = world.replies.answer(prefixEid(DEFAULT_INSTANCE, asked), room);
        const [told = asked, ...others] = records(answer).map(prefixOf);
        assert.ok(prefixContains(told, asked));
        const covering = registered.filter((prefix) => prefixContains(prefix, asked)).sort(byLength);
        const inside = new Set(registered.filter((prefix) => prefix !== told && prefixContains(told, prefix)));
        const best = covering.at(-1);
        if (best !== undefined) assert.ok(prefixContains(best, told), 'a positive answer stays in the best match');
        if (others.length > 0) assert.deepEqual(new Set(others), inside);
        else if (told !== asked) assert.deepEqual(inside, new Set(), 'nothing is hidden');
        if (best === undefined) {
          const known = [...registered, ...configured, ...world.overlay];
          assert.equal(told, naiveVacant(known, asked));
        } else if (room === 512 && registered.length < 10) assert.equal(told, best);
      },
    ),
    { numRuns: runs(600) },
  );
});

class World {
  readonly overlay: readonly IpPrefix[] = [parseIpPrefix('10.77.0.0/16')];
  readonly gateways: Locator[] = [];
  readonly replies: MapReplies;
  private readonly database = new MappingDatabase();
  private readonly sitePrefixes = new PrefixTrie<true>();

  constructor({ ttl = minutes(1) } = {}) {
    this.replies = new MapReplies({
      overlay: { instance: DEFAULT_INSTANCE, prefixes: this.overlay },
      database: this.database,
      sitePrefixes: (iid) => (iid === DEFAULT_INSTANCE ? this.sitePrefixes : undefined),
      gateways: () => this.gateways,
      ttl,
    });
  }

  site(prefix: string, { ttl = minutes(3), ...content }: SiteOptions & { readonly ttl?: number } = {}, iid = 0): void {
    this.register(prefix, iid, ttl, siteContent(content));
  }

  agent(prefix: string): void {
    this.register(prefix, 0, minutes(3));
  }

  configure(prefix: string): void {
    this.sitePrefixes.set(parseIpPrefix(prefix), true);
  }

  answer(text: string, iid = 0): MapAnswer {
    return this.replies.answer(prefixEid(instanceId(iid), parseIpPrefix(text)), ROOM);
  }

  private register(prefix: string, iid: number, ttl: number, site?: SiteContent): void {
    const record: OwnershipRecord = {
      ...(site === undefined ? {} : { site }),
      kind: 'eid',
      eid: eidKey(prefixEid(instanceId(iid), parseIpPrefix(prefix))),
      generation: 1 as Generation,
      owner: 'owner' as XtrId,
      state: 'live',
      ownerSince: 0,
      ttl,
      locators: [],
      names: [],
      targets: [],
    };
    this.database.update(undefined, record);
  }
}

function records(answer: MapAnswer): Extract<MapAnswer, { kind: 'records' }>['records'] {
  assert.equal(answer.kind, 'records');
  return answer.kind === 'records' ? answer.records : [];
}

function prefixOf(record: { eid: LispAddress; maskLength: number }): IpPrefix {
  return (recordKeyToEid(record.eid, record.maskLength) as PrefixEid).prefix;
}

function summary(answer: MapAnswer): string[] {
  return records(answer).map((record) => {
    const locators = record.locators.map(({ locator: at }) => (at.kind === 'ip' ? ` ${at.address}` : ` ${at.kind}`));
    return `${prefixOf(record)} ttl ${record.ttl} act ${record.action}:${locators.join('')}`;
  });
}

function locator(address: string): Locator {
  return { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
}

/** By trying each length. */
function naiveVacant(known: readonly IpPrefix[], asked: IpPrefix): IpPrefix {
  for (let length = 0; length < prefixLength(asked); length++) {
    const candidate = ipPrefix(prefixAddress(asked), length);
    if (known.every((each) => prefixContains(each, candidate) || !prefixContains(candidate, each))) return candidate;
  }
  return asked;
}

function byLength(a: IpPrefix, b: IpPrefix): number {
  return prefixLength(a) - prefixLength(b);
}

/** Prefixes that nest and lie side by side. */
function crowded(): fc.Arbitrary<IpPrefix> {
  const address = fc.constantFrom('10.1.0.0', '10.1.0.1', '10.1.2.0', '10.77.1.0', '10.200.0.0', '2001:db8::1');
  return fc
    .tuple(address, fc.nat({ max: 32 }))
    .map(([text, length]) => ipPrefix(parseIpAddress(text), text.includes(':') ? 4 * length : length));
}
