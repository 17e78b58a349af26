/** Own EIDs at Map-Servers of others, in virtual time and over real UDP. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type LispMapServer, LispRegistrations } from '../../agent/core/lisp-registrations.ts';
import { Outbox } from '../../agent/core/outbox.ts';
import type { Note } from '../../agent/core/output.ts';
import type { EidState, OwnedEid } from '../../agent/core/registrar.ts';
import { LispListener } from '../../agent/shell/lisp-listener.ts';
import { type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, type Eid, eidKey, type InstanceId, prefixEid } from '../../proto/eid.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import { type SigningOptions, signMessage, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../proto/lisp/authentication-data.ts';
import type { EidRecord } from '../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { MapNotify } from '../../proto/lisp/map-notify.ts';
import type { MapRegister } from '../../proto/lisp/map-register.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import type { Locator, XtrId } from '../../proto/mapping.ts';
import { waitFor } from '../lab/wait.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { base64, recordsText, SECRET } from '../mapserver/site-world.ts';
import { type Host, World } from './world.ts';

const SIGNING: SigningOptions = { keyId: 3, algorithm: 2, psk: Buffer.from(SECRET) };
const SERVER: LispMapServer = {
  address: parseIpAddress('198.51.100.1'),
  port: 4342,
  signing: SIGNING,
  eids: [parseIpPrefix('10.77.0.0/16')],
};
const FIRST = nonce(1n << 40n);
const XTR = 'a0'.repeat(16) as XtrId;

describe('registrations at Map-Servers of others', () => {
  test('a live EID is registered at once, for the Map-Server to answer, and again every minute', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    host.own('10.99.0.5');
    host.own('10.77.0.6', 'base');
    const [message, ...more] = host.tick();
    assert.deepEqual([recordsText(asNotify(message)), more], [['10.77.0.5/32 = 192.0.2.1 2001:db8::1'], []]);
    const { proxyReply, wantMapNotify, merge, useTtl, xtrId, records } = message ?? assert.fail();
    assert.deepEqual([proxyReply, wantMapNotify, merge, useTtl, xtrId], [true, true, false, false, XTR]);
    assert.equal(records[0]?.ttl, 1);
    assert.equal(host.acknowledge(message), 'acknowledged');
    assert.deepEqual(host.lisp(), [{ result: 'accepted', eids: 1 }]);
    assert.deepEqual(host.tickUntil(59_999), []);
    const [again] = host.tickUntil(60_000);
    assert.ok(again !== undefined && again.nonce > (message?.nonce ?? 0n));
    host.acknowledge(again);
    assert.deepEqual(host.lisp(), [], 'nothing new');
  });

  test('it is repeated with growing nonces until the Map-Notify comes, and silence is said once', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    const sent: number[] = [];
    const nonces: bigint[] = [];
    for (let now = 0; now <= 200_000; now += 500) {
      for (const { nonce: each } of host.tickUntil(now)) {
        sent.push(now);
        nonces.push(each);
      }
    }
    assert.deepEqual(sent, [0, 1000, 3000, 7000, 15_000, 31_000, 63_000, 123_000, 183_000]);
    assert.ok(nonces.every((each, i) => i === 0 || each > (nonces[i - 1] ?? 0n)));
    assert.deepEqual(host.lisp(), [{ result: 'unanswered', eids: 1 }]);
    assert.equal(host.acknowledge(host.last, nonce(nonces[2] ?? 0n)), 'acknowledged', 'an earlier one said the same');
    assert.deepEqual(host.lisp(), [{ result: 'accepted', eids: 1 }]);
    assert.deepEqual(host.tickUntil(259_000), []);
  });

  test('new locators are registered at once, and the answer to the old ones does not count', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    const [before] = host.tick();
    host.locators = [locator('203.0.113.9')];
    assert.equal(host.registrations.pollTimeout(), Number.NEGATIVE_INFINITY);
    const [after] = host.tick();
    assert.deepEqual(recordsText(asNotify(after)), ['10.77.0.5/32 = 203.0.113.9']);
    assert.equal(host.acknowledge(before), 'ignored');
    assert.equal(host.tickUntil(1000).length, 1);
    assert.equal(host.acknowledge(after), 'acknowledged');
  });

  test('nothing is sent without locators', () => {
    const host = new RegisteringHost();
    host.locators = [];
    host.own('10.77.0.5');
    assert.deepEqual(host.tickUntil(120_000), []);
    host.locators = [locator('192.0.2.1')];
    assert.equal(host.tick().length, 1);
  });

  test('a detached EID is withdrawn until that is acknowledged; one that another agent has is left to it', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    host.own('10.77.0.6');
    host.acknowledge(host.tick()[0]);
    host.own('10.77.0.6', 'drain');
    host.disown('10.77.0.5');
    const [withdrawal] = host.tick();
    assert.deepEqual(recordsText(asNotify(withdrawal)), ['10.77.0.5/32 = withdrawn']);
    assert.equal(host.tickUntil(1000).length, 1);
    assert.equal(host.acknowledge(withdrawal), 'acknowledged');
    assert.deepEqual(host.tickUntil(600_000), []);
  });

  test('a withdrawal that nobody answers is given up', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    host.acknowledge(host.tick()[0]);
    host.disown('10.77.0.5');
    let sent = 0;
    for (let now = 0; now <= 600_000; now += 500) sent += host.tickUntil(now).length;
    assert.equal(sent, 6);
    assert.equal(host.registrations.pollTimeout(), Number.POSITIVE_INFINITY);
  });

  test('EIDs share messages that fit into a packet', () => {
    const host = new RegisteringHost();
    for (let i = 0; i < 100; i++) host.own(`10.77.1.${i}`);
    const messages = host.tick();
    assert.ok(messages.length > 1 && messages.length < 10);
    assert.equal(messages.flatMap(({ records }) => records).length, 100);
    assert.ok(host.sizes.every((size) => size <= 1280));
    for (const message of messages) host.acknowledge(message);
    assert.equal(
      host.lisp().reduce((sum, { eids }) => sum + eids, 0),
      100,
    );
  });

  test('an unsolicited Map-Notify is acknowledged, and another owner in it is noted once', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    const [message] = host.tick();
    host.acknowledge(message);
    host.lisp();
    const taken = host.notify(message, { nonce: nonce(77n), records: [elsewhere(message)] });
    for (const notes of [[{ result: 'taken', eids: 1 }], []]) {
      assert.equal(host.hear(taken), 'notified');
      const ack = decodeLispMessage(host.sent.at(-1) ?? assert.fail());
      assert.ok(ack.type === 'map-notify-ack' && ack.nonce === 77n);
      assert.ok(verifyAuthentication(host.sent.at(-1) ?? assert.fail(), SIGNING.psk).ok);
      assert.deepEqual(host.lisp(), notes);
    }
  });

  test('the instance is that of plain packets', () => {
    const host = new RegisteringHost(SERVER, 7 as InstanceId);
    host.own('10.77.0.5');
    const [message] = host.tick();
    const eid = message?.records[0]?.eid;
    assert.ok(eid?.kind === 'instance-id' && eid.iid === 7);
    assert.equal(host.acknowledge(message), 'acknowledged');
  });

  // Attack: Map-Notifies that no Map-Server's key made: without a MAC, with a wrong one, another key ID or algorithm, of another address | 6 | not believed; nothing is sent
  test('attack: Map-Notifies of strangers', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    const [message] = host.tick();
    const genuine = host.notify(message);
    const signings: readonly Partial<SigningOptions>[] = [
      { psk: Buffer.from('guessed') },
      { keyId: 4 },
      { algorithm: 1 },
      { algorithm: 3 },
    ];
    const forged = signings.map((changes) => host.notify(message, { nonce: nonce(77n) }, { ...SIGNING, ...changes }));
    const cut = Uint8Array.from(genuine, (octet, at) => (at >= 16 && at < 32 ? 0 : octet));
    for (const bytes of [...forged, cut]) assert.equal(host.hear(bytes), 'unauthentic');
    assert.equal(host.hear(genuine, '203.0.113.5'), 'unauthentic');
    assert.deepEqual([host.sent.length, host.lisp()], [1, []], 'neither acknowledged nor noted');
    assert.equal(host.hear(genuine), 'acknowledged');
  });

  // Attack: a flood of authentic, unsolicited Map-Notifies, as recorded and replayed | 10,000 at once | 1,000 are acknowledged
  test('attack: a flood of replayed Map-Notifies', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    const [message] = host.tick();
    const replayed = host.notify(message, { nonce: nonce(77n) });
    const results = Array.from({ length: 10_000 }, () => host.hear(replayed));
    assert.equal(results.filter((result) => result === 'notified').length, 1_000);
    assert.equal(results.at(-1), 'limited');
  });

  // Attack: an own, older Map-Register's answer is replayed after the locators changed | 100 | does not count as the answer to the new one
  test('attack: answers to former registrations', () => {
    const host = new RegisteringHost();
    host.own('10.77.0.5');
    const old = host.notify(host.tick()[0]);
    host.hear(old);
    host.locators = [locator('203.0.113.9')];
    host.tick();
    for (let i = 0; i < 100; i++) assert.equal(host.hear(old), 'ignored');
    assert.equal(host.tickUntil(1000).length, 1);
  });
});

describe('an agent with Map-Servers of others', () => {
  const plain = {
    instance: DEFAULT_INSTANCE,
    gateway: false,
    sites: [{ rlocs: [parseIpPrefix('192.0.2.0/24')], eids: [] }],
  };

  test('registers what its own map server granted, also after a roam, and not what another agent took', () => {
    const world = new World();
    const elsewhere = { mapServers: [SERVER], mapResolvers: [], firstNonce: FIRST, randomNonce: () => nonce(5n) };
    const lisp = { plain, elsewhere };
    const a = world.host('a', { eids: ['10.77.0.5'], address: '192.0.2.1', lisp });
    const b = world.host('b', { address: '192.0.2.2', lisp });
    world.advance(0);
    assert.deepEqual(registered(a), [], 'nothing is granted yet');
    for (const host of [a, b]) host.connect();
    world.advance(0);
    assert.deepEqual(registered(a), ['10.77.0.5/32 = 192.0.2.1']);
    a.plug('203.0.113.9');
    world.advance(0);
    assert.deepEqual(registered(a), ['10.77.0.5/32 = 203.0.113.9']);
    b.attach('10.77.0.5');
    world.advance(0);
    assert.deepEqual([registered(a), registered(b)], [[], ['10.77.0.5/32 = 192.0.2.2']]);
    b.detach('10.77.0.5');
    world.advance(0);
    assert.deepEqual(registered(b), ['10.77.0.5/32 = withdrawn']);
  });
});

/** By the Map-Registers since the last call. */
function registered(host: Host): string[] {
  return host.datagrams.splice(0).flatMap((bytes) => {
    const message = decodeLispMessage(bytes);
    return message.type === 'map-register' ? recordsText(asNotify(message)) : [];
  });
}

