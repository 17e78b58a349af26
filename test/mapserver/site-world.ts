/** Routers of a site, as the map server's core hears them over UDP. */
import assert from 'node:assert/strict';
import type { UdpPeer } from '../../mapserver/core/lisp/udp-peer.ts';
import type { SiteAlgorithm } from '../../mapserver/core/records.ts';
import { type IpPrefix, parseIpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, type InstanceId, parseEid } from '../../proto/eid.ts';
import { xtrIdFromBytes } from '../../proto/identity.ts';
import { ipLispAddress, type LispAddress } from '../../proto/lisp/afi.ts';
import { type SigningOptions, signMessage, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../proto/lisp/authentication-data.ts';
import type { EidRecord, RlocRecord } from '../../proto/lisp/eid-record.ts';
import { nonce } from '../../proto/lisp/header.ts';
import type { MapNotify } from '../../proto/lisp/map-notify.ts';
import { MAP_REGISTER, type MapRegister } from '../../proto/lisp/map-register.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { CoreWorld } from './core-world.ts';

export const SECRET = 'a secret of the site';

export interface SiteOptions {
  readonly within?: readonly string[];
  readonly prefixes?: readonly string[];
  readonly iid?: number;
  readonly algorithm?: SiteAlgorithm;
  readonly secret?: string;
  readonly allowSha1?: boolean;
  readonly legacyReplay?: boolean;
}

export function addSite(world: CoreWorld, name: string, options: SiteOptions = {}): void {
  const { within = [], prefixes = [], iid = DEFAULT_INSTANCE, algorithm = 2, secret = SECRET } = options;
  const result = world.operate({
    kind: 'add-site',
    name,
    iid: iid as InstanceId,
    prefixes: [
      ...within.map((prefix) => ({ prefix: prefix as IpPrefix, moreSpecifics: true })),
      ...prefixes.map((prefix) => ({ prefix: prefix as IpPrefix, moreSpecifics: false })),
    ],
    keys: [{ keyId: 0, algorithm, secret: base64(secret) }],
    allowSha1: options.allowSha1 ?? false,
    legacyReplay: options.legacyReplay ?? false,
  });
  assert.ok(result.ok, JSON.stringify(result));
}

export function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

export interface RegisterOptions {
  readonly nonce?: bigint;
  readonly ttl?: number;
  readonly rlocs?: readonly (LispAddress | string)[];
  readonly flags?: Partial<MapRegister>;
}

export class SiteXtr {
  readonly world: CoreWorld;
  peer: UdpPeer;
  xtrId: XtrId | undefined;
  signing: SigningOptions = { keyId: 0, algorithm: 2, psk: Buffer.from(SECRET) };
  lastNonce = 100n;

  /** `id`: of the xTR-ID; null for none. */
  constructor(world: CoreWorld, address: string, id: number | null = 1, port = 4342) {
    this.world = world;
    this.peer = { address: parseIpAddress(address), port, socket: 0 };
    this.xtrId = id === null ? undefined : xtrIdOf(id);
  }

  /** What became of it. */
  register(eids: string | readonly string[], options: RegisterOptions = {}): string {
    return this.send(this.signed(eids, options));
  }

  send(bytes: Uint8Array): string {
    const before = this.world.events.length;
    this.world.receive(this.peer, bytes);
    const event = this.world.events.slice(before).find(({ kind }) => kind === 'lisp-received');
    return event?.kind === 'lisp-received' ? event.result : 'nothing';
  }

  signed(eids: string | readonly string[], options: RegisterOptions = {}): Uint8Array {
    const { rlocs = [this.peer.address], ttl = 5 } = options;
    const message: MapRegister = {
      ...MAP_REGISTER,
      nonce: nonce(options.nonce ?? ++this.lastNonce),
      authentication: NO_AUTHENTICATION,
      records: [eids].flat().map((eid) => eidRecord(eid, ttl, rlocs.map(rlocRecord))),
      ...(this.xtrId === undefined ? {} : { xtrId: this.xtrId, siteId: 0n }),
      ...options.flags,
    };
    return signMessage(message, this.signing);
  }

  /** Map-Notifies to it since the last call, all of which are authentic. */
  notifies(): MapNotify[] {
    return this.heard().map(({ message }) => message);
  }

  heard(): { readonly message: MapNotify; readonly bytes: Uint8Array }[] {
    const { datagrams } = this.world;
    const mine = datagrams.filter(({ to }) => to.address === this.peer.address);
    datagrams.splice(0, datagrams.length, ...datagrams.filter((each) => !mine.includes(each)));
    return mine.flatMap(({ message, bytes }) => {
      if (message.type !== 'map-notify') return [];
      assert.ok(verifyAuthentication(bytes, this.signing.psk).ok, 'the Map-Notify is authentic');
      return [{ message, bytes }];
    });
  }

  ack(notify: MapNotify): string {
    return this.send(signMessage({ ...notify, type: 'map-notify-ack' }, this.signing));
  }
}

export function xtrIdOf(id: number): XtrId {
  return xtrIdFromBytes(new Uint8Array(16).fill(id));
}

/** `10.50.1.0/24 = 192.0.2.1 192.0.2.2` for each record. */
export function recordsText(notify: MapNotify | undefined): string[] {
  return (notify?.records ?? []).map(({ eid, maskLength, locators, ttl }) => {
    const inner = eid.kind === 'instance-id' ? eid.address : eid;
    const address = inner.kind === 'ip' ? inner.address : inner.kind;
    const where = locators.map(({ locator }) => (locator.kind === 'ip' ? locator.address : locator.kind)).join(' ');
    return `${address}/${maskLength} = ${ttl === 0 ? 'withdrawn' : where}`;
  });
}

function eidRecord(text: string, ttl: number, locators: readonly RlocRecord[]): EidRecord {
  const [, iid = '0', plain = text] = /^\[(\d+)\](.*)$/.exec(text) ?? [];
  const key = eidToRecordKey(parseEid(plain, Number(iid) as InstanceId));
  return { ...key, ttl, action: 0, authoritative: true, mapVersion: 0, locators };
}

function rlocRecord(locator: LispAddress | string): RlocRecord {
  const address = typeof locator === 'string' ? ipLispAddress(parseIpAddress(locator)) : locator;
  const multicast = { multicastPriority: 255, multicastWeight: 0 };
  return { priority: 1, weight: 100, ...multicast, local: true, probed: false, reachable: true, locator: address };
}
