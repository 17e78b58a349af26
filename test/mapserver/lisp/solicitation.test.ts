/** Which plain ITRs are asked to ask again when a mapping changes, and how often. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ItrMemory, type RememberedItr } from '../../../mapserver/core/lisp/itr-memory.ts';
import { Solicitor } from '../../../mapserver/core/lisp/solicitor.ts';
import { type IpAddress, parseIpAddress } from '../../../proto/address.ts';
import { eidKey, type PrefixEid, parseEid } from '../../../proto/eid.ts';
import { ipLispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import { nonce } from '../../../proto/lisp/header.ts';
import type { MapRequest } from '../../../proto/lisp/map-request.ts';
import { recordKeyToEid } from '../../../proto/lisp/mapping-record.ts';
import { type Instant, minutes, seconds } from '../../../proto/time.ts';

const ITR = parseIpAddress('192.0.2.20');
const OTHER = parseIpAddress('2001:db8::20');

test('a change concerns whoever was told of the EID, of a prefix around it, or of one inside it', () => {
  const memory = new ItrMemory(100);
  for (const text of ['10.0.0.0/8', '10.1.1.1', '10.1.0.0/16', '10.2.0.0/16', '0.0.0.0/5']) {
    memory.remember(told(ITR, text), 0);
  }
  memory.remember(told(OTHER, '10.1.1.1'), 0);
  const concerned = (text: string): string[] =>
    memory.concerned(eid(text), 1).map(({ rloc, told: { prefix } }) => `${rloc} ${prefix}`);
  assert.deepEqual(concerned('10.1.1.1'), [
    `${ITR} 10.0.0.0/8`,
    `${ITR} 10.1.0.0/16`,
    `${ITR} 10.1.1.1/32`,
    `${OTHER} 10.1.1.1/32`,
  ]);
  assert.deepEqual(concerned('10.1.1.0/24'), [
    `${ITR} 10.0.0.0/8`,
    `${ITR} 10.1.0.0/16`,
    `${ITR} 10.1.1.1/32`,
    `${OTHER} 10.1.1.1/32`,
  ]);
  assert.deepEqual(concerned('192.0.2.0/24'), []);
});

test('an ITR is remembered until the answer ends, and while there is room', () => {
  const memory = new ItrMemory(2);
  memory.remember(told(ITR, '10.1.1.1', seconds(10)), 0);
  assert.equal(memory.concerned(eid('10.1.1.1'), seconds(9)).length, 1);
  assert.equal(memory.concerned(eid('10.1.1.1'), seconds(10)).length, 0);
  memory.remember(told(ITR, '10.1.1.2'), seconds(11));
  assert.equal(memory.size, 1, 'what has ended is gone with the next');
  memory.remember(told(ITR, '10.1.1.3'), seconds(12));
  memory.remember(told(ITR, '10.1.1.2'), seconds(13));
  memory.remember(told(ITR, '10.1.1.4'), seconds(14));
  assert.equal(memory.concerned(eid('10.1.1.2'), seconds(14)).length, 1);
  assert.equal(memory.concerned(eid('10.1.1.3'), seconds(14)).length, 0, 'it had asked longest ago');
});

test('an SMR goes at once, and again every 3 s until the ITR has asked, three times in all', () => {
  const world = new World();
  world.solicitor.solicit(told(ITR, '10.1.0.0/16'), eid('10.1.1.1'), 0);
  assert.deepEqual(world.taken(), [`0 ${ITR} 10.1.1.1/32`]);
  world.advance(seconds(60));
  assert.deepEqual(world.taken(), [`3000 ${ITR} 10.1.1.1/32`, `6000 ${ITR} 10.1.1.1/32`]);
  assert.equal(world.solicitor.size, 0);

  world.solicitor.solicit(told(ITR, '10.1.0.0/16'), eid('10.1.1.1'), world.now);
  world.solicitor.handleRequest(ITR, eid('10.1.1.1'));
  world.advance(seconds(60));
  assert.equal(world.taken().length, 1);
});

test('one RLOC gets one SMR in 3 s, whatever changes, and others do not wait for it', () => {
  const world = new World();
  for (const text of ['10.1.1.1', '10.1.1.2']) world.solicitor.solicit(told(ITR, text), eid(text), 0);
  world.solicitor.solicit(told(OTHER, '10.1.1.1'), eid('10.1.1.1'), 0);
  assert.deepEqual(world.taken(), [`0 ${ITR} 10.1.1.1/32`, `0 ${OTHER} 10.1.1.1/32`]);
  world.solicitor.handleRequest(OTHER, eid('10.1.1.1'));
  world.advance(seconds(7));
  assert.deepEqual(world.taken(), [`3000 ${ITR} 10.1.1.1/32`, `6000 ${ITR} 10.1.1.2/32`]);
});

test('an EID that changes again while its SMR waits is told of once', () => {
  const world = new World();
  for (let i = 0; i < 50; i++) world.solicitor.solicit(told(ITR, '10.1.1.1'), eid('10.1.1.1'), 0);
  world.advance(seconds(60));
  // The first, and three of the changes since then.
  assert.equal(world.taken().length, 4);
});

test('an ITR that has forgotten the answer is not asked', () => {
  const world = new World();
  world.solicitor.solicit(told(ITR, '10.1.1.1', seconds(4)), eid('10.1.1.1'), 0);
  world.advance(seconds(60));
  assert.deepEqual(world.taken(), [`0 ${ITR} 10.1.1.1/32`, `3000 ${ITR} 10.1.1.1/32`]);
});

test('an SMR has the EID that changed as its source, and asks for whom the ITR had asked', () => {
  const world = new World();
  const sourceEid = ipLispAddress(parseIpAddress('10.9.9.9'));
  world.solicitor.solicit({ ...told(ITR, '10.1.0.0/16'), sourceEid }, eid('10.1.1.1'), 0);
  world.solicitor.solicit(told(OTHER, '10.1.1.1'), eid('10.1.0.0/16'), 0);
  const [first, second] = world.sent.map(({ message }) => message);
  assert.equal(first?.smr, true);
  assert.deepEqual(first?.sourceEid, ipLispAddress(parseIpAddress('10.1.1.1')));
  assert.deepEqual(first?.records, [{ notify: false, eid: sourceEid, maskLength: 32 }]);
  assert.deepEqual(first?.itrRlocs, [ipLispAddress(parseIpAddress('192.0.2.1'))]);
  // Of what changed around it, the ITR knows only what it was told.
  assert.deepEqual(second?.sourceEid, ipLispAddress(parseIpAddress('10.1.1.1')));
  assert.deepEqual(
    second?.records.map((record) => eidKey(recordKeyToEid(record.eid, record.maskLength))),
    ['[0]10.1.1.1/32'],
  );
  assert.deepEqual(second?.itrRlocs, [NO_ADDRESS]);
});

// Attack: asks as very many ITRs, so that a change has to be told to all of them | 30,000 ITRs | each of the first 20,000 gets SMRs, and nothing is kept for the others
test('attack: asks as many ITRs that would have to be told of a change', () => {
  const world = new World();
  for (let i = 0; i < 30_000; i++) {
    world.solicitor.solicit(told(parseIpAddress(`172.16.${i >> 8}.${i & 255}`), '10.1.1.1'), eid('10.1.1.1'), 0);
  }
  assert.equal(world.solicitor.size, 20_000);
  for (let i = 0; i < 1000; i++) {
    world.solicitor.solicit(told(parseIpAddress('172.16.0.0'), `10.1.${i >> 8}.${i & 255}`), eid('10.1.0.0/16'), 0);
  }
  world.sent.length = 0;
  world.advance(minutes(60));
  const more = world.sent.filter(({ to }) => to === '172.16.0.0').length;
  assert.ok(more <= 256 * 3, `${more}`);
  assert.equal(world.solicitor.size, 0);
});

class World {
  now: Instant = 0;
  readonly sent: { at: Instant; to: IpAddress; message: MapRequest }[] = [];
  readonly solicitor = new Solicitor({
    randomNonce: () => nonce(7n),
    ownRloc: (family) => (family === 4 ? parseIpAddress('192.0.2.1') : undefined),
    send: (to, message) => this.sent.push({ at: this.now, to, message }),
  });

  advance(by: number): void {
    const end = this.now + by;
    for (let next = this.solicitor.pollTimeout(); next !== undefined && next <= end; ) {
      this.now = next;
      this.solicitor.handleTimeout(next);
      next = this.solicitor.pollTimeout();
    }
    this.now = end;
  }

  /** `at RLOC EID` of what was sent since the last call. */
  taken(): string[] {
    return this.sent.splice(0).map(({ at, to, message: { sourceEid } }) => {
      const inner = sourceEid.kind === 'ip' ? `${sourceEid.address}/32` : sourceEid.kind;
      return `${at} ${to} ${inner}`;
    });
  }
}

function eid(text: string): PrefixEid {
  const parsed = parseEid(text);
  assert.equal(parsed.kind, 'prefix');
  return parsed as PrefixEid;
}

function told(rloc: IpAddress, text: string, endsAt: Instant = minutes(60)): RememberedItr {
  return { rloc, told: eid(text), sourceEid: NO_ADDRESS, endsAt };
}
