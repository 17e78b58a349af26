/** Generators of everything that has a LISP encoding, for property tests. */
import fc from 'fast-check';
import { type IpAddress, type IpPrefix, ipFromBytes, ipPrefix } from '../../proto/address.ts';
import type { RecordSets } from '../../proto/dns/record-sets.ts';
import { type Eid, instanceId, nameEid, prefixEid } from '../../proto/eid.ts';
import { tunnelKeyFromBytes, xtrIdFromBytes } from '../../proto/identity.ts';
import type { LispAddress } from '../../proto/lisp/afi.ts';
import type { EidRecord, RlocRecord } from '../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import { ENCAPSULATIONS } from '../../proto/lisp/lcaf/qualified-address.ts';
import type { NatAddress } from '../../proto/lisp/lcaf.ts';
import { MAP_ACTIONS } from '../../proto/lisp/mapping-record.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { EcmSecurity, EidAuthorization } from '../../proto/lisp/security-data.ts';
import type { Generation, Locator, Mapping, TunnelKey, XtrId } from '../../proto/mapping.ts';

export const ipv4: fc.Arbitrary<IpAddress> = octets(4, 4).map(ipFromBytes);
export const ipv6: fc.Arbitrary<IpAddress> = fc
  .oneof(
    octets(16, 16),
    fc
      .array(fc.constantFrom(0, 0, 0, 1, 0x10, 0xff00), { minLength: 8, maxLength: 8 })
      .map((groups) => Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]))),
  )
  .map(ipFromBytes);
export const ip: fc.Arbitrary<IpAddress> = fc.oneof(ipv4, ipv6);

export const prefix: fc.Arbitrary<IpPrefix> = fc.oneof(
  fc.tuple(ipv4, fc.nat(32)).map(([address, length]) => ipPrefix(address, length)),
  fc.tuple(ipv6, fc.nat(128)).map(([address, length]) => ipPrefix(address, length)),
);

export const anyNonce: fc.Arbitrary<Nonce> = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(nonce);
export const xtrId: fc.Arbitrary<XtrId> = octets(16, 16).map(xtrIdFromBytes);
export const tunnelKey: fc.Arbitrary<TunnelKey> = octets(32, 32).map(tunnelKeyFromBytes);

const asciiName = fc.string({
  unit: fc.integer({ min: 1, max: 0x7f }).map((c) => String.fromCharCode(c)),
  maxLength: 40,
});

const nat: fc.Arbitrary<NatAddress> = plain({
  kind: fc.constant('nat' as const),
  msPort: u16(),
  etrPort: u16(),
  globalEtr: fc.oneof(ipAddress(), fc.constant({ kind: 'none' as const })),
  ms: ipAddress(),
  privateEtr: ipAddress(),
  rtrs: fc.array(ipAddress(), { maxLength: 3 }),
});

const portRange = plain({ from: u16(), to: u16() });
const angle = plain({ positive: fc.boolean(), degrees: fc.nat(0x7fff), minutes: u8(), seconds: u8() });

