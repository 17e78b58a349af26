/** Who may register over UDP: keys, algorithms, what deployed routers do otherwise than the RFC, and replays. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MAX_LATE, MAX_XTRS } from '../../mapserver/core/lisp/replay-guard.ts';
import { siteKey } from '../../mapserver/core/records.ts';
import { xtrIdFromBytes } from '../../proto/identity.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import type { Generation } from '../../proto/mapping.ts';
import { seconds } from '../../proto/time.ts';
import { CoreWorld } from './core-world.ts';
import { addSite, base64, SiteXtr, xtrIdOf } from './site-world.ts';

/** Of lispers.net, with the key `secret`: docs in test/vectors/lisp-messages.json. */
const LISPERS_NET = {
  'SHA-1':
    '3a000901887766554433221100010014f9f463593c409ab7159776d792d1e4f04a6496790000000301201000000000010a0101010164ff0000050001c000020a000102030405060708090a0b0c0d0e0f0000000000000001',
  'SHA-256':
    '3a00090188776655443322110002002098d42b99b34633f816c528441dcbd405ddaf1cc0fff90de5a1cfbd95d43828720000000301201000000000010a0101010164ff0000050001c000020a000102030405060708090a0b0c0d0e0f0000000000000001',
};

describe('authentication', () => {
  for (const coverage of ['records', 'payload'] as const) {
    for (const length of ['rfc', 'full'] as const) {
      for (const algorithm of [1, 2, 3] as const) {
        test(`algorithm ${algorithm}, ${length} length, over the ${coverage}: answered in the same way`, () => {
          const world = new CoreWorld();
          addSite(world, 'paris', { within: ['10.50.0.0/16'], algorithm, allowSha1: algorithm === 1 });
          const xtr = new SiteXtr(world, '192.0.2.1');
          xtr.signing = { ...xtr.signing, algorithm, coverage, length };
          const asked = xtr.signed('10.50.1.0/24');
          assert.equal(xtr.send(asked), 'accepted');
          const [answer] = xtr.notifies();
          const sent = decodeLispMessage(asked);
          assert.ok(sent.type === 'map-register');
          const form = ({
            authentication: { keyId, algorithm: id, data },
          }: typeof sent | NonNullable<typeof answer>) => [keyId, id, data.length];
          assert.deepEqual(answer && form(answer), form(sent));
        });
      }
    }
  }

  test('a message as lispers.net sends it is taken', () => {
    const world = new CoreWorld();
    addSite(world, 'lispers', { prefixes: ['10.1.1.1/32'], secret: 'secret' });
    const xtr = new SiteXtr(world, '192.0.2.10');
    xtr.signing = { ...xtr.signing, psk: Buffer.from('secret') };
    assert.equal(xtr.send(Buffer.from(LISPERS_NET['SHA-256'], 'hex')), 'accepted');
    assert.equal(xtr.notifies()[0]?.authentication.data.length, 32);
    assert.equal(xtr.send(Buffer.from(LISPERS_NET['SHA-1'], 'hex')), 'authentication');
  });

  const wrong: Record<string, (xtr: SiteXtr) => void> = {
    'another key': (xtr) => {
      xtr.signing = { ...xtr.signing, psk: Buffer.from('guessed') };
    },
    'another key ID': (xtr) => {
      xtr.signing = { ...xtr.signing, keyId: 7 };
    },
    'another algorithm than the key is for': (xtr) => {
      xtr.signing = { ...xtr.signing, algorithm: 3 };
    },
    'SHA-1': (xtr) => {
      xtr.signing = { ...xtr.signing, algorithm: 1 };
    },
  };
  for (const [what, change] of Object.entries(wrong)) {
    test(`with ${what} it is dropped and not answered`, () => {
      const { world, xtr } = paris();
      change(xtr);
      assert.equal(xtr.register('10.50.1.0/24'), 'authentication');
      assert.deepEqual(world.datagrams, []);
      assert.equal(resolved(world), 0);
    });
  }

  test('keys are rolled over without a gap', () => {
    const { world, xtr } = paris();
    const key = { keyId: 1, algorithm: 3 as const, secret: base64('the next secret') };
    world.operate({ kind: 'add-site-key', name: 'paris', key });
    assert.equal(xtr.register('10.50.1.0/24'), 'accepted');
    const former = xtr.signing;
    xtr.signing = { ...former, keyId: 1, algorithm: 3, psk: Buffer.from('the next secret') };
    assert.equal(xtr.register('10.50.1.0/24'), 'accepted');
    world.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
    assert.equal(xtr.register('10.50.1.0/24'), 'accepted');
    xtr.signing = former;
    assert.equal(xtr.register('10.50.1.0/24'), 'authentication');
  });

  test('of two sites with the same prefix the key tells which it is', () => {
    const { world, xtr } = paris();
    addSite(world, 'lyon', { within: ['10.50.0.0/16'], secret: 'another secret' });
    xtr.signing = { ...xtr.signing, psk: Buffer.from('another secret') };
    xtr.register('10.50.1.0/24');
    const [record] = [...world.core.state.records()].filter(({ kind }) => kind === 'eid');
    assert.equal(record?.kind === 'eid' && record.site?.name, 'lyon');
  });
});

