import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { computeAuthentication, signMessage, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { decodeDataHeader, encodeDataHeader } from '../../proto/lisp/data-header.ts';
import { recordToMapping } from '../../proto/lisp/mapping-record.ts';
import {
  decodeLispMessage,
  encapsulatedMessage,
  encodeLispMessage,
  type LispMessage,
} from '../../proto/lisp/message.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

test('every vector decodes, and encodes to the same octets where its sender wrote the canonical form', () => {
  for (const { name, bytes } of controlVectors()) {
    const message = decodeLispMessage(bytes);
    const again = encodeLispMessage(message);
    assert.deepEqual(decodeLispMessage(again), message, name);
    if (!NOT_CANONICAL.has(name)) assert.equal(hex(again), hex(bytes), name);
  }
});

test('every authenticated vector verifies with its key and with no other key, octet or algorithm', () => {
  let seen = 0;
  for (const { name, bytes, hmacKey, coverage } of controlVectors()) {
    if (hmacKey === null) continue;
    const message = decodeLispMessage(bytes);
    const signed = message.type === 'encapsulated-control' ? message.payload : bytes;
    const result = verifyAuthentication(signed, utf8(hmacKey));
    assert.ok(result.ok, name);
    if (coverage !== undefined) assert.equal(result.coverage, coverage, name);
    assert.deepEqual(verifyAuthentication(signed, utf8(`${hmacKey}x`)), { ok: false }, name);
    // RFC 9301 leaves the xTR-ID trailer out of the MAC.
    const last = name === 'algorithm-3.records' ? signed.length - 25 : signed.length - 1;
    for (const at of [0, 5, 12, 16, last]) {
      const changed = Uint8Array.from(signed);
      changed[at]! ^= 1;
      assert.deepEqual(verifyAuthentication(changed, utf8(hmacKey)), { ok: false }, `${name} changed at ${at}`);
    }
    seen++;
  }
  assert.ok(seen >= 15, `only ${seen} authenticated vectors`);
});

test('the registration with zeroes as authentication data is rejected whatever the key', () => {
  const { bytes } = vector('attack.map-register.zero-auth');
  for (const key of ['sitetwokey', 'siteonekey', 'secret', '', '\0']) {
    assert.deepEqual(verifyAuthentication(bytes, utf8(key)), { ok: false });
  }
  for (let i = 0; i < 2000; i++) assert.deepEqual(verifyAuthentication(bytes, utf8(`key ${i}`)), { ok: false });
});

test('no authentication never verifies, nor does a MAC shorter than its algorithm has', () => {
  const psk = utf8('secret');
  const { bytes } = vector('lispers-made.reg-alg2-iid0');
  const message = register(bytes);
  const none = { ...message, authentication: { keyId: 0, algorithm: 0, data: new Uint8Array(0) } };
  assert.deepEqual(verifyAuthentication(encodeLispMessage(none), psk), { ok: false });
  for (const [algorithm, shortest] of [
    [1, 12],
    [2, 16],
    [3, 16],
  ] as const) {
    for (let length = 0; length < 33; length++) {
      const blank = { ...message, authentication: { keyId: 0, algorithm, data: new Uint8Array(length) } };
      const mac = computeAuthentication(encodeLispMessage(blank), psk, 'records');
      if (mac.length < length) continue;
      const data = mac.subarray(0, length);
      const { ok } = verifyAuthentication(
        encodeLispMessage({ ...blank, authentication: { keyId: 0, algorithm, data } }),
        psk,
      );
      assert.equal(ok, length >= shortest && [12, 16, 20, 32].includes(length), `${algorithm}/${length}`);
    }
  }
});

test('signing gives the octets of the vectors', () => {
  const psk = utf8('secret');
  for (const name of ['lispers-made.reg-alg1-iid0', 'lispers-made.reg-alg2-iid1000']) {
    const { bytes } = vector(name);
    const message = register(bytes);
    const { keyId, algorithm } = message.authentication;
    assert.equal(hex(signMessage(message, { keyId, algorithm, psk, coverage: 'payload', length: 'full' })), hex(bytes));
  }
  const { bytes } = vector('algorithm-3.records');
  assert.equal(hex(signMessage(register(bytes), { keyId: 1, algorithm: 3, psk })), hex(bytes));
  assert.throws(() => signMessage(register(bytes), { keyId: 1, algorithm: 0, psk }), { code: 'STAYPUT_ENCODE' });
});

test("OOR's registration has its fields", () => {
  const message = register(vector('oor.map-register.sha1').bytes);
  assert.equal(message.wantMapNotify, true);
  assert.equal(message.proxyReply, false);
  assert.equal(message.xtrId, undefined);
  assert.equal(message.nonce, 0xfadfb57f3fbf56can);
  assert.deepEqual(
    { ...message.authentication, data: message.authentication.data.length },
    {
      keyId: 0,
      algorithm: 1,
      data: 20,
    },
  );
  assert.deepEqual(message.records, [
    {
      ttl: 10,
      eid: { kind: 'ip', address: '192.168.2.0' },
      maskLength: 24,
      action: 0,
      authoritative: true,
      mapVersion: 0,
      locators: [
        {
          priority: 1,
          weight: 100,
          multicastPriority: 255,
          multicastWeight: 0,
          local: true,
          probed: false,
          reachable: true,
          locator: { kind: 'ip', address: '10.0.2.2' },
        },
      ],
    },
  ]);
});

test('a registration with an instance ID, two locators or an xTR-ID has them', () => {
  assert.deepEqual(register(vector('oor.map-register.iid').bytes).records[0]?.eid, {
    kind: 'instance-id',
    iid: 1000,
    iidMaskLength: 32,
    address: { kind: 'ip', address: '192.168.1.0' },
  });
  const two = register(vector('oor.map-register.2rlocs').bytes).records[0]?.locators;
  assert.deepEqual(
    two?.map(({ priority, locator }) => [priority, locator]),
    [
      [1, { kind: 'ip', address: '10.0.2.2' }],
      [2, { kind: 'ip', address: '10.0.3.3' }],
    ],
  );
  const lispers = register(vector('lispers.map-register.sha256').bytes);
  assert.deepEqual(
    [lispers.useTtl, lispers.wantMapNotify, lispers.nonce, lispers.xtrId, lispers.siteId, lispers.records[0]?.ttl],
    [true, true, 0x01dfdfdfddccbbaan, '000000000000000064dd7152d3b5be68', 0n, 3],
  );
  const captured = register(vector('tcpdump.lisp_eid_register').bytes);
  assert.deepEqual([captured.eidNotify, captured.wantMapNotify, captured.proxyReply], [true, true, false]);
  assert.equal(captured.records.length, 2);
  assert.equal(captured.xtrId, '9787ad753caf58a713fa6920e6d27a8f');
  assert.equal(captured.siteId, 0n);
});

test('a Map-Notify with an xTR-ID but without the I flag keeps it as trailer', () => {
  const message = decodeLispMessage(vector('lispers.map-notify.sha256').bytes);
  assert.equal(message.type, 'map-notify');
  assert.equal(message.xtrId, undefined);
  assert.equal(hex(message.trailer!), '000000000000000064dd7152d3b5be680000000000000000');
});

test('an ECM has its inner header, and a wrong inner UDP checksum is an error while none is not', () => {
  const ecm = decodeLispMessage(vector('oor.ecm.map-request').bytes);
  assert.equal(ecm.type, 'encapsulated-control');
  assert.deepEqual(
    [ecm.source, ecm.destination, ecm.sourcePort, ecm.destinationPort, ecm.hopLimit],
    ['192.168.1.2', '192.168.2.2', 4342, 4342, 255],
  );
  const inner = encapsulatedMessage(ecm);
  assert.equal(inner.type, 'map-request');
  assert.deepEqual(inner.records, [{ notify: false, maskLength: 32, eid: { kind: 'ip', address: '192.168.2.2' } }]);
  assert.deepEqual(inner.itrRlocs, [{ kind: 'ip', address: '10.0.1.2' }]);

  const lispers = decodeLispMessage(vector('lispers.ecm.map-request').bytes);
  assert.equal(lispers.type === 'encapsulated-control' && lispers.sourcePort, 0x80ad);

  const changed = Uint8Array.from(vector('oor.ecm.map-request').bytes);
  changed[changed.length - 1]! ^= 1;
  assert.throws(() => decodeLispMessage(changed), { code: 'STAYPUT_DECODE', field: 'inner UDP checksum' });

  const relayed = decodeLispMessage(vector('oor.ecm.map-register.rtr').bytes);
  assert.ok(relayed.type === 'encapsulated-control' && relayed.forRtr);
  const forwarded = encapsulatedMessage(relayed);
  assert.ok(forwarded.type === 'map-register' && forwarded.proxyReply && forwarded.xtrId !== undefined);
});

test('an ECM inside an ECM is refused', () => {
  const ecm = decodeLispMessage(vector('oor.ecm.map-request').bytes);
  assert.ok(ecm.type === 'encapsulated-control');
  const twice = decodeLispMessage(encodeLispMessage({ ...ecm, payload: encodeLispMessage(ecm) }));
  assert.ok(twice.type === 'encapsulated-control');
  assert.throws(() => encapsulatedMessage(twice), { code: 'STAYPUT_DECODE' });
});

test('probes and solicitations have their flags', () => {
  const request = decodeLispMessage(vector('oor.rloc-probe.request').bytes);
  assert.ok(request.type === 'map-request' && request.probe && request.sourceEid.kind === 'none');
  const reply = decodeLispMessage(vector('oor.rloc-probe.reply').bytes);
  assert.ok(reply.type === 'map-reply' && reply.probe && reply.records[0]?.locators[0]?.probed);
  const smr = decodeLispMessage(vector('oor.smr').bytes);
  assert.ok(smr.type === 'map-request' && smr.smr && smr.nonce === 0n);
  const afi0 = decodeLispMessage(vector('lispers.rloc-probe.afi0').bytes);
  assert.ok(afi0.type === 'map-request' && afi0.probe);
  assert.deepEqual(afi0.records, [{ notify: false, maskLength: 0, eid: { kind: 'none' } }]);
});

test('a subscription with a trailer of 16 octets has an xTR-ID and no site ID', () => {
  const message = decodeLispMessage(vector('lispers-made.subscribe-16-octet-trailer').bytes);
  assert.equal(message.type, 'map-request');
  assert.deepEqual(
    [message.records[0]?.notify, message.xtrId, message.siteId],
    [true, '000102030405060708090a0b0c0d0e0f', undefined],
  );
});

test('an Info-Request has its EID or the host name of its sender', () => {
  const oor = decodeLispMessage(vector('oor.info-request').bytes);
  assert.ok(oor.type === 'info-request' && oor.maskLength === 24 && oor.authentication.algorithm === 1);
  const lispers = decodeLispMessage(vector('lispers-made.info-request').bytes);
  assert.ok(lispers.type === 'info-request');
  assert.deepEqual(lispers.sender, { kind: 'name', name: 'vm1' });
});

test('records of other implementations are mappings', () => {
  const [positive] = mappingsOf(decodeLispMessage(vector('oor.map-reply').bytes));
  assert.deepEqual(positive, {
    eid: { kind: 'prefix', iid: 0, prefix: '192.168.2.0/24' },
    ttl: 600_000,
    action: 'no-action',
    generation: 0,
    locators: [{ address: '10.0.2.2', port: 4341, priority: 1, weight: 100 }],
    names: [],
    targets: [],
  });
  const [negative] = mappingsOf(decodeLispMessage(vector('lispers-made.map-reply-negative').bytes));
  assert.deepEqual(
    [negative?.action, negative?.ttl, negative?.eid, negative?.locators],
    ['natively-forward', 900_000, { kind: 'prefix', iid: 0, prefix: '10.1.0.0/16' }, []],
  );
  const scoped = register(vector('lispers-made.reg-alg1-iid1000').bytes).records[0]!;
  assert.deepEqual(recordToMapping(scoped, { port: 9999 }).eid, { kind: 'prefix', iid: 1000, prefix: '10.1.1.1/32' });
  assert.equal(recordToMapping(scoped, { port: 9999 }).locators[0]?.port, 9999);
});

test('data headers have their fields', () => {
  assert.deepEqual(decodeDataHeader(vector('oor.data.v4').bytes), { echoNonce: false, keyId: 0 });
  const { bytes } = vector('lispers.data.v4');
  assert.deepEqual(decodeDataHeader(bytes), { nonce: 0x11979a, echoNonce: false, keyId: 0 });
  assert.equal(hex(encodeDataHeader(decodeDataHeader(bytes))), hex(bytes.subarray(0, 8)));
});

interface Vector {
  readonly name: string;
  readonly hmacKey: string | null;
  readonly coverage?: 'records' | 'payload';
  readonly udpPayload: string;
}

function vectors(): (Vector & { bytes: Uint8Array })[] {
  return ['lisp-messages.json', 'lisp-golden.json'].flatMap((file) =>
    (JSON.parse(readFileSync(join(PROJECT_ROOT, 'test/vectors', file), 'utf8')) as Vector[]).map((entry) => ({
      ...entry,
      bytes: Uint8Array.from(Buffer.from(entry.udpPayload, 'hex')),
    })),
  );
}

function controlVectors(): (Vector & { bytes: Uint8Array })[] {
  return vectors().filter(({ name }) => !name.includes('.data.'));
}

function vector(name: string): Vector & { bytes: Uint8Array } {
  const found = vectors().find((entry) => entry.name === name);
  assert.ok(found, name);
  return found;
}

function register(bytes: Uint8Array): Extract<LispMessage, { type: 'map-register' }> {
  const message = decodeLispMessage(bytes);
  assert.ok(message.type === 'map-register');
  return message;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Inner headers of ECMs differ in identification and checksum. */
const NOT_CANONICAL = new Set([
  'oor.ecm.map-request',
  'oor.ecm.map-register.rtr',
  'lispers.ecm.map-request',
  'lispers-made.ecm-map-request',
]);
