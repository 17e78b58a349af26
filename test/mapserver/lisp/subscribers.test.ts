/** Subscriptions of plain LISP peers: nonces, what is told to whom, and how they end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Publication,
  type Subscribe,
  type SubscribeResult,
  Subscribers,
} from '../../../mapserver/core/lisp/subscribers.ts';
import { parseIpAddress } from '../../../proto/address.ts';
import { type PrefixEid, parseEid } from '../../../proto/eid.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import { nonce } from '../../../proto/lisp/header.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { minutes } from '../../../proto/time.ts';

const [A, B] = ['a', 'b'].map((letter) => letter.repeat(32)) as [XtrId, XtrId];

test('a subscription is confirmed with its nonce, and each publication has the next', () => {
  const world = new World();
  assert.equal(world.subscribe(A, '10.1.1.1', 100n), 'accepted');
  assert.deepEqual(world.taken(), ['a 10.1.1.1/32 100']);
  world.change('10.1.1.1');
  world.change('10.1.1.1');
  assert.deepEqual(world.taken(), ['a 10.1.1.1/32 101', 'a 10.1.1.1/32 102']);
});

test('a request counts if its nonce is larger than all before, of both sides, also after the end', () => {
  const world = new World();
  world.subscribe(A, '10.1.1.1', 100n);
  world.change('10.1.1.1');
  world.taken();
  for (const old of [99n, 100n, 101n]) assert.equal(world.subscribe(A, '10.1.1.1', old), 'replay');
  assert.equal(world.unsubscribe(A, '10.1.1.1', 101n), 'replay');
  assert.deepEqual(world.taken(), []);
  assert.equal(world.unsubscribe(A, '10.1.1.1', 102n), 'accepted');
  assert.deepEqual(world.taken(), ['a 10.1.1.1/32 102']);
  world.change('10.1.1.1');
  assert.deepEqual(world.taken(), [], 'it has ended');
  assert.equal(world.subscribe(A, '10.1.1.1', 102n), 'replay');
  assert.equal(world.subscribe(A, '10.1.1.1', 103n), 'accepted');
  assert.equal(world.subscribe(A, '10.1.1.2', 1n), 'accepted', 'each EID has its own nonce');
  assert.equal(world.subscribe(B, '10.1.1.1', 1n), 'accepted', 'and each xTR');
});

test('an end is confirmed also when there was nothing to end', () => {
  const world = new World();
  assert.equal(world.unsubscribe(A, '10.1.1.1', 5n), 'accepted');
  assert.deepEqual(world.taken(), ['a 10.1.1.1/32 5']);
});

test('a change concerns who is subscribed to the EID, to a prefix around it, or inside it', () => {
  const world = new World();
  world.subscribe(A, '10.1.0.0/16', 1n);
  world.subscribe(B, '10.1.1.1', 1n);
  world.subscribe(B, '10.2.0.0/16', 1n);
  world.taken();
  world.change('10.1.1.0/24');
  assert.deepEqual(world.taken(), ['a 10.1.0.0/16 2', 'b 10.1.1.1/32 2']);
});

test('a subscription whose confirmation is not acknowledged has not begun, and its xTR is told', () => {
  const world = new World();
  world.subscribe(A, '10.1.1.1', 7n);
  world.acknowledge(false);
  assert.deepEqual(world.taken(), ['a 10.1.1.1/32 7', 'dismissed a 10.1.1.1/32 7']);
  world.change('10.1.1.1');
  assert.deepEqual(world.taken(), []);
  assert.equal(world.subscribe(A, '10.1.1.1', 7n), 'replay');
});

test('one that was confirmed outlives publications that are lost, but not three in a row', () => {
  const world = new World();
  world.subscribe(A, '10.1.1.1', 1n);
  world.acknowledge(true);
  for (const acknowledged of [false, false, true, false, false]) {
    world.change('10.1.1.1');
    world.acknowledge(acknowledged);
  }
  world.taken();
  world.change('10.1.1.1');
  world.acknowledge(false);
  assert.deepEqual(world.taken(), ['a 10.1.1.1/32 7', 'dismissed a 10.1.1.1/32 7']);
});

test('a subscription to what nobody has registered ends after 15 min, unless somebody does', () => {
  const world = new World();
  world.subscribe(A, '10.1.1.1', 1n, false);
  world.subscribe(B, '10.1.1.1', 1n, false);
  world.taken();
  world.now += minutes(14);
  assert.equal(world.subscribe(B, '10.1.1.1', 2n, false), 'accepted', 'asked for anew');
  world.now += minutes(1);
  world.subscribers.handleTimeout(world.now);
  world.taken();
  world.change('10.1.1.1');
  assert.deepEqual(world.taken(), ['b 10.1.1.1/32 3']);
  world.now += minutes(60);
  world.subscribers.handleTimeout(world.now);
  assert.equal(world.subscribers.pollTimeout(), undefined);
  world.change('10.1.1.1');
  assert.deepEqual(world.taken(), ['b 10.1.1.1/32 4']);
});

// Attack: subscriptions of one xTR-ID, and of very many, each ended at once | 1,000 | as many as the limits allow; of those that have ended the oldest are forgotten
test('attack: makes the map server keep subscriptions and nonces without end', () => {
  const world = new World();
  for (let i = 0; i < 1_000; i++) world.subscribe(A, `10.1.${i >> 8}.${i & 255}`, 1n);
  assert.equal(world.subscribers.size, 10);
  assert.equal(world.subscribe(A, '10.2.0.0', 1n), 'full');
  assert.equal(world.unsubscribe(A, '10.1.0.1', 2n), 'accepted');
  assert.equal(world.subscribe(A, '10.2.0.0', 1n), 'accepted');
  for (let i = 0; i < 1_000; i++) {
    const xtrId = i.toString(16).padStart(32, '0') as XtrId;
    assert.equal(world.subscribe(xtrId, '10.3.0.0', 1n), 'accepted');
    assert.equal(world.unsubscribe(xtrId, '10.3.0.0', 2n), 'accepted');
  }
  assert.equal(world.subscribers.size, 50);
  assert.equal(world.subscribe((0).toString(16).padStart(32, '0') as XtrId, '10.3.0.0', 1n), 'accepted');
  world.taken();
  world.change('10.1.0.2');
  assert.deepEqual(world.taken(), ['a 10.1.0.2/32 2'], 'who is subscribed stays so');
});

class World {
  now = 0;
  private readonly letters: string[] = [];
  private readonly waiting: Publication[] = [];
  readonly subscribers = new Subscribers({
    limits: { perXtr: 10, total: 50 },
    notify: (publication) => {
      this.waiting.push(publication);
      this.letters.push(this.text(publication));
      return 1;
    },
    dismiss: (publication) => this.letters.push(`dismissed ${this.text(publication)}`),
    refusal: (eid) => record(eid),
  });

  subscribe(xtrId: XtrId, eid: string, value: bigint, exists = true): SubscribeResult {
    return this.subscribers.subscribe(request(xtrId, eid, value), [record(eidOf(eid))], exists, this.now);
  }

  unsubscribe(xtrId: XtrId, eid: string, value: bigint): SubscribeResult {
    return this.subscribers.unsubscribe(request(xtrId, eid, value), [record(eidOf(eid))], this.now);
  }

  change(eid: string): void {
    this.subscribers.handleChange(eidOf(eid), (asked) => [record(asked)], true, this.now);
  }

  /** The last of what was sent, as if it had been repeated often enough if not. */
  acknowledge(acknowledged: boolean): void {
    this.waiting.pop()?.done(acknowledged, this.now);
  }

  /** `xTR EID nonce` of what was sent since the last call. */
  taken(): string[] {
    return this.letters.splice(0);
  }

  private text({ subject, xtrId, nonce: value }: Pick<Publication, 'subject' | 'xtrId' | 'nonce'>): string {
    return `${xtrId.slice(0, 1)} ${subject.slice(subject.indexOf(']') + 1)} ${value}`;
  }
}

function request(xtrId: XtrId, eid: string, value: bigint): Subscribe {
  const to = [{ address: parseIpAddress('192.0.2.20'), port: 4342 }];
  return { xtrId, eid: eidOf(eid), nonce: nonce(value), to, signing: undefined };
}

function eidOf(text: string): PrefixEid {
  return parseEid(text) as PrefixEid;
}

function record(eid: PrefixEid): EidRecord {
  return { ...eidToRecordKey(eid), ttl: 1, action: 0, authoritative: false, mapVersion: 0, locators: [] };
}
