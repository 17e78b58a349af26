/** Map-Requests that the map server is slow to answer: each question asked in the session may still be answered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MapRequests } from '../../agent/core/map-requests.ts';
import { hostPrefix, parseIpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, prefixEid } from '../../proto/eid.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import { type Instant, seconds } from '../../proto/time.ts';

const EID = prefixEid(DEFAULT_INSTANCE, hostPrefix(parseIpAddress('10.77.0.9')));
const START = 1_000 as Instant;

function requests(): MapRequests {
  let last = 0n;
  return new MapRequests(() => {
    last += 1n;
    return nonce(last);
  });
}

function askAt(asking: MapRequests, now: Instant): Nonce {
  const [sent] = asking.due(now);
  assert.ok(sent !== undefined, 'a question is due');
  return sent.nonce;
}

test('an answer to the first question ends a request that was repeated meanwhile', () => {
  const asking = requests();
  asking.ask(EID, null, START);
  const first = askAt(asking, START);
  const second = askAt(asking, START + seconds(1));
  assert.deepEqual(asking.finish(first)?.eid, EID);
  assert.equal(asking.size, 0);
  assert.equal(asking.finish(second), null, 'the other answer is news and no more');
});

test('an answer from before a new session ends nothing', () => {
  const asking = requests();
  asking.ask(EID, null, START);
  const before = askAt(asking, START);
  asking.restart(START);
  assert.equal(asking.finish(before), null);
  assert.deepEqual(asking.finish(askAt(asking, START))?.eid, EID);
});