/** LCAFs nest at most 8 deep. */
export const lispAddress: fc.Arbitrary<LispAddress> = fc.letrec<{ address: LispAddress }>((tie) => ({
  address: fc.oneof(
    { maxDepth: 8, depthIdentifier: 'lcaf', depthSize: 'small' },
    ipAddress(),
    fc.constant({ kind: 'none' as const }),
    plain({
      kind: fc.constant('mac' as const),
      mac: octets(6, 6).map((bytes) => Array.from(bytes, (octet) => octet.toString(16).padStart(2, '0')).join(':')),
    }),
    plain({ kind: fc.constant('name' as const), name: asciiName }),
    nat,
    plain({ kind: fc.constant('vendor' as const), oui: fc.nat(0xffffff), data: octets(0, 40) }),
    plain({
      kind: fc.constant('lcaf' as const),
      type: fc.constantFrom(6, 17, 99, 254),
      flags: u8(),
      rsvd2: u8(),
      body: octets(0, 40),
    }),
    plain({
      kind: fc.constant('afi-list' as const),
      addresses: fc.array(tie('address'), { maxLength: 3, depthIdentifier: 'lcaf' }),
    }),
    plain({
      kind: fc.constant('instance-id' as const),
      iid: u32(),
      iidMaskLength: u8(),
      address: tie('address'),
    }),
    plain({ kind: fc.constant('null-body' as const) }),
    plain({ kind: fc.constant('as-number' as const), asNumber: u32(), address: tie('address') }),
    plain({
      kind: fc.constant('application' as const),
      trafficClass: fc.nat(0xffffff),
      protocol: u8(),
      localPorts: portRange,
      remotePorts: portRange,
      address: tie('address'),
    }),
    plain({
      kind: fc.constant('geo' as const),
      latitude: angle,
      longitude: angle,
      altitude: fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 2 })),
      address: tie('address'),
    }),
    plain({ kind: fc.constant('nonce-locator' as const), nonce: fc.nat(0xffffff), address: tie('address') }),
    plain({
      kind: fc.constant('multicast' as const),
      iid: u32(),
      ...flags('rendezvousPoint', 'leave', 'join'),
      sourceMaskLength: u8(),
      groupMaskLength: u8(),
      source: tie('address'),
      group: tie('address'),
    }),
    plain({
      kind: fc.constant('explicit-path' as const),
      hops: fc.array(plain({ ...flags('lookup', 'probe', 'strict'), address: tie('address') }), {
        maxLength: 3,
        depthIdentifier: 'lcaf',
      }),
    }),
    plain({
      kind: fc.constant('source-destination' as const),
      sourceMaskLength: u8(),
      destinationMaskLength: u8(),
      source: tie('address'),
      destination: tie('address'),
    }),
    plain({
      kind: fc.constant('replication-list' as const),
      entries: fc.array(plain({ level: u8(), address: tie('address') }), { maxLength: 3, depthIdentifier: 'lcaf' }),
    }),
    plain({
      kind: fc.constant('json' as const),
      binary: fc.boolean(),
      json: octets(0, 40),
      address: tie('address'),
    }),
    plain({ kind: fc.constant('key-value' as const), key: tie('address'), value: tie('address') }),
    plain({
      kind: fc.constant('encapsulation' as const),
      formats: fc.subarray([...ENCAPSULATIONS]),
      address: tie('address'),
    }),
    plain({
      kind: fc.constant('security-key' as const),
      algorithm: u8(),
      revoked: fc.boolean(),
      keys: fc.array(octets(0, 40), { maxLength: 3 }),
      address: tie('address'),
    }),
  ),
})).address;

const rlocRecord: fc.Arbitrary<RlocRecord> = plain({
  priority: u8(),
  weight: u8(),
  multicastPriority: u8(),
  multicastWeight: u8(),
  ...flags('local', 'probed', 'reachable'),
  locator: lispAddress,
});

export const eidRecord: fc.Arbitrary<EidRecord> = plain({
  ttl: u32(),
  eid: lispAddress,
  maskLength: u8(),
  action: fc.nat(7),
  authoritative: fc.boolean(),
  mapVersion: fc.nat(0xfff),
  locators: fc.array(rlocRecord, { maxLength: 4 }),
});

const records = fc.array(eidRecord, { maxLength: 3 });
const authentication = plain({ keyId: u8(), algorithm: u8(), data: octets(0, 40) });
const withSiteId = fc.oneof(fc.constant({}), plain({ xtrId, siteId: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) }));
const msRtr = plain({ keyId: u16(), data: octets(0, 32) });
const xtrTrailer = fc.oneof(
  fc.constant({}),
  plain({ xtrId }),
  plain({ xtrId, siteId: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) }),
);

const mapRequest: fc.Arbitrary<LispMessage> = fc
  .tuple(
    plain({
      type: fc.constant('map-request' as const),
      ...flags('authoritative', 'probe', 'smr', 'pitr', 'smrInvoked', 'mobileNode', 'localXtr', 'dontReply'),
      nonce: anyNonce,
      sourceEid: lispAddress,
      itrRlocs: fc.array(lispAddress, { minLength: 1, maxLength: 32 }),
      records: fc.array(plain({ notify: fc.boolean(), maskLength: u8(), eid: lispAddress }), { maxLength: 4 }),
    }),
    fc.option(eidRecord, { nil: undefined }),
    xtrTrailer,
  )
  .map(([request, mapData, trailer]) => ({ ...request, ...(mapData === undefined ? {} : { mapData }), ...trailer }));