for (const { name, algorithm, whole } of [
  { name: 'HMAC-SHA-256', algorithm: 2, whole: false },
  { name: 'HKDF', algorithm: 3, whole: false },
  { name: 'the whole digest of everything', algorithm: 2, whole: true },
] as const) {
  test(`a map server takes what is registered over UDP, with ${name}`, async () => {
    const overlay = new TestOverlay({ lisp: { listen: ['127.0.0.1:0'] } });
    await overlay.start();
    const prefixes = [{ prefix: '10.77.9.0/24', moreSpecifics: true }];
    const keys = [{ keyId: 3, algorithm, secret: base64(SECRET) }];
    await overlay.admin('POST', '/v1/sites', { name: 'abroad', prefixes, keys });
    const [address = '', port = ''] = overlay.lispAddress.split(':');
    const made = whole ? ({ coverage: 'payload', length: 'full' } as const) : {};
    const signing = { ...SIGNING, algorithm, ...made };
    const host = new RegisteringHost({ ...SERVER, address: parseIpAddress(address), port: Number(port), signing });
    const results: string[] = [];
    const listener = await LispListener.start((from, bytes) => results.push(host.hear(bytes, from.address)), 0);
    const exchange = async (result: string) => {
      host.tick();
      const bytes = host.sent.at(-1) ?? assert.fail();
      listener.send({ address: parseIpAddress(address), port: Number(port) }, bytes);
      await waitFor('the Map-Notify', () => (results.length > 0 ? true : undefined));
      assert.deepEqual(results.splice(0), [result]);
    };
    const state = async () => JSON.stringify(await overlay.admin<object>('GET', '/v1/sites/abroad'));
    host.own('10.77.9.5');
    await exchange('acknowledged');
    assert.match(await state(), /"eid":"10\.77\.9\.5\/32","state":"live","generation":1/);
    host.locators = [locator('203.0.113.9')];
    await exchange('acknowledged');
    assert.match(await state(), /203\.0\.113\.9/);
    host.disown('10.77.9.5');
    await exchange('acknowledged');
    assert.doesNotMatch(await state(), /"state":"live"/);
    listener.close();
    await overlay.remove();
  });
}

