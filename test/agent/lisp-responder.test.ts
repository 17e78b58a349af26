/** What an agent answers LISP routers. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type LispPeer, LispResponder } from '../../agent/core/lisp-responder.ts';
import { Outbox } from '../../agent/core/outbox.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { type Eid, eidKey, type InstanceId, prefixEid } from '../../proto/eid.ts';
import { ipLispAddress, type LispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { MAP_REQUEST, type MapRequest } from '../../proto/lisp/map-request.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';

const PEER: LispPeer = { address: parseIpAddress('192.0.2.7'), port: 40_000 };
const PLAIN = 7 as InstanceId;
const OVERLAY = 3 as InstanceId;
const RESOLVER = parseIpAddress('198.51.100.77');
const OWN = parseIpAddress('10.77.0.1');

function inPlainInstance(address: string): LispAddress {
  return { kind: 'instance-id', iid: PLAIN, iidMaskLength: 0, address: ipLispAddress(parseIpAddress(address)) };
}

function request(eid: LispAddress, changes: Partial<MapRequest> = {}): Uint8Array {
  return encodeLispMessage({
    ...MAP_REQUEST,
    nonce: nonce(99n),
    sourceEid: NO_ADDRESS,
    itrRlocs: [ipLispAddress(PEER.address)],
    records: [{ notify: false, maskLength: 32, eid }],
    ...changes,
  });
}

function world(gateway = false) {
  const outbox = new Outbox();
  const asked: string[] = [];
  const locators = ['198.51.100.1', '2001:db8::1'].map((address) => ({
    address: parseIpAddress(address),
    port: 4341,
    priority: 1,
    weight: 100,
  }));
  const responder = new LispResponder(
    {
      rules: { instance: PLAIN, gateway, sites: [{ rlocs: [parseIpPrefix('192.0.2.0/24')], eids: [] }] },
      instance: OVERLAY,
      overlay: () => ['10.77.0.0/16', '100.64.0.0/10'].map(parseIpPrefix),
      locators: () => locators,
      isOwn: (address) => address === OWN,
      isMapResolver: (address) => address === RESOLVER,
      askAgain: (eid: Eid) => {
        asked.push(eidKey(eid));
        return eidKey(eid) === eidKey(prefixEid(OVERLAY, parseIpPrefix('10.9.0.7')));
      },
      newNonce: () => nonce(5n),
      outbox,
    },
    0,
  );
  const hear = (bytes: Uint8Array, from = PEER, now = 0) => {
    const result = responder.handleDatagram(from, bytes, now);
    const sent: { peer: LispPeer; message: LispMessage }[] = [];
    for (let output = outbox.poll(); output !== undefined; output = outbox.poll()) {
      if (output.to === 'lisp-router') sent.push({ peer: output.peer, message: decodeLispMessage(output.bytes) });
    }
    return { sent, result };
  };
  const solicit = (now: number) => {
    responder.solicit(parseIpPrefix('10.77.0.1'), [PEER.address], now);
    const output = outbox.poll();
    return output?.to === 'lisp-router' ? { peer: output.peer, message: decodeLispMessage(output.bytes) } : undefined;
  };
  return { hear, asked, solicit };
}

describe('an agent that exchanges plain packets', () => {
  test('answers an RLOC-probe for its EID, with one probed locator, where it came from', () => {
    const { sent, result } = world().hear(request(inPlainInstance('10.77.0.1'), { probe: true }));
    assert.equal(result, 'answered');
    assert.deepEqual(sent[0]?.peer, PEER);
    const reply = sent[0]?.message;
    assert.ok(reply?.type === 'map-reply');
    assert.deepEqual([reply.probe, reply.nonce, reply.echoNonce], [true, 99n, false]);
    const [record] = reply.records;
    assert.deepEqual([record?.authoritative, record?.maskLength, record?.ttl], [true, 32, 1]);
    assert.deepEqual(record?.eid, inPlainInstance('10.77.0.1'));
    assert.deepEqual(
      record?.locators.map(({ locator, local, probed, reachable }) => [
        locator.kind === 'ip' && locator.address,
        local,
        probed,
        reachable,
      ]),
      [
        ['198.51.100.1', true, true, true],
        ['2001:db8::1', true, false, true],
      ],
    );
  });

  test('answers for EIDs of others of the overlay only as a gateway, and never for agent addresses', () => {
    const other = request(inPlainInstance('10.77.0.9'));
    assert.equal(world().hear(other).result, 'ignored');
    assert.equal(world(true).hear(other).result, 'answered');
    assert.equal(world(true).hear(request(inPlainInstance('10.9.0.7'))).result, 'ignored');
    assert.equal(world(true).hear(request(ipLispAddress(OWN))).result, 'ignored', 'another instance');
    assert.equal(world(true).hear(request(inPlainInstance('100.100.100.201'))).result, 'answered');
    const metadata = inPlainInstance('100.100.100.200');
    assert.equal(world(true).hear(request(metadata)).result, 'ignored', 'a platform has it');
    const agent = inPlainInstance('fd53:7461:7970:7574::1');
    const records = [{ notify: false, maskLength: 128, eid: agent }];
    assert.equal(world(true).hear(request(agent, { records })).result, 'ignored');
  });

  test('does not answer who names no ITR-RLOC', () => {
    const { sent, result } = world().hear(request(inPlainInstance('10.77.0.1'), { itrRlocs: [NO_ADDRESS] }));
    assert.deepEqual([sent, result], [[], 'ignored']);
  });

  test('asks the map server again when it is solicited, for what it has in its map-cache', () => {
    const { hear, asked } = world();
    const smr = { smr: true, sourceEid: inPlainInstance('10.9.0.7') };
    const { sent, result } = hear(request(inPlainInstance('10.77.0.1'), smr));
    assert.equal(result, 'solicited');
    assert.deepEqual(sent, [], 'nothing goes to who solicits');
    assert.equal(asked[0], eidKey(prefixEid(OVERLAY, parseIpPrefix('10.9.0.7'))));
    const unknown = { smr: true, sourceEid: inPlainInstance('10.9.0.99') };
    assert.equal(hear(request(inPlainInstance('10.77.0.1'), unknown)).result, 'ignored');
  });

  test('solicits who exchanged plain packets with its EID when it has moved, once in 3 s', () => {
    const { solicit } = world();
    const sent = solicit(0);
    assert.deepEqual(sent?.peer, { address: PEER.address, port: 4342 });
    assert.ok(sent?.message.type === 'map-request' && sent.message.smr);
    assert.deepEqual(sent.message.sourceEid, inPlainInstance('10.77.0.1'));
    assert.equal(solicit(2999), undefined);
    assert.notEqual(solicit(3000), undefined);
  });

  test('hears only solicitations from a Map-Resolver of others that has no configured RLOC', () => {
    const resolver = { address: RESOLVER, port: 4342 };
    const { hear } = world();
    const smr = request(inPlainInstance('10.9.0.7'), { smr: true, sourceEid: inPlainInstance('10.9.0.7') });
    assert.equal(hear(smr, resolver).result, 'solicited');
    assert.equal(hear(request(inPlainInstance('10.77.0.1'), { probe: true }), resolver).result, 'refused');
  });

  // Attack: RLOC-probes and SMRs from an address that is no configured RLOC | 2 | not decoded, not answered
  test('attack: LISP messages from strangers', () => {
    const stranger = { address: parseIpAddress('203.0.113.5'), port: 4342 };
    for (const changes of [{ probe: true }, { smr: true, sourceEid: inPlainInstance('10.9.0.7') }]) {
      const { hear, asked } = world();
      const { sent, result } = hear(request(inPlainInstance('10.77.0.1'), changes), stranger);
      assert.deepEqual([sent, result, asked], [[], 'refused', []]);
    }
  });

  // Attack: a flood of RLOC-probes with the source address of a configured RLOC | 10,000 at once | 1,000 are answered
  test('attack: a flood of RLOC-probes', () => {
    const { hear } = world();
    const probe = request(inPlainInstance('10.77.0.1'), { probe: true });
    let answered = 0;
    for (let i = 0; i < 10_000; i++) answered += hear(probe).sent.length;
    assert.equal(answered, 1_000);
    assert.equal(hear(probe, PEER, 1000).result, 'answered', 'a second later it goes on');
  });

  // Attack: probes cut after each octet, and with an octet turned | 200 | counted as malformed, ignored or answered
  test('attack: broken LISP messages', () => {
    const probe = request(inPlainInstance('10.77.0.1'), { probe: true });
    for (let at = 0; at < probe.length; at++) {
      assert.ok(['malformed', 'ignored'].includes(world().hear(probe.slice(0, at)).result), `cut at ${at}`);
      const turned = Uint8Array.from(probe, (octet, index) => (index === at ? octet ^ 0xff : octet));
      assert.ok(['malformed', 'ignored', 'answered', 'solicited'].includes(world().hear(turned).result));
    }
  });
});