const hmac = plain({ algorithm: u16(), value: octets(0, 32) });
const eidAuthorization: fc.Arbitrary<EidAuthorization> = plain(
  {
    kdf: u16(),
    authorized: plain({
      unprotectedEtrs: fc.boolean(),
      prefixes: fc.array(plain({ maskLength: u8(), eid: lispAddress }), { maxLength: 3 }),
      hmac,
    }),
  },
  { requiredKeys: ['kdf'] },
);
const ecmSecurity: fc.Arbitrary<EcmSecurity> = fc.oneof(
  plain({
    kind: fc.constant('lisp-sec' as const),
    requestedHmac: u16(),
    keyId: u8(),
    wrapping: u8(),
    oneTimeKey: octets(0, 24),
    eid: eidAuthorization,
  }),
  plain({ kind: fc.constant('ms-rtr' as const), keyId: u16(), data: octets(0, 32) }),
);

const mapReply: fc.Arbitrary<LispMessage> = plain(
  {
    type: fc.constant('map-reply' as const),
    ...flags('probe', 'echoNonce'),
    nonce: anyNonce,
    records,
    security: plain({ eid: eidAuthorization, packetHmac: hmac }),
  },
  { requiredKeys: ['type', 'probe', 'echoNonce', 'nonce', 'records'] },
);

const mapRegister: fc.Arbitrary<LispMessage> = fc
  .tuple(
    plain({
      type: fc.constant('map-register' as const),
      ...flags('proxyReply', 'securityCapable', 'eidNotify', 'useTtl', 'merge', 'mobileNode', 'wantMapNotify'),
      nonce: anyNonce,
      authentication,
      records,
    }),
    xtrTrailer,
  )
  .map(([register, trailer]) => ({ ...register, ...trailer }));

const mapNotify: fc.Arbitrary<LispMessage> = fc
  .tuple(
    plain({
      type: fc.constantFrom('map-notify' as const, 'map-notify-ack' as const),
      nonce: anyNonce,
      authentication,
      records,
    }),
    fc.oneof(
      xtrTrailer,
      plain({ trailer: octets(1, 24) }),
      fc.tuple(withSiteId, msRtr).map(([trailer, authenticated]) => ({ ...trailer, msRtr: authenticated })),
    ),
  )
  .map(([notify, trailer]) => ({ ...notify, ...trailer }));

const infoBody = { nonce: anyNonce, authentication, ttl: u32(), maskLength: u8(), eid: lispAddress };
const info: fc.Arbitrary<LispMessage> = fc.oneof(
  plain({ type: fc.constant('info-request' as const), ...infoBody, sender: lispAddress }),
  plain({ type: fc.constant('info-reply' as const), ...infoBody, nat }),
);

const ecm: fc.Arbitrary<LispMessage> = fc
  .tuple(
    plain({
      type: fc.constant('encapsulated-control' as const),
      ...flags('ddt', 'toEtr', 'toMapServer', 'forRtr', 'relayed'),
      hopLimit: u8(),
      sourcePort: u16(),
      destinationPort: u16(),
      payload: octets(0, 200),
    }),
    fc.oneof(plain({ source: ipv4, destination: ipv4 }), plain({ source: ipv6, destination: ipv6 })),
    fc.oneof(fc.constant({}), plain({ security: ecmSecurity })),
  )
  .map(([message, addresses, security]) => ({ ...message, ...addresses, ...security }));

const mapReferral: fc.Arbitrary<LispMessage> = plain({
  type: fc.constant('map-referral' as const),
  nonce: anyNonce,
  records: fc.array(
    plain({
      ttl: u32(),
      eid: lispAddress,
      maskLength: u8(),
      action: fc.nat(7),
      ...flags('authoritative', 'incomplete'),
      mapVersion: fc.nat(0xfff),
      referrals: fc.array(rlocRecord, { maxLength: 3 }),
      signatures: fc.array(
        plain({
          originalTtl: u32(),
          expiration: u32(),
          inception: u32(),
          keyTag: u16(),
          algorithm: u8(),
          signature: octets(0, 40),
        }),
        { maxLength: 3 },
      ),
    }),
    { maxLength: 3 },
  ),
});

const sharedExtension: fc.Arbitrary<LispMessage> = plain({
  type: fc.constant('shared-extension' as const),
  subType: fc.nat(0xfff),
  data: octets(2, 60),
});

/** By the message's type. */
export const lispMessages = { mapRequest, mapReply, mapRegister, mapNotify, mapReferral, info, ecm, sharedExtension };
export const lispMessage: fc.Arbitrary<LispMessage> = fc.oneof(...Object.values(lispMessages));

const label = fc
  .stringMatching(/^[a-z_]([a-z0-9_-]{0,10}[a-z0-9_])?$/)
  .filter((text) => text.length > 0 && text.length < 64);