describe('authorisation', () => {
  test('a prefix that is not configured is refused, the others of the message are taken', () => {
    const { world, xtr } = paris();
    assert.equal(xtr.register(['10.50.1.0/24', '10.51.1.0/24']), 'partly');
    assert.equal(xtr.notifies()[0]?.records.length, 1);
    assert.equal(
      world.count('registration', (event) => event.kind === 'registration' && event.result === 'not-granted'),
      1,
    );
  });

  test('a prefix around the configured one is refused', () => {
    assert.equal(paris().xtr.register('10.0.0.0/8'), 'site-unknown');
  });

  // Attack: a router of a site registers EIDs of an agent or of another site | any | refused: only what the site is configured for
  test('attack: a site registers EIDs that are not its own', () => {
    const { world, xtr } = paris();
    const agent = world.agent('a', { eids: ['10.77.0.5/32'] });
    agent.claim('10.77.0.5');
    assert.equal(xtr.register(['10.50.1.0/24', '10.77.0.5']), 'partly');
    const answer = agent.lookup('10.77.0.5');
    assert.equal(answer && mappingsOf(answer)[0]?.owner, agent.xtrId);
  });
});

describe('replay', () => {
  // Attack: a recorded Map-Register is sent again, from anywhere | any | dropped, as its nonce is not larger than the last
  test('attack: a recorded Map-Register', () => {
    const { world, xtr } = paris();
    const recorded = xtr.signed('10.50.1.0/24');
    assert.equal(xtr.send(recorded), 'accepted');
    xtr.register('10.50.1.0/24', { rlocs: ['198.51.100.1'] });
    assert.equal(xtr.send(recorded), 'replay');
    const attacker = new SiteXtr(world, '203.0.113.66');
    assert.equal(attacker.send(recorded), 'replay');
  });

  test('a nonce that does not grow is refused, that of another xTR does not count', () => {
    const { world, xtr } = paris();
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 1000n }), 'accepted');
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 1000n }), 'replay');
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 999n }), 'replay');
    const other = new SiteXtr(world, '192.0.2.2', 2);
    assert.equal(other.register('10.50.2.0/24', { nonce: 1n }), 'accepted');
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 1001n }), 'accepted');
  });

  test('xTRs without an xTR-ID share the nonce of their key', () => {
    const { world } = paris();
    const one = new SiteXtr(world, '192.0.2.1', null);
    const two = new SiteXtr(world, '192.0.2.2', null);
    assert.equal(one.register('10.50.1.0/24', { nonce: 1000n }), 'accepted');
    assert.equal(two.register('10.50.1.0/24', { nonce: 1000n }), 'replay');
    assert.equal(two.register('10.50.1.0/24', { nonce: 1001n }), 'accepted');
  });

  // Attack: a recorded Map-Register whose MAC leaves out the xTR-ID (RFC 9301) is sent again with another xTR-ID | any | dropped, as its MAC was seen
  test('attack: a recorded Map-Register in the name of another xTR', () => {
    const { xtr } = paris();
    const recorded = Uint8Array.from(xtr.signed('10.50.1.0/24'));
    assert.equal(xtr.send(recorded), 'accepted');
    recorded.fill(0xee, recorded.length - 24, recorded.length - 8);
    assert.equal(xtr.send(recorded), 'replay');
    xtr.xtrId = xtrIdOf(0xee);
    assert.equal(xtr.register('10.50.1.0/24'), 'accepted', 'the other xTR itself is not refused');
  });

  // Attack: a Map-Register that was recorded before the latest 4,096 of its site is sent again with another xTR-ID, new or known | 3 | dropped, as its nonce is among those of the xTR that it is of; also after a restart
  test('attack: a Map-Register of long ago in the name of another xTR', () => {
    const { world, xtr } = paris();
    const other = new SiteXtr(world, '192.0.2.2', 2);
    other.register('10.50.2.0/24', { nonce: 1n });
    const recorded = Uint8Array.from(xtr.signed('10.50.1.0/24', { nonce: 1_000n }));
    assert.equal(xtr.send(recorded), 'accepted');
    xtr.lastNonce = 1_000n;
    for (let i = 0; i <= MAX_LATE; i++) xtr.register('10.50.1.0/24');
    const asOf = (id: number): Uint8Array =>
      Uint8Array.from(recorded).fill(id, recorded.length - 24, recorded.length - 8);
    assert.equal(xtr.send(asOf(0xee)), 'replay');
    assert.equal(xtr.send(asOf(2)), 'replay');
    world.advance(seconds(6));
    assert.equal(new SiteXtr(world.restarted(), '192.0.2.1').send(asOf(0xee)), 'replay');
  });

  test('routers whose counters run apart, or whose clocks differ a little, go on, also after a restart', () => {
    const { world, xtr } = paris();
    const other = new SiteXtr(world, '192.0.2.2', 2);
    xtr.lastNonce = 1_000_000n;
    other.lastNonce = 10n;
    for (let i = 0; i < 3_000; i++) {
      assert.equal(xtr.register('10.50.1.0/24'), 'accepted');
      assert.equal(other.register('10.50.2.0/24'), 'accepted');
    }
    const slow = new SiteXtr(world, '192.0.2.3', 3);
    assert.equal(slow.register('10.50.3.0/24', { nonce: xtr.lastNonce - 1_000n }), 'accepted');
    world.advance(seconds(6));
    const after = world.restarted();
    const again = new SiteXtr(after, '192.0.2.2', 2);
    assert.equal(again.register('10.50.2.0/24', { nonce: other.lastNonce + 1n }), 'accepted');
  });

  test('of very many xTRs the quietest are forgotten, and whoever begins beyond their nonces is taken', () => {
    const { world } = paris();
    const xtrs = Array.from({ length: MAX_XTRS + 10 }, (_, i) => new SiteXtr(world, '192.0.2.1', (i % 200) + 1));
    let last = 0n;
    for (const [i, xtr] of xtrs.entries()) {
      xtr.xtrId = xtrIdFromBytes(Buffer.from(i.toString(16).padStart(32, '0'), 'hex'));
      assert.equal(xtr.register('10.50.1.0/24', { nonce: ++last }), 'accepted', `xTR ${i}`);
    }
    assert.equal(xtrs[0]?.register('10.50.1.0/24', { nonce: ++last }), 'accepted', 'one that was forgotten');
    assert.equal(xtrs[1]?.register('10.50.9.0/24', { nonce: 11n }), 'too-many-xtrs');
    assert.equal(xtrs[500]?.register('10.50.9.0/24', { nonce: 502n }), 'accepted', 'one that is known counts on');
  });

  // Attack: a recorded Map-Register of a router that was forgotten among more than 1,024 of its site | 2 | dropped, as who is not known has to begin beyond all that were forgotten; also after a restart
  test('attack: a Map-Register of a router that was forgotten', () => {
    const { world, xtr } = paris();
    xtr.signing = { ...xtr.signing, coverage: 'payload' };
    const recorded = xtr.signed('10.50.1.0/24', { nonce: 5n });
    assert.equal(xtr.send(recorded), 'accepted');
    const other = new SiteXtr(world, '192.0.2.2');
    for (let i = 0; i < MAX_XTRS; i++) {
      other.xtrId = xtrIdFromBytes(Buffer.from((i + 1_000).toString(16).padStart(32, '0'), 'hex'));
      other.register('10.50.2.0/24', { nonce: 1_000n + BigInt(i) });
    }
    assert.equal(xtr.send(recorded), 'too-many-xtrs');
    world.advance(seconds(6));
    assert.equal(new SiteXtr(world.restarted(), '192.0.2.1').send(recorded), 'too-many-xtrs');
  });

  // Attack: Map-Registers that were recorded after a backup are sent again once it was put back, of routers that it knows and of others | 3 | dropped, as nonces have to be the time of a moment after the restore
  test('attack: a Map-Register that the backup does not know', () => {
    const { world, xtr } = paris();
    const timeOf = (at: CoreWorld): bigint => BigInt(1_700_000_000_000 + at.now) << 16n;
    xtr.register('10.50.1.0/24', { nonce: timeOf(world) });
    world.advance(seconds(6));
    const backup = world.store.restored(1 as Generation);
    world.advance(seconds(60));
    const recorded = xtr.signed('10.50.1.0/24', { nonce: timeOf(world) });
    const unknown = new SiteXtr(world, '192.0.2.2', 2).signed('10.50.1.0/24', { nonce: timeOf(world) });
    const counted = new SiteXtr(world, '192.0.2.3', 3).signed('10.50.1.0/24', { nonce: 0xffff_ffff_ffff_fff0n });
    for (const each of [recorded, unknown, counted]) assert.equal(xtr.send(each), 'accepted');
    const after = new CoreWorld({ store: backup.restored((1_700_000_000_000 + world.now + 1) as Generation) });
    const attacker = new SiteXtr(after, '203.0.113.66');
    for (const each of [recorded, unknown, counted]) assert.equal(attacker.send(each), 'restored');
    after.advance(world.now + seconds(60));
    const router = new SiteXtr(after, '192.0.2.1');
    assert.equal(router.register('10.50.1.0/24', { nonce: timeOf(after) }), 'accepted');
    assert.equal(router.register('10.50.1.0/24', { nonce: timeOf(after) + 1n }), 'accepted');
    after.operate({
      kind: 'add-site-key',
      name: 'paris',
      key: { keyId: 1, algorithm: 2, secret: base64('the next secret') },
    });
    const counting = new SiteXtr(after, '192.0.2.3', 3);
    counting.signing = { ...counting.signing, keyId: 1, psk: Buffer.from('the next secret') };
    assert.equal(counting.register('10.50.1.0/24', { nonce: 1n }), 'accepted', 'with a key from after the restore');
  });

  test('a new key has nonces of its own, also where a restore has left the former one out', () => {
    const { world, xtr } = paris();
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 5_000n }), 'accepted');
    world.advance(seconds(6));
    const site = world.store.record(siteKey('paris'));
    assert.ok(site?.kind === 'site');
    const record = { ...site, keys: [] };
    world.store.commit({ id: 0, conditions: [], writes: [{ key: siteKey('paris'), record }] });
    const after = world.restarted();
    const key = { keyId: 0, algorithm: 2 as const, secret: base64('the next secret') };
    after.operate({ kind: 'add-site-key', name: 'paris', key });
    const router = new SiteXtr(after, '192.0.2.1');
    router.signing = { ...router.signing, psk: Buffer.from('the next secret') };
    assert.equal(router.register('10.50.1.0/24', { nonce: 1n }), 'accepted');
    assert.equal(router.register('10.50.1.0/24', { nonce: 1n }), 'replay');
  });

  test('the last nonces hold over a restart', () => {
    const { world, xtr } = paris();
    const recorded = xtr.signed('10.50.1.0/24');
    xtr.send(recorded);
    world.advance(seconds(6));
    const after = new SiteXtr(world.restarted(), '192.0.2.1');
    assert.equal(after.send(recorded), 'replay');
    assert.equal(after.register('10.50.1.0/24', { nonce: xtr.lastNonce + 1n }), 'accepted');
  });

  test('nothing is left of it when the site is removed', () => {
    const { world, xtr } = paris();
    xtr.register('10.50.1.0/24');
    world.advance(seconds(6));
    const nonces = (): number => [...world.store.entries.keys()].filter((key) => key.startsWith('site-nonces/')).length;
    assert.equal(nonces(), 1);
    world.operate({ kind: 'remove-site', name: 'paris' });
    world.advance(seconds(6));
    assert.equal(nonces(), 0);
  });

  test('a new secret begins anew, also under the key ID of the former', () => {
    const { world, xtr } = paris();
    xtr.register('10.50.1.0/24', { nonce: 1000n });
    world.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
    const key = { keyId: 0, algorithm: 2 as const, secret: base64('the next secret') };
    world.operate({ kind: 'add-site-key', name: 'paris', key });
    xtr.signing = { ...xtr.signing, psk: Buffer.from('the next secret') };
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 1n }), 'accepted');
  });

  test('with --legacy-replay nonces need not grow, but are good once', () => {
    const world = new CoreWorld();
    addSite(world, 'old', { within: ['10.50.0.0/16'], legacyReplay: true });
    const xtr = new SiteXtr(world, '192.0.2.1');
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 1000n }), 'accepted');
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 5n }), 'accepted');
    assert.equal(xtr.register('10.50.1.0/24', { nonce: 1000n }), 'replay');
  });
});

