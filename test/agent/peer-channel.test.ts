import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { DataplaneTable } from '../../agent/core/dataplane-table.ts';
import { MapServerSession } from '../../agent/core/map-server-session.ts';
import { Outbox } from '../../agent/core/outbox.ts';
import { PeerChannel } from '../../agent/core/peer-channel.ts';
import { hostPrefix, type IpAddress, parseIpAddress } from '../../proto/address.ts';
import { MAX_PEER_MESSAGE } from '../../proto/dataplane/messages.ts';
import { DEFAULT_INSTANCE, type Eid, eidKey, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import { encodedMapping, mappingsOf } from '../../proto/lisp/native.ts';
import type { Generation, Mapping, TunnelKey } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';

const OWN = Buffer.alloc(32, 1).toString('base64') as TunnelKey;
const PEER = Buffer.alloc(32, 2).toString('base64') as TunnelKey;
const LOCATOR = { address: '192.0.2.1' as IpAddress, port: 4341, priority: 1, weight: 100 };
const MOVED = mappingOf('10.77.0.5');
const INTRODUCED = Array.from({ length: 100 }, (_, i) => mappingOf(`10.77.1.${i}`));

describe('what is said to a peer about many mappings', () => {
  test('is as many messages as it takes, each with what it is about, none longer than may be sent', () => {
    const { channel, sent } = channelToPeer();
    const nonces = channel.notify(PEER, 'handover', MOVED, INTRODUCED, 0);
    const payloads = sent();
    assert.ok(payloads.every(({ length }) => length <= MAX_PEER_MESSAGE));
    const messages = payloads.map(decodeLispMessage);
    assert.deepEqual(
      messages.map((message) => message.type === 'map-notify' && message.nonce),
      nonces,
    );
    const mappings = messages.map(mappingsOf);
    assert.ok(mappings.every(([first]) => keyOf(first?.eid) === keyOf(MOVED.eid)));
    assert.deepEqual(
      mappings.flatMap((each) => each.slice(1)),
      INTRODUCED,
    );
    const one = encodedMapping(MOVED).length;
    assert.ok(
      payloads.slice(0, -1).every(({ length }) => length + one > MAX_PEER_MESSAGE),
      'and none for less than it holds',
    );
  });

  test('is encoded once', () => {
    const { channel } = channelToPeer();
    let encoded = 0;
    const counted = INTRODUCED.map(({ eid, ...rest }) => ({
      ...rest,
      get eid(): Eid {
        encoded++;
        return eid;
      },
    }));
    channel.notify(PEER, 'handover', MOVED, counted, 0);
    const reads = encoded;
    encoded = 0;
    channel.notifyEach([PEER], 'notice', MOVED, counted.slice(0, 1), 0);
    assert.equal(reads, encoded * INTRODUCED.length);
  });
});

function channelToPeer(): { channel: PeerChannel; sent: () => Uint8Array[] } {
  const outbox = new Outbox();
  const table = new DataplaneTable(() => undefined);
  table.setPeer(PEER, [LOCATOR]);
  const identity = {
    xtrId: xtrIdOf(OWN),
    tunnelKey: OWN,
    agentAddress: agentAddressOf(OWN),
    instance: DEFAULT_INSTANCE,
  };
  const sent = (): Uint8Array[] => {
    const payloads: Uint8Array[] = [];
    for (let output = outbox.poll(); output !== undefined; output = outbox.poll()) {
      if (output.to !== 'dataplane' || output.command.type !== 'peer-send') continue;
      payloads.push(Buffer.from(output.command.payload, 'base64'));
    }
    return payloads;
  };
  return { channel: new PeerChannel(identity, table, new MapServerSession(), outbox), sent };
}

function mappingOf(address: string): Mapping {
  return {
    eid: prefixEid(DEFAULT_INSTANCE, hostPrefix(parseIpAddress(address))),
    ttl: minutes(15),
    action: 'no-action',
    generation: 7 as Generation,
    owner: xtrIdOf(PEER),
    tunnelKey: PEER,
    locators: [LOCATOR],
    names: [],
    targets: [],
  };
}

function keyOf(eid: Eid | undefined): string | undefined {
  return eid === undefined ? undefined : eidKey(eid);
}