export const hostName: fc.Arbitrary<string> = fc.array(label, { minLength: 1, maxLength: 3 }).map((l) => l.join('.'));

const iid = fc.oneof(fc.constant(0), fc.nat(0xffffff)).map(instanceId);
export const prefixEids: fc.Arbitrary<Eid> = fc.tuple(iid, prefix).map(([i, p]) => prefixEid(i, p));
export const nameEids: fc.Arbitrary<Eid> = fc.tuple(iid, hostName).map(([i, name]) => nameEid(i, name));

const locator: fc.Arbitrary<Locator> = plain({
  address: ip,
  port: fc.integer({ min: 1, max: 65535 }),
  priority: u8(),
  weight: u8(),
});

const target = fc.tuple(hostName, fc.boolean()).map(([name, absolute]) => (absolute ? `${name}.` : name));
const ascii = fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)) });
const zoneRecords: fc.Arbitrary<RecordSets> = plain({
  ttl: fc.option(fc.nat(86_400)),
  cname: fc.option(target),
  srv: fc.array(plain({ priority: u16(), weight: u16(), port: u16(), target }), { maxLength: 3 }),
  txt: fc.array(ascii, { maxLength: 3 }),
  ns: fc.array(plain({ host: target, addresses: fc.array(ip, { maxLength: 2 }) }), { maxLength: 3 }),
  addresses: fc.constant([]),
  weights: fc.constant([]),
});
const withZone = fc
  .tuple(nameEids, fc.array(plain({ address: ip, weight: u8() }), { maxLength: 3 }), zoneRecords, fc.option(hostName))
  .map(([eid, targets, records, cut]) => ({
    eid,
    names: [],
    targets: targets.map(({ address }) => address),
    zone: { weights: targets.map(({ weight }) => weight), records, cut },
  }));

/** Mappings as a record can carry them: whole minutes, an action only where nothing is reached. */
export const mapping: fc.Arbitrary<Mapping> = fc
  .tuple(
    fc.oneof(
      plain({ eid: prefixEids, names: fc.array(hostName, { maxLength: 3 }), targets: fc.constant([]) }),
      plain({ eid: nameEids, names: fc.constant([]), targets: fc.array(ip, { maxLength: 3 }) }),
      withZone,
    ),
    fc.array(locator, { maxLength: 4 }),
    plain(
      {
        ttl: fc.nat(0xfffffffe).map((n) => n * 60_000),
        action: fc.constantFrom(...MAP_ACTIONS),
        generation: fc.oneof(fc.constant(0), fc.maxSafeNat()).map((n) => n as Generation),
        owner: xtrId.filter((id) => !/^0+$/.test(id)),
        tunnelKey,
      },
      { requiredKeys: ['ttl', 'action', 'generation'] },
    ),
  )
  .map(([named, locators, rest]) => ({
    ...rest,
    ...named,
    locators,
    action: locators.length + named.targets.length > 0 ? 'no-action' : rest.action,
  }));

function ipAddress(): fc.Arbitrary<LispAddress> {
  return plain({
    kind: fc.constant('ip' as const),
    address: fc.oneof(octets(4, 4), octets(16, 16)).map(ipFromBytes),
  });
}

function octets(minLength: number, maxLength: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength, maxLength }).map((bytes) => new Uint8Array(bytes));
}

function u8(): fc.Arbitrary<number> {
  return fc.nat(0xff);
}

function u16(): fc.Arbitrary<number> {
  return fc.nat(0xffff);
}

function u32(): fc.Arbitrary<number> {
  return fc.integer({ min: 0, max: 0xffffffff });
}

function flags<K extends string>(...names: K[]): Record<K, fc.Arbitrary<boolean>> {
  return Object.fromEntries(names.map((name) => [name, fc.boolean()])) as Record<K, fc.Arbitrary<boolean>>;
}

/** fc.record without null prototypes, which deepEqual tells apart. */
function plain<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T>;
function plain<T, K extends keyof T>(
  model: { [P in keyof T]: fc.Arbitrary<T[P]> },
  constraints: { requiredKeys: K[] },
): fc.Arbitrary<Partial<T> & Pick<T, K>>;
function plain<T>(
  model: { [K in keyof T]: fc.Arbitrary<T[K]> },
  constraints: { requiredKeys?: (keyof T)[] } = {},
): fc.Arbitrary<unknown> {
  return fc.record(model, { ...constraints, noNullPrototype: true } as never);
}