class RegisteringHost {
  readonly registrations: LispRegistrations;
  readonly sent: Uint8Array[] = [];
  readonly sizes: number[] = [];
  last: MapRegister | undefined;
  locators: readonly Locator[] = [locator('192.0.2.1'), locator('2001:db8::1')];
  now = 0;
  private readonly server: LispMapServer;
  private readonly owned = new Map<string, OwnedEid>();
  private readonly outbox = new Outbox();
  private readonly notes: Note[] = [];
  private revision = 0;

  constructor(server = SERVER, instance: InstanceId = DEFAULT_INSTANCE) {
    this.server = server;
    const host = this;
    const registrar = {
      addresses: () => [...this.owned.values()],
      find: (eid: Eid) => this.owned.get(eidKey(eid)),
      get revision() {
        return host.revision;
      },
    };
    const locators = () => this.locators;
    const { outbox } = this;
    this.registrations = new LispRegistrations(
      { servers: [server], firstNonce: FIRST, xtrId: XTR, instance, registrar, locators, outbox },
      0,
    );
  }

  own(text: string, state: EidState = 'live'): void {
    this.revision += 1;
    const eid = prefixEid(DEFAULT_INSTANCE, `${text}/32` as IpPrefix);
    this.owned.set(eidKey(eid), { key: eidKey(eid), eid, kind: 'address', state } as OwnedEid);
  }

