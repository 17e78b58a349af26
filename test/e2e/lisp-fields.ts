/**
 * A message as we decode it, in the names and the order in which Wireshark's dissector shows it: the table that the two
 * are compared by. Where the dissector shows less than the message has, or reads it in another way, the reason is
 * noted (`skip`), or nothing behind that place is compared (`end`).
 */
import type { SetBits } from '../../cli/lisp/message-bits.ts';
import { setBits } from '../../cli/lisp/message-bits.ts';
import { Writer } from '../../proto/bytes.ts';
import { encodeAddress, type LispAddress } from '../../proto/lisp/afi.ts';
import type { Authentication } from '../../proto/lisp/authentication-data.ts';
import { decodeDataHeader } from '../../proto/lisp/data-header.ts';
import type { EidRecord, RlocRecord } from '../../proto/lisp/eid-record.ts';
import type { XtrTrailer } from '../../proto/lisp/header.ts';
import { isLcaf, type Lcaf, lcafType } from '../../proto/lisp/lcaf.ts';
import type { MapRequest } from '../../proto/lisp/map-request.ts';
import { decodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';

export type Value = number | bigint | string | Uint8Array;

export interface OurFields {
  readonly fields: readonly (readonly [name: string, value: Value])[];
  readonly differences: readonly Difference[];
  /** The last difference ends the comparison. */
  readonly ended: boolean;
}

/** Of the dissector of Wireshark 4.0. */
export type Difference = keyof typeof DIFFERENCES;

export const DIFFERENCES = {
  'types 5 and 15': 'Map-Notify-Ack and the shared extension are not dissected',
  'LCAF body': 'LCAFs of the types 4, 6, 11, 14 and 16 and of unknown ones are not dissected',
  'source EID': 'a name as source EID ends the dissection',
  'ITR-RLOC': 'ITR-RLOCs are IP addresses only, anything else ends the dissection',
  'request trailer': 'the xTR-ID of a Map-Request (RFC 9437) is not dissected',
  'short trailer': 'a trailer without site ID is taken for a damaged one',
  'unannounced trailer': 'what follows the records of a Map-Notify without the I flag is not dissected',
  'LISP-SEC': 'authentication data (RFC 9303) is not dissected; in an ECM it is taken for the inner packet',
  signature: 'signatures of Map-Referrals are not dissected',
  'Info address': 'the EID of an Info message is shown when it is an IP address, and a sender never',
  'list item': 'an AFI list with an empty item ends the dissection',
  'LCAF address': 'inside this LCAF only some kinds of addresses are shown',
  'LCAF address length': 'inside this LCAF the dissector does not know how long such an address is',
  altitude: 'is a text of the dissector, not a value',
  'last RTR': 'the number of RTRs is counted four octets short, so an empty one at the end is not seen',
  'echo-nonce without nonce': 'E is shown also where it means nothing',
  'map-versions with nonce': 'V is shown also where the field is a nonce',
} as const;

class Ended extends Error {}

/** Of a control message (UDP 4342). */
export function fieldsOfMessage(bytes: Uint8Array): OurFields {
  return collected((to) => message(decodeLispMessage(bytes), setBits(bytes), to));
}

/** Of the LISP header of a data packet (UDP 4341). */
export function fieldsOfDataHeader(bytes: Uint8Array): OurFields {
  return collected((to) => {
    const { nonce, echoNonce, mapVersions, instanceId, locatorStatusBits, keyId } = decodeDataHeader(bytes);
    to.flag('lisp-data.flags.nonce', nonce !== undefined);
    to.flag('lisp-data.flags.lsb', locatorStatusBits !== undefined);
    const flags = bytes[0] ?? 0;
    if (nonce === undefined && (flags & 0x20) !== 0) to.skip('echo-nonce without nonce');
    to.flag('lisp-data.flags.enr', echoNonce || (flags & 0x20) !== 0);
    if (nonce !== undefined && (flags & 0x10) !== 0) to.skip('map-versions with nonce');
    to.flag('lisp-data.flags.mv', mapVersions !== undefined || (flags & 0x10) !== 0);
    to.flag('lisp-data.flags.iid', instanceId !== undefined);
    // The dissector has these three bits as reserved; the first of them is.
    to.put('lisp-data.flags.res', keyId | (flags & 4));
    if (nonce !== undefined) to.put('lisp-data.nonce', nonce);
    if (mapVersions !== undefined) {
      to.put('lisp-data.srcmapver', mapVersions.source);
      to.put('lisp-data.dstmapver', mapVersions.destination);
    }
    if (instanceId !== undefined) to.put('lisp-data.iid', instanceId);
    if (locatorStatusBits === undefined) return;
    to.put(instanceId === undefined ? 'lisp-data.lsb' : 'lisp-data.lsb8', locatorStatusBits);
  });
}

class Collector {
  readonly fields: (readonly [string, Value])[] = [];
  readonly differences: Difference[] = [];

  put(name: string, value: Value): void {
    this.fields.push([name.replaceAll('_', '.'), value]);
  }

  flag(name: string, value: boolean): void {
    this.put(name, value ? 1 : 0);
  }

  skip(difference: Difference): void {
    this.differences.push(difference);
  }

  end(difference: Difference): never {
    this.skip(difference);
    throw new Ended();
  }
}

function collected(collect: (to: Collector) => void): OurFields {
  const to = new Collector();
  try {
    collect(to);
    return { fields: to.fields, differences: to.differences, ended: false };
  } catch (error) {
    if (!(error instanceof Ended)) throw error;
    return { fields: to.fields, differences: to.differences, ended: true };
  }
}

function message(lisp: LispMessage, bits: SetBits, to: Collector): void {
  to.put('lisp.type', TYPES[lisp.type]);
  /** What the dissector calls reserved, by the bits that we know or know not to know; `shift` is that of its field. */
  const reserved = (name: string, mask: number, shift: number): void => {
    const word = bits.names.reduce((sum, bit) => sum | bit.mask, bits.unknown);
    to.put(name, (word & mask) >>> shift);
  };
  const hasBit = (mask: number): boolean => bits.names.some((bit) => bit.mask === mask);
  switch (lisp.type) {
    case 'map-request':
      to.flag('lisp.mreq.flags.auth', lisp.authoritative);
      to.flag('lisp.mreq.flags.mrp', lisp.mapData !== undefined);
      to.flag('lisp.mreq.flags.probe', lisp.probe);
      to.flag('lisp.mreq.flags.smr', lisp.smr);
      to.flag('lisp.mreq.flags.pitr', lisp.pitr);
      to.flag('lisp.mreq.flags.smri', lisp.smrInvoked);
      reserved('lisp.mreq.res', 0x003f_e000, 13);
      to.put('lisp.irc', lisp.itrRlocs.length - 1);
      to.put('lisp.records', lisp.records.length);
      to.put('lisp.nonce', lisp.nonce);
      request(lisp, to);
      return;
    case 'map-reply':
      to.flag('lisp.mrep.flags.probe', lisp.probe);
      to.flag('lisp.mrep.flags.enlr', lisp.echoNonce);
      to.flag('lisp.mrep.flags.sec', lisp.security !== undefined);
      reserved('lisp.mrep.res', 0x01ff_ff00, 8);
      to.put('lisp.records', lisp.records.length);
      to.put('lisp.nonce', lisp.nonce);
      for (const record of lisp.records) eidRecord(record, to);
      if (lisp.security !== undefined) to.end('LISP-SEC');
      return;
    case 'map-register':
      to.flag('lisp.mreg.flags.pmr', lisp.proxyReply);
      to.flag('lisp.mreg.flags.sec', lisp.securityCapable);
      to.flag('lisp.mreg.flags.xtrid', lisp.xtrId !== undefined);
      to.flag('lisp.mreg.flags.rtr', hasBit(0x0100_0000));
      reserved('lisp.mreg.res', 0x00ff_fe00, 9);
      to.flag('lisp.mreg.flags.wmn', lisp.wantMapNotify);
      to.put('lisp.records', lisp.records.length);
      to.put('lisp.nonce', lisp.nonce);
      authentication(lisp.authentication, to);
      for (const record of lisp.records) eidRecord(record, to);
      trailer(lisp, to);
      return;
    case 'map-notify':
      to.flag('lisp.mnot.flags.xtrid', lisp.xtrId !== undefined);
      to.flag('lisp.mnot.flags.rtr', lisp.msRtr !== undefined);
      reserved('lisp.mnot.res', 0x03ff_ff00, 8);
      to.put('lisp.records', lisp.records.length);
      to.put('lisp.nonce', lisp.nonce);
      authentication(lisp.authentication, to);
      for (const record of lisp.records) eidRecord(record, to);
      trailer(lisp, to);
      if (lisp.msRtr !== undefined) {
        to.put('lisp.msrtr.keyid', lisp.msRtr.keyId);
        to.put('lisp.msrtr.authlen', lisp.msRtr.data.length);
        to.put('lisp.msrtr.auth', lisp.msRtr.data);
      }
      if (lisp.trailer !== undefined) to.end('unannounced trailer');
      return;
    case 'map-referral':
      reserved('lisp.mref.res', 0x0fff_ff00, 8);
      to.put('lisp.records', lisp.records.length);
      to.put('lisp.nonce', lisp.nonce);
      for (const { referrals, signatures, incomplete, ...record } of lisp.records) {
        eidRecord({ ...record, locators: referrals }, to, { incomplete, signatures: signatures.length });
        if (signatures.length > 0) to.end('signature');
      }
      return;
    case 'info-request':
    case 'info-reply':
      to.flag('lisp.info.r', lisp.type === 'info-reply');
      reserved('lisp.info.res1', 0x07ff_ffff, 0);
      to.put('lisp.nonce', lisp.nonce);
      authentication(lisp.authentication, to);
      to.put('lisp.info.ttl', lisp.ttl);
      to.put('lisp.info.res2', 0);
      to.put('lisp.info.prefix.masklen', lisp.maskLength);
      to.put('lisp.info.prefix.afi', afi(lisp.eid));
      address(lisp.eid, 'lisp.info.prefix', ['ip', 'none'], 'Info address', to);
      if (lisp.type === 'info-reply') {
        to.put('lisp.info.afi', afi(lisp.nat));
        lcaf(lisp.nat, to);
        return;
      }
      to.put('lisp.info.afi', afi(lisp.sender));
      if (lisp.sender.kind !== 'none') to.end('Info address');
      return;
    case 'encapsulated-control':
      to.flag('lisp.ecm.flags.sec', lisp.security !== undefined);
      to.flag('lisp.ecm.flags.ddt', lisp.ddt);
      reserved('lisp.ecm.res', 0x03ff_ffff, 0);
      if (lisp.security !== undefined) to.end('LISP-SEC');
      to.put(lisp.source.includes(':') ? 'ipv6.hlim' : 'ip.ttl', lisp.hopLimit);
      to.put(lisp.source.includes(':') ? 'ipv6.src' : 'ip.src', lisp.source);
      to.put(lisp.source.includes(':') ? 'ipv6.dst' : 'ip.dst', lisp.destination);
      to.put('udp.srcport', lisp.sourcePort);
      to.put('udp.dstport', lisp.destinationPort);
      message(decodeLispMessage(lisp.payload), setBits(lisp.payload), to);
      return;
    case 'map-notify-ack':
    case 'shared-extension':
      to.end('types 5 and 15');
      break;
    default:
      lisp satisfies never;
  }
}

function request({ sourceEid, itrRlocs, records, mapData, xtrId }: MapRequest, to: Collector): void {
  to.put('lisp.mreq.srceid.afi', afi(sourceEid));
  if (sourceEid.kind === 'none') to.put('lisp.mreq.srceid.string', 'not set');
  if (sourceEid.kind === 'name') to.end('source EID');
  address(sourceEid, 'lisp.mreq.srceid', ['none', 'ip', 'mac', 'lcaf'], 'source EID', to);
  for (const rloc of itrRlocs) {
    to.put('lisp.mreq.itr_rloc.afi', afi(rloc));
    if (rloc.kind !== 'ip') to.end('ITR-RLOC');
    address(rloc, 'lisp.mreq.itr_rloc', ['ip'], 'ITR-RLOC', to);
  }
  for (const { notify, maskLength, eid } of records) {
    to.put('lisp.mreq.record.res', notify ? 0x80 : 0);
    to.put('lisp.mreq.record.prefix.length', maskLength);
    to.put('lisp.mreq.record.prefix.afi', afi(eid));
    address(eid, 'lisp.mreq.record.prefix', ALL, 'LCAF address', to);
  }
  if (mapData !== undefined) eidRecord(mapData, to);
  if (xtrId !== undefined) to.end('request trailer');
}

function authentication({ keyId, algorithm, data }: Authentication, to: Collector): void {
  to.put('lisp.keyid', keyId * 256 + algorithm);
  to.put('lisp.authlen', data.length);
  to.put('lisp.auth', data);
}

function trailer({ xtrId, siteId }: XtrTrailer, to: Collector): void {
  if (xtrId === undefined) return;
  if (siteId === undefined) to.end('short trailer');
  to.put('lisp.xtrid', Buffer.from(xtrId, 'hex'));
  to.put('lisp.siteid', Buffer.from(siteId.toString(16).padStart(16, '0'), 'hex'));
}

function eidRecord(
  record: EidRecord,
  to: Collector,
  referral?: { readonly incomplete: boolean; readonly signatures: number },
): void {
  to.put('lisp.mapping.ttl', record.ttl);
  to.put('lisp.mapping.loccnt', record.locators.length);
  to.put('lisp.mapping.eid.masklen', record.maskLength);
  to.put('lisp.mapping.act', record.action);
  to.flag('lisp.mapping.auth', record.authoritative);
  if (referral !== undefined) to.flag('lisp.referral.incomplete', referral.incomplete);
  if (referral !== undefined) to.put('lisp.referral.sigcnt', referral.signatures);
  to.put('lisp.mapping.ver', record.mapVersion);
  to.put('lisp.mapping.eid.afi', afi(record.eid));
  address(record.eid, 'lisp.mapping.eid', ALL, 'LCAF address', to);
  for (const rloc of record.locators) rlocRecord(rloc, to);
}

function rlocRecord(rloc: RlocRecord, to: Collector): void {
  to.put('lisp.loc.priority', rloc.priority);
  to.put('lisp.loc.weight', rloc.weight);
  to.put('lisp.loc.multicast_priority', rloc.multicastPriority);
  to.put('lisp.loc.multicast_weight', rloc.multicastWeight);
  to.flag('lisp.loc.flags.local', rloc.local);
  to.flag('lisp.loc.flags.probe', rloc.probed);
  to.flag('lisp.loc.flags.reach', rloc.reachable);
  const { locator } = rloc;
  to.put('lisp.loc.afi', afi(locator));
  if (isLcaf(locator)) lcaf(locator, to);
  else to.put('lisp.loc.locator', plainText(locator));
}

type Kind = 'none' | 'ip' | 'mac' | 'name' | 'lcaf';

/** The address in the field for its kind, if the dissector shows `kinds` there and knows the length of the others. */
function address(of: LispAddress, field: string, kinds: readonly Kind[], difference: Difference, to: Collector): void {
  const kind: Kind = isLcaf(of) ? 'lcaf' : of.kind;
  if (!kinds.includes(kind)) to.skip(difference);
  else if (isLcaf(of)) lcaf(of, to);
  else if (of.kind === 'ip') to.put(`${field}.${of.address.includes(':') ? 'ipv6' : 'ipv4'}`, of.address);
  else if (of.kind === 'mac') to.put(`${field}.mac`, of.mac);
  else if (of.kind === 'name') to.put(`${field}.dn`, of.name);
}

/** As `address`, after its AFI. `others` says whether the dissector gets over the kinds that it does not show. */
function inner(of: LispAddress, field: string, kinds: readonly Kind[], others: 'skip' | 'end', to: Collector): void {
  to.put(`${field}.afi`, afi(of));
  const kind: Kind = isLcaf(of) ? 'lcaf' : of.kind;
  if (others === 'end' && !kinds.includes(kind)) to.end('LCAF address length');
  address(of, field, kinds, 'LCAF address', to);
}

function lcaf(of: Lcaf, to: Collector): void {
  to.put('lisp.lcaf.res1', 0);
  to.put('lisp.lcaf.flags', of.kind === 'lcaf' ? of.flags : 0);
  to.put('lisp.lcaf.type', lcafType(of));
  if (of.kind === 'multicast') {
    to.flag('lisp.lcaf.mcinfo.flags.rp', of.rendezvousPoint);
    to.flag('lisp.lcaf.mcinfo.flags.leave', of.leave);
    to.flag('lisp.lcaf.mcinfo.flags.join', of.join);
  } else {
    to.put('lisp.lcaf.res2', rsvd2(of));
  }
  to.put('lisp.lcaf.length', octets(of).length - 8);
  switch (of.kind) {
    case 'null-body':
      return;
    case 'afi-list':
      for (const item of of.addresses) {
        to.put('lisp.lcaf.afi_list.afi', afi(item));
        if (item.kind === 'none') to.end('list item');
        address(item, 'lisp.lcaf.afi_list', ALL, 'LCAF address', to);
      }
      return;
    case 'instance-id':
      to.put('lisp.lcaf.iid', of.iid);
      inner(of.address, 'lisp.lcaf.iid', ALL, 'skip', to);
      return;
    case 'as-number':
      to.put('lisp.lcaf.asn', of.asNumber);
      inner(of.address, 'lisp.lcaf.asn', ALL, 'skip', to);
      return;
    case 'geo':
      for (const [name, angle] of [
        ['lat', of.latitude],
        ['lon', of.longitude],
      ] as const) {
        to.flag(`lisp.lcaf.geo.${name}.hemisphere`, angle.positive);
        to.put(`lisp.lcaf.geo.${name}.deg`, angle.degrees);
        to.put(`lisp.lcaf.geo.${name}.min`, angle.minutes);
        to.put(`lisp.lcaf.geo.${name}.sec`, angle.seconds);
      }
      to.skip('altitude');
      inner(of.address, 'lisp.lcaf.geo', ALL, 'skip', to);
      return;
    case 'nat': {
      to.put('lisp.lcaf.natt.msport', of.msPort);
      to.put('lisp.lcaf.natt.etrport', of.etrPort);
      const all = [of.globalEtr, of.ms, of.privateEtr, ...of.rtrs];
      let remaining = octets(of).length - 16;
      for (const [i, each] of all.entries()) {
        if (i >= 3 && remaining <= 0) {
          to.skip('last RTR');
          return;
        }
        inner(each, 'lisp.lcaf.natt.rloc', ['none', 'ip', 'lcaf'], 'skip', to);
        remaining -= octets(each).length;
      }
      return;
    }
    case 'nonce-locator':
      to.put('lisp.lcaf.nonce_loc.res', 0);
      to.put('lisp.lcaf.nonce_loc', of.nonce);
      inner(of.address, 'lisp.lcaf.nonce_loc', ALL, 'skip', to);
      return;
    case 'multicast':
      to.put('lisp.lcaf.mcinfo_iid', of.iid);
      to.put('lisp.lcaf.mcinfo.src.masklen', of.sourceMaskLength);
      to.put('lisp.lcaf.mcinfo.grp.masklen', of.groupMaskLength);
      inner(of.source, 'lisp.lcaf.mcinfo.src', ['none', 'ip', 'lcaf'], 'end', to);
      inner(of.group, 'lisp.lcaf.mcinfo.grp', ['none', 'ip', 'lcaf'], 'end', to);
      return;
    case 'explicit-path':
      for (const hop of of.hops) {
        to.flag('lisp.lcaf.elp_hop.flags.local', hop.lookup);
        to.flag('lisp.lcaf.elp_hop.flags.probe', hop.probe);
        to.flag('lisp.lcaf_elp_hop.flags.strict', hop.strict);
        inner(hop.address, 'lisp.lcaf.elp_hop', ['ip', 'lcaf'], 'skip', to);
      }
      return;
    case 'source-destination':
      to.put('lisp.lcaf.srcdst.src.masklen', of.sourceMaskLength);
      to.put('lisp.lcaf.srcdst.dst.masklen', of.destinationMaskLength);
      inner(of.source, 'lisp.lcaf.srcdst.src', ['none', 'ip', 'mac', 'lcaf'], 'end', to);
      inner(of.destination, 'lisp.lcaf.srcdst.dst', ['none', 'ip', 'mac', 'lcaf'], 'end', to);
      return;
    case 'replication-list':
      for (const entry of of.entries) {
        to.put('lisp.lcaf.rle_entry.level', entry.level);
        inner(entry.address, 'lisp.lcaf.rle_entry', ['ip', 'lcaf'], 'skip', to);
      }
      return;
    case 'key-value':
      inner(of.key, 'lisp.lcaf.kv_key', ALL, 'skip', to);
      inner(of.value, 'lisp.lcaf.kv_value', ALL, 'skip', to);
      return;
    case 'vendor':
      to.put('lisp.lcaf.vendor.oui', of.oui);
      to.put('lisp.lcaf.vendor.data', of.data);
      return;
    case 'application':
    case 'security-key':
    case 'json':
    case 'encapsulation':
    case 'lcaf':
      to.skip('LCAF body');
      return;
    default:
      of satisfies never;
  }
}

function rsvd2(of: Lcaf): number {
  if (of.kind === 'lcaf') return of.rsvd2;
  if (of.kind === 'instance-id') return of.iidMaskLength;
  return of.kind === 'json' && of.binary ? 1 : 0;
}

function afi(of: LispAddress): number {
  const bytes = octets(of);
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
}

function octets(of: LispAddress): Uint8Array {
  const writer = new Writer();
  encodeAddress(of, writer);
  return writer.finish();
}

function plainText(of: Exclude<LispAddress, Lcaf>): string {
  if (of.kind === 'none') return 'not set';
  if (of.kind === 'ip') return of.address;
  return of.kind === 'mac' ? of.mac : of.name;
}

const ALL: readonly Kind[] = ['none', 'ip', 'mac', 'name', 'lcaf'];
const TYPES: Readonly<Record<LispMessage['type'], number>> = {
  'map-request': 1,
  'map-reply': 2,
  'map-register': 3,
  'map-notify': 4,
  'map-notify-ack': 5,
  'map-referral': 6,
  'info-request': 7,
  'info-reply': 7,
  'encapsulated-control': 8,
  'shared-extension': 15,
};
