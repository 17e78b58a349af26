/**
 * Sessions that were recorded between other implementations, OOR and lispers.net, played again to the map server: what
 * their routers sent gets answers that mean what their map servers answered. All of it, as a capture, is what
 * `stayput lisp decode` finds sound with the key of the site.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readCapture } from '../../../cli/lisp/capture-file.ts';
import { dissectControl, isSound } from '../../../cli/lisp/dissection.ts';
import { ipPacketOf, udpDatagramOf } from '../../../cli/lisp/link-layer.ts';
import { parseIpAddress } from '../../../proto/address.ts';
import { verifyAuthentication } from '../../../proto/lisp/authentication.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import type { MapNotify } from '../../../proto/lisp/map-notify.ts';
import { decodeLispMessage, encapsulatedMessage, type LispMessage } from '../../../proto/lisp/message.ts';
import { PROJECT_ROOT } from '../../../runtime/project-root.ts';
import { type Datagram, ipPacket, pcap } from '../../cli/captures.ts';
import { CoreWorld } from '../core-world.ts';
import { addSite } from '../site-world.ts';

const SECRET = 'sitetwokey';

test('a router with OOR registers, is moved to two locators, and gets the requests for its EIDs', () => {
  const session = new Session({ algorithm: 1 });
  assert.equal(session.play('oor.map-register.sha1'), 'accepted');
  session.answeredAs('oor.map-notify.sha1');

  assert.equal(session.play('oor.map-register.2rlocs'), 'accepted');
  const [notify] = session.taken();
  assert.equal(notify?.message.type === 'map-notify' && notify.message.records[0]?.locators.length, 2);

  // It registered without the P bit, so what is asked goes to it, as it was asked.
  assert.equal(session.play('oor.ecm.map-request'), 'accepted');
  const [forwarded] = session.taken();
  assert.deepEqual([forwarded?.to.address, forwarded?.to.port], ['10.0.2.2', 4342]);
  const asked = decodeLispMessage(vector('oor.ecm.map-request').bytes);
  assert.ok(asked.type === 'encapsulated-control' && forwarded?.message.type === 'encapsulated-control');
  assert.deepEqual(encapsulatedMessage(forwarded.message), encapsulatedMessage(asked));
  session.isSoundAsCapture();
});

test('a router with lispers.net registers with HMAC-SHA-256 and is answered at its port', () => {
  const session = new Session({ algorithm: 2 });
  assert.equal(session.play('lispers.map-register.sha256'), 'accepted');
  session.answeredAs('lispers.map-notify.sha256');
  assert.equal(session.play('lispers.ecm.map-request'), 'accepted');
  assert.equal(session.taken()[0]?.message.type, 'encapsulated-control');
  session.isSoundAsCapture();
});

test('the registration that OOR takes one time in 256, with zeroes as authentication, is refused', () => {
  const session = new Session({ algorithm: 1 });
  assert.equal(session.play('attack.map-register.zero-auth'), 'authentication');
  assert.deepEqual(session.taken(), []);
});

test('an Info-Request of OOR is answered with what its NAT shows of it', () => {
  const session = new Session({ algorithm: 1 });
  assert.equal(session.play('oor.info-request', { address: '203.0.113.7', port: 40_001 }), 'accepted');
  const [{ message } = assert.fail()] = session.taken();
  assert.ok(message.type === 'info-reply');
  assert.deepEqual([message.nat.etrPort, message.nat.globalEtr], [40_001, { kind: 'ip', address: '203.0.113.7' }]);
  session.isSoundAsCapture();
});

class Session {
  private readonly world = new CoreWorld();
  private readonly recorded: Datagram[] = [];

  constructor({ algorithm }: { readonly algorithm: 1 | 2 }) {
    const legacy = { allowSha1: true, legacyReplay: true };
    addSite(this.world, 'two', { within: ['192.168.2.0/24'], secret: SECRET, algorithm, ...legacy });
    // The ITR may ask since it is an xTR of a site.
    const one = { within: ['192.168.1.0/24'], iid: 1000, secret: 'siteonekey' };
    addSite(this.world, 'one', { ...one, algorithm: 1, ...legacy });
    assert.equal(this.play('oor.map-register.iid'), 'accepted');
    this.taken();
    this.recorded.length = 0;
  }

  /** What became of the datagram. */
  play(name: string, from?: { readonly address: string; readonly port: number }): string {
    const { bytes, source, sourcePort, destination, destinationPort } = vector(name);
    const peer = from ?? { address: source, port: sourcePort };
    const before = this.world.events.length;
    this.world.receive({ address: parseIpAddress(peer.address), port: peer.port, socket: 0 }, bytes);
    const route = { source: peer.address, sourcePort: peer.port, destination, destinationPort };
    this.recorded.push({ ...route, payload: bytes });
    const event = this.world.events.slice(before).find(({ kind }) => kind === 'lisp-received');
    return event?.kind === 'lisp-received' ? event.result : 'nothing';
  }

  taken(): { readonly to: { readonly address: string; readonly port: number }; readonly message: LispMessage }[] {
    const sent = this.world.datagrams.splice(0);
    for (const { to, bytes } of sent) {
      const route = { source: '10.0.9.2', sourcePort: 4342, destination: to.address, destinationPort: to.port };
      this.recorded.push({ ...route, payload: bytes });
    }
    return sent;
  }

  /** The same to the same port, authentic; only bits that say who speaks may differ. */
  answeredAs(name: string): void {
    const [sent] = this.world.datagrams;
    const theirs = vector(name);
    assert.ok(sent !== undefined && verifyAuthentication(sent.bytes, Buffer.from(SECRET)).ok);
    assert.deepEqual([sent.to.address, sent.to.port], [theirs.destination, theirs.destinationPort]);
    assert.deepEqual(meaning(sent.message), meaning(decodeLispMessage(theirs.bytes)));
    this.taken();
  }

  isSoundAsCapture(): void {
    let count = 0;
    for (const { linkType, bytes } of readCapture(pcap(RAW_IP, this.recorded.map(ipPacket)))) {
      const packet = ipPacketOf(linkType, bytes);
      const datagram = packet === null ? null : udpDatagramOf(packet);
      assert.ok(datagram !== null);
      const dissection = dissectControl(datagram.payload, Buffer.from(SECRET));
      assert.ok(isSound(dissection), Buffer.from(datagram.payload).toString('hex'));
      count++;
    }
    assert.equal(count, this.recorded.length);
  }
}