  disown(text: string): void {
    this.revision += 1;
    this.owned.delete(eidKey(prefixEid(DEFAULT_INSTANCE, `${text}/32` as IpPrefix)));
  }

  tickUntil(now: number): MapRegister[] {
    this.now = now;
    return this.tick();
  }

  /** The Map-Registers that are due now, all of them authentic. */
  tick(): MapRegister[] {
    if (this.registrations.pollTimeout() <= this.now) this.registrations.handleTimeout(this.now);
    const before = this.sent.length;
    this.drain();
    return this.sent.slice(before).flatMap((bytes) => {
      this.sizes.push(bytes.length);
      assert.ok(verifyAuthentication(bytes, this.server.signing.psk).ok);
      const message = decodeLispMessage(bytes);
      if (message.type !== 'map-register') return [];
      this.last = message;
      return [message];
    });
  }

  notify(message: MapRegister | undefined, changes: Partial<MapNotify> = {}, signing = SIGNING): Uint8Array {
    const { nonce: asked, records } = message ?? assert.fail();
    const notify = { type: 'map-notify' as const, nonce: asked, authentication: NO_AUTHENTICATION, records };
    return signMessage({ ...notify, ...changes }, signing);
  }

  acknowledge(message: MapRegister | undefined, asked: Nonce | undefined = message?.nonce): string {
    return this.hear(this.notify(message, asked === undefined ? {} : { nonce: asked }));
  }

  hear(bytes: Uint8Array, from: string = this.server.address): string {
    const message = decodeLispMessage(bytes);
    assert.ok(message.type === 'map-notify');
    const peer = { address: parseIpAddress(from), port: 4342 };
    const result = this.registrations.handleNotify(peer, message, bytes, this.now);
    this.drain();
    return result;
  }

  /** What was noted of registrations since the last call. */
  lisp(): { result: string; eids: number }[] {
    return this.notes
      .splice(0)
      .flatMap((note) => (note.type === 'lisp-registration' ? [{ result: note.result, eids: note.eids }] : []));
  }

  private drain(): void {
    for (let output = this.outbox.poll(); output !== undefined; output = this.outbox.poll()) {
      if (output.to === 'lisp-router') this.sent.push(output.bytes);
      else if (output.to === 'operator') this.notes.push(output.note);
    }
  }
}

function locator(address: string): Locator {
  return { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
}

function elsewhere(message: MapRegister | undefined): EidRecord {
  const [record] = message?.records ?? [];
  const [rloc] = record?.locators ?? [];
  if (record === undefined || rloc === undefined) return assert.fail();
  return { ...record, locators: [{ ...rloc, locator: ipLispAddress(parseIpAddress('203.0.113.77')) }] };
}

/** For `recordsText`. */
function asNotify(message: MapRegister | undefined): MapNotify {
  const { nonce: asked, authentication, records } = message ?? assert.fail();
  return { type: 'map-notify', nonce: asked, authentication, records };
}