// Attack: Map-Registers with guessed keys from many sources | 10,000 | each costs a few HMACs, none is answered, and what is registered stays
test('attack: guessed keys', () => {
  const { world, xtr } = paris();
  xtr.register('10.50.1.0/24');
  world.datagrams.length = 0;
  const stranger = new SiteXtr(world, '203.0.113.66', 66);
  stranger.signing = { ...stranger.signing, psk: Buffer.from('guessed') };
  const guess = stranger.signed('10.50.1.0/24');
  for (let i = 0; i < 10_000; i++) {
    stranger.peer = { ...stranger.peer, port: 1024 + (i % 60_000) };
    world.receive(stranger.peer, guess);
  }
  assert.deepEqual(world.datagrams, []);
  assert.equal(resolved(world), 1);
});

function paris(): { readonly world: CoreWorld; readonly xtr: SiteXtr } {
  const world = new CoreWorld({ lisp: { messagesPerSecond: 1_000_000 } });
  addSite(world, 'paris', { within: ['10.50.0.0/16'] });
  return { world, xtr: new SiteXtr(world, '192.0.2.1', 1) };
}

/** Live mappings. */
function resolved(world: CoreWorld): number {
  return [...world.core.state.records()].filter((record) => record.kind === 'eid' && record.state === 'live').length;
}
