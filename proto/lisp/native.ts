/**
 * The messages that agents and map servers of Stayput exchange, as docs/control-protocol.md uses them.
 *
 * The transport authenticates, so messages carry no authentication of their own.
 */
import type { IpAddress } from '../address.ts';
import { Writer } from '../bytes.ts';
import type { Eid } from '../eid.ts';
import { DecodeError } from '../errors.ts';
import type { MapAction, Mapping, XtrId } from '../mapping.ts';
import type { Millis } from '../time.ts';
import { ipLispAddress, NO_ADDRESS } from './afi.ts';
import { NO_AUTHENTICATION } from './authentication-data.ts';
import { encodeEidRecord } from './eid-record.ts';
import type { Nonce } from './header.ts';
import { encodeMapNotifyOf, type MapNotify, type MapNotifyAck } from './map-notify.ts';
import { MAP_REGISTER, type MapRegister } from './map-register.ts';
import type { MapReply } from './map-reply.ts';
import { MAP_REQUEST, type MapRequest } from './map-request.ts';
import { eidToRecordKey, mappingToRecord, recordKeyToEid, recordToMapping } from './mapping-record.ts';
import type { LispMessage } from './message.ts';

/** Agent: registers, refreshes or (TTL 0) gives up. At most 255 mappings. */
export function mapRegister(options: { nonce: Nonce; xtrId: XtrId; mappings: readonly Mapping[] }): MapRegister {
  return {
    ...MAP_REGISTER,
    useTtl: true,
    nonce: options.nonce,
    authentication: NO_AUTHENTICATION,
    records: options.mappings.map(mappingToRecord),
    xtrId: options.xtrId,
    siteId: NO_SITE,
  };
}

/** Map server: answers a registration or subscription, or publishes. At most 255 mappings. */
export function mapNotify(options: { nonce: Nonce; xtrId?: XtrId; mappings: readonly Mapping[] }): MapNotify {
  return {
    type: 'map-notify',
    nonce: options.nonce,
    authentication: NO_AUTHENTICATION,
    records: options.mappings.map(mappingToRecord),
    ...(options.xtrId === undefined ? {} : { xtrId: options.xtrId, siteId: NO_SITE }),
  };
}

/** One of the records of `encodedNotify`. @throws EncodeError when the mapping has targets without a name as EID */
export function encodedMapping(mapping: Mapping): Uint8Array {
  const writer = new Writer();
  encodeEidRecord(mappingToRecord(mapping), writer);
  return writer.finish();
}

/** As `mapNotify` encoded, for who sees by their size how many mappings one message takes, and encodes each once. */
export function encodedNotify(options: { nonce: Nonce; xtrId: XtrId; mappings: readonly Uint8Array[] }): Uint8Array {
  const { nonce, xtrId, mappings } = options;
  const around = { type: 'map-notify', nonce, authentication: NO_AUTHENTICATION, xtrId, siteId: NO_SITE } as const;
  return encodeMapNotifyOf(around, mappings);
}

/** Agent: confirms a publication. */
export function mapNotifyAck(nonce: Nonce): MapNotifyAck {
  return { type: 'map-notify-ack', nonce, authentication: NO_AUTHENTICATION, records: [] };
}

/** Agent: asks for a mapping and its changes, or for no more changes. */
export function subscribeRequest(options: {
  nonce: Nonce;
  xtrId: XtrId;
  eid: Eid;
  itr: IpAddress;
  subscribe: boolean;
}): MapRequest {
  return {
    ...request(options.nonce, options.eid, true),
    itrRlocs: [options.subscribe ? ipLispAddress(options.itr) : NO_ADDRESS],
    xtrId: options.xtrId,
    siteId: NO_SITE,
  };
}

/** Agent to agent: ask for this EID again (SMR, RFC 9301 section 6.1). */
export function solicitMapRequest(options: { nonce: Nonce; eid: Eid; itr?: IpAddress }): MapRequest {
  const itr = options.itr === undefined ? NO_ADDRESS : ipLispAddress(options.itr);
  return { ...request(options.nonce, options.eid, false), smr: true, itrRlocs: [itr] };
}

/** Agent: asks for a mapping once. */
export function lookupRequest(options: { nonce: Nonce; eid: Eid; itr: IpAddress; xtrId?: XtrId }): MapRequest {
  return {
    ...request(options.nonce, options.eid, false),
    itrRlocs: [ipLispAddress(options.itr)],
    ...(options.xtrId === undefined ? {} : { xtrId: options.xtrId, siteId: NO_SITE }),
  };
}

/** Map server: there is no mapping. */
export function negativeReply(options: { nonce: Nonce; eid: Eid; action: MapAction; ttl: Millis }): MapReply {
  return mapReply({ nonce: options.nonce, mappings: [negativeMapping(options)] });
}

/** Map server: answers a look-up. */
export function mapReply(options: { nonce: Nonce; mappings: readonly Mapping[] }): MapReply {
  return {
    type: 'map-reply',
    probe: false,
    echoNonce: false,
    nonce: options.nonce,
    records: options.mappings.map(mappingToRecord),
  };
}

export function negativeMapping(options: { eid: Eid; action: MapAction; ttl: Millis }): Mapping {
  const { eid, action, ttl } = options;
  return { eid, ttl, action, generation: 0 as Mapping['generation'], locators: [], names: [], targets: [] };
}

/** The mappings of a message, in its order; none for messages without EID-records. @throws DecodeError */
export function mappingsOf(message: LispMessage): Mapping[] {
  switch (message.type) {
    case 'map-register':
    case 'map-notify':
    case 'map-notify-ack':
    case 'map-reply':
      return message.records.map((record) => recordToMapping(record));
    case 'map-request':
    case 'encapsulated-control':
    case 'info-request':
    case 'info-reply':
    case 'map-referral':
    case 'shared-extension':
      return [];
    default:
      return noneOf(message);
  }
}

/** What a Map-Request asks for; `lookup` is once, without a subscription. */
export interface MappingQuery {
  readonly eid: Eid;
  readonly intent: 'lookup' | 'subscribe' | 'unsubscribe';
}

/** One per record. @throws DecodeError for what is not an EID, or a subscription without an xTR-ID */
export function queriesOf(message: MapRequest): MappingQuery[] {
  const [itr] = message.itrRlocs;
  const ends = message.itrRlocs.length === 1 && itr?.kind === 'none';
  return message.records.map((record): MappingQuery => {
    const eid = recordKeyToEid(record.eid, record.maskLength);
    if (!record.notify) return { eid, intent: 'lookup' };
    if (message.xtrId === undefined) throw new DecodeError('xTR-ID', 0, 'a subscription needs one');
    return { eid, intent: ends ? 'unsubscribe' : 'subscribe' };
  });
}

function request(nonce: Nonce, eid: Eid, notify: boolean): Omit<MapRequest, 'itrRlocs'> {
  return {
    ...MAP_REQUEST,
    nonce,
    sourceEid: NO_ADDRESS,
    records: [{ notify, ...eidToRecordKey(eid) }],
  };
}

function noneOf(_message: never): Mapping[] {
  return [];
}

const NO_SITE = 0n;
