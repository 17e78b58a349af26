/** Which xTR-IDs and nonces a run leaves at a target. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XtrPool } from '../../conform/map-server/xtrs.ts';

test('the next run from the same address plays the same xTRs, with larger nonces', () => {
  const pools = [new XtrPool('192.0.2.1'), new XtrPool('192.0.2.1')];
  const [first, second] = pools.map((pool) => [pool.take(), pool.take()]);
  assert.deepEqual(
    first?.map(({ id }) => id),
    second?.map(({ id }) => id),
  );
  assert.notDeepEqual(first?.[0]?.id, first?.[1]?.id);
  assert.notDeepEqual(new XtrPool('192.0.2.2').take().id, first?.[0]?.id);
});

test('what a check gave back is played again, and its nonces go on', () => {
  const pool = new XtrPool('192.0.2.1');
  const xtr = pool.take();
  const last = xtr.nextNonce() + 1_000_001n;
  xtr.continueFrom(last);
  pool.giveBack(xtr);
  const again = pool.take();
  assert.equal(again, xtr);
  assert.ok(again.nextNonce() > last);
});

test('nonces follow the clock, and are even', () => {
  const xtr = new XtrPool('192.0.2.1').take();
  const before = BigInt(Date.now()) << 16n;
  const nonces = Array.from({ length: 100 }, () => xtr.nextNonce());
  const after = BigInt(Date.now() + 1) << 16n;
  assert.ok(nonces.every((nonce, at) => nonce > (nonces[at - 1] ?? before - 1n) && nonce < after && nonce % 2n === 0n));
});

test('one that is behind can go 65 s ahead without being ahead of the clock', () => {
  const xtr = new XtrPool('192.0.2.1').behind();
  assert.ok(xtr.nextNonce() + (1n << 32n) < BigInt(Date.now()) << 16n);
});
