import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { Renewal } from '../../agent/core/renewal.ts';
import { minutes, type WallClock } from '../../proto/time.ts';

const DAY = minutes(24 * 60);
const LIFE = { notBefore: 0, notAfter: 30 * DAY };

describe('renewing the certificate', () => {
  test('is due at two thirds of its life, and for the new one again', () => {
    const renewal = new Renewal(LIFE);
    assert.equal(renewal.isDue(20 * DAY - 1), false);
    assert.equal(renewal.isDue(20 * DAY), true);
    renewal.renewed({ notBefore: 20 * DAY, notAfter: 50 * DAY }, 20 * DAY);
    assert.equal(renewal.isDue(20 * DAY), false);
    assert.equal(renewal.dueAt(), 40 * DAY);
  });

  test('is tried again after pauses that grow to an hour, and every minute when the certificate has ended', () => {
    const renewal = new Renewal(LIFE);
    const pauses: number[] = [];
    const late: number[] = [];
    for (let wall: WallClock = renewal.dueAt(); wall < LIFE.notAfter + DAY; wall = renewal.dueAt()) {
      renewal.failed(wall);
      (wall < LIFE.notAfter ? pauses : late).push(renewal.dueAt() - wall);
    }
    assert.deepEqual(pauses.slice(0, 8), [1, 2, 4, 8, 16, 32, 60, 60].map(minutes));
    assert.ok(pauses.length < 10 * 24 + 10);
    assert.ok(late.every((pause) => pause === minutes(1)));
    assert.equal(late.length, 24 * 60, 'from the moment on in which it ended');
  });

  test('comes earlier when the map server trusts other authorities, and not twice without a pause', () => {
    const renewal = new Renewal(LIFE);
    renewal.hasten(DAY);
    assert.equal(renewal.isDue(DAY), true);
    // A clock so wrong that every certificate seems to be near its end.
    renewal.renewed(LIFE, 29 * DAY);
    assert.equal(renewal.isDue(29 * DAY), false);
    assert.equal(renewal.isDue(29 * DAY + minutes(1)), true);
  });

  test('is late when it should have been there for long, and not after it came', () => {
    const renewal = new Renewal(LIFE);
    assert.equal(renewal.isLate(24 * DAY), false);
    assert.equal(renewal.isLate(25 * DAY), true);
    assert.equal(renewal.isLate(31 * DAY), true);
    renewal.renewed({ notBefore: 25 * DAY, notAfter: 55 * DAY }, 25 * DAY);
    assert.equal(renewal.isLate(25 * DAY), false);
  });
});