function meaning(message: LispMessage): unknown {
  assert.ok(message.type === 'map-notify');
  const { nonce, authentication, records } = message satisfies MapNotify;
  const { keyId, algorithm, data } = authentication;
  return { nonce, keyId, algorithm, macLength: data.length, records: records.map(recordMeaning) };
}

function recordMeaning({ authoritative: _, locators, ...record }: EidRecord): unknown {
  return { ...record, locators: locators.map(({ local: _local, ...rloc }) => rloc) };
}

interface Recorded {
  readonly name: string;
  readonly src: string;
  readonly dst: string;
  readonly udpPayload: string;
}

function vector(name: string): Omit<Datagram, 'payload'> & { readonly bytes: Uint8Array } {
  const file = readFileSync(join(PROJECT_ROOT, 'test/vectors/lisp-messages.json'), 'utf8');
  const found = (JSON.parse(file) as Recorded[]).find((entry) => entry.name === name) ?? assert.fail(name);
  const [source = '', sourcePort] = found.src.split(':');
  const [destination = '', destinationPort] = found.dst.split(':');
  return {
    ...{ source, sourcePort: Number(sourcePort), destination, destinationPort: Number(destinationPort) },
    bytes: Uint8Array.from(Buffer.from(found.udpPayload, 'hex')),
  };
}

/** Raw IP. */
const RAW_IP = 101;
