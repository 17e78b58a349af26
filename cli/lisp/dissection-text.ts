/** Dissections for people: one thing a line, what belongs to it further to the right. */

import type { Verification } from '../../proto/lisp/authentication.ts';
import type { Authentication } from '../../proto/lisp/authentication-data.ts';
import { type EidRecord, type RlocRecord, TTL_RECEIVER_DECIDES } from '../../proto/lisp/eid-record.ts';
import type { XtrTrailer } from '../../proto/lisp/header.ts';
import type { MsRtrData } from '../../proto/lisp/map-notify.ts';
import { REFERRAL_ACTIONS, type ReferralRecord } from '../../proto/lisp/map-referral.ts';
import { MAP_ACTIONS } from '../../proto/lisp/mapping-record.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { EcmSecurity, EidAuthorization, Hmac, LispSecReply } from '../../proto/lisp/security-data.ts';
import { addressItem } from './address-text.ts';
import type { ControlDissection, DataDissection, Dissection, InnerPacket, Malformed } from './dissection.ts';
import { hexNumber, type Item, item, octets, parts } from './text-tree.ts';

export function dissectionItem(dissection: Dissection): Item {
  switch (dissection.kind) {
    case 'control':
      return controlItem(dissection);
    case 'data':
      return dataItem(dissection);
    case 'malformed':
      return malformedItem(dissection);
    default:
      return dissection satisfies never;
  }
}

function controlItem({ octets: length, bits, message, verification, inner }: ControlDissection): Item {
  const names = bits.names.map(({ name, meaning }) => `${name} ${meaning}`);
  const unknown = bits.unknown === 0 ? undefined : `unknown bits ${hexNumber(bits.unknown, 8)}`;
  const flags = parts(...names, unknown);
  return item(
    `${TITLES[message.type]}, ${length} octets`,
    flags === '' ? undefined : `bits: ${flags}`,
    ...messageItems(message, verification),
    inner === undefined ? undefined : dissectionItem(inner),
  );
}

function messageItems(message: LispMessage, verification: Verification | undefined): readonly (Item | string)[] {
  switch (message.type) {
    case 'map-request':
      return [
        nonceText(message),
        addressItem('source EID', message.sourceEid),
        ...message.itrRlocs.map((rloc, i) => addressItem(`ITR-RLOC ${i + 1}`, rloc)),
        ...message.records.map(({ eid, maskLength, notify }, i) =>
          addressItem(`record ${i + 1}`, eid, maskLength, ...(notify ? ['N subscribe'] : [])),
        ),
        ...(message.mapData === undefined ? [] : [recordItem('map-data', message.mapData)]),
        ...trailerTexts(message),
      ];
    case 'map-reply':
      return [
        nonceText(message),
        ...recordItems(message.records),
        ...(message.security === undefined ? [] : [replySecurityItem(message.security)]),
      ];
    case 'map-register':
      return [
        nonceText(message),
        authenticationText(message.authentication, verification),
        ...recordItems(message.records),
        ...trailerTexts(message),
      ];
    case 'map-notify':
    case 'map-notify-ack':
      return [
        nonceText(message),
        authenticationText(message.authentication, verification),
        ...recordItems(message.records),
        ...trailerTexts(message),
        ...(message.msRtr === undefined ? [] : [msRtrText(message.msRtr)]),
        ...(message.trailer === undefined ? [] : [`trailer without the I bit ${octets(message.trailer)}`]),
      ];
    case 'map-referral':
      return [nonceText(message), ...message.records.map(referralItem)];
    case 'info-request':
    case 'info-reply': {
      const { authentication, ttl, eid, maskLength } = message;
      return [
        nonceText(message),
        authenticationText(authentication, verification),
        ttlText(ttl),
        addressItem('EID', eid, maskLength),
        message.type === 'info-reply' ? addressItem('seen', message.nat) : addressItem('sender', message.sender),
      ];
    }
    case 'encapsulated-control': {
      const { source, sourcePort, destination, destinationPort, hopLimit, security } = message;
      return [
        ...(security === undefined ? [] : [ecmSecurityItem(security)]),
        `inner ${source} port ${sourcePort} > ${destination} port ${destinationPort}, TTL ${hopLimit}`,
      ];
    }
    case 'shared-extension':
      return [`sub-type ${message.subType}`, `data ${octets(message.data)}`];
    default:
      return message satisfies never;
  }
}

function recordItems(records: readonly EidRecord[]): Item[] {
  return records.map((record, i) => recordItem(`record ${i + 1}`, record));
}

function recordItem(title: string, record: EidRecord): Item {
  const { eid, maskLength, ttl, action, authoritative, mapVersion, locators } = record;
  const negative = locators.length === 0 || action !== 0;
  const { text, below } = addressItem(title, eid, maskLength);
  return item(
    text,
    ...below,
    parts(
      ttlText(ttl),
      negative && `ACT ${action} ${MAP_ACTIONS[action] ?? 'unknown'}`,
      authoritative && 'A authoritative',
      mapVersion !== 0 && `map-version ${mapVersion}`,
    ),
    ...locators.map((locator, i) => locatorItem(`locator ${i + 1}`, locator)),
  );
}

function locatorItem(title: string, rloc: RlocRecord): Item {
  const { locator, priority, weight, multicastPriority, multicastWeight, local, probed, reachable } = rloc;
  const { text, below } = addressItem(title, locator);
  return item(
    text,
    ...below,
    parts(
      `priority ${priority}`,
      `weight ${weight}`,
      `multicast ${multicastPriority}/${multicastWeight}`,
      local && 'L local',
      probed && 'p probed',
      reachable ? 'R reachable' : 'not reachable',
    ),
  );
}

function referralItem(record: ReferralRecord, index: number): Item {
  const { eid, maskLength, ttl, action, authoritative, incomplete, mapVersion, referrals, signatures } = record;
  const { text, below } = addressItem(`record ${index + 1}`, eid, maskLength);
  return item(
    text,
    ...below,
    parts(
      ttlText(ttl),
      `ACT ${action} ${REFERRAL_ACTIONS[action] ?? 'unknown'}`,
      authoritative && 'A authoritative',
      incomplete && 'I incomplete',
      mapVersion !== 0 && `map-version ${mapVersion}`,
    ),
    ...referrals.map((referral, i) => locatorItem(`referral ${i + 1}`, referral)),
    ...signatures.map(({ originalTtl, expiration, inception, keyTag, algorithm, signature }, i) =>
      item(
        `signature ${i + 1}, algorithm ${algorithm}, key tag ${keyTag}`,
        `original TTL ${originalTtl} min, from ${date(inception)} to ${date(expiration)}`,
        octets(signature),
      ),
    ),
  );
}

function authenticationText({ keyId, algorithm, data }: Authentication, verification?: Verification): string {
  if (algorithm === 0 && data.length === 0) return 'authentication none';
  const name = ALGORITHMS[algorithm] ?? 'unknown';
  const verdict = verification === undefined ? 'not checked' : verdictText(verification);
  return `authentication key ${keyId}, algorithm ${algorithm} ${name}, ${octets(data)}: ${verdict}`;
}

function verdictText(verification: Verification): string {
  if (!verification.ok) return 'WRONG with this key';
  return `right, over the ${verification.coverage === 'records' ? 'message to its last record' : 'whole payload'}`;
}

function msRtrText({ keyId, data }: MsRtrData): string {
  return `MS-RTR authentication key ${keyId}, ${octets(data)}`;
}

function ecmSecurityItem(security: EcmSecurity): Item {
  if (security.kind === 'ms-rtr') {
    return item(msRtrText(security));
  }
  const { requestedHmac, keyId, wrapping, oneTimeKey, eid } = security;
  return item(
    'LISP-SEC authentication data',
    `HMAC wanted: ${requestedHmac} ${HMACS[requestedHmac] ?? 'unknown'}`,
    `one-time key ${octets(oneTimeKey)}, key ${keyId}, wrapping ${wrapping} ${WRAPPINGS[wrapping] ?? 'unknown'}`,
    eidAuthorizationItem(eid),
  );
}

function replySecurityItem({ eid, packetHmac }: LispSecReply): Item {
  return item('LISP-SEC authentication data', eidAuthorizationItem(eid), `packet ${hmacText(packetHmac)}`);
}

function eidAuthorizationItem({ kdf, authorized }: EidAuthorization): Item {
  const text = `EID authentication data, KDF ${kdf} ${KDFS[kdf] ?? 'unknown'}`;
  if (authorized === undefined) return item(text);
  const { unprotectedEtrs, prefixes, hmac } = authorized;
  return item(
    text,
    unprotectedEtrs ? 'E some ETRs without LISP-SEC' : undefined,
    ...prefixes.map(({ eid, maskLength }, i) => addressItem(`prefix ${i + 1}`, eid, maskLength)),
    hmacText(hmac),
  );
}

function hmacText({ algorithm, value }: Hmac): string {
  return `HMAC ${algorithm} ${HMACS[algorithm] ?? 'unknown'}, ${octets(value)}`;
}

function dataItem({ octets: length, header, tunnel, packet, inner }: DataDissection): Item {
  const { nonce, echoNonce, mapVersions, instanceId, locatorStatusBits, keyId } = header;
  const fields = parts(
    nonce !== undefined && `N nonce ${hexNumber(nonce, 6)}`,
    echoNonce && 'E echo-nonce',
    mapVersions !== undefined && `V map-versions ${mapVersions.source} > ${mapVersions.destination}`,
    instanceId !== undefined && `I instance ID ${instanceId}`,
    locatorStatusBits !== undefined && `L locator-status-bits ${hexNumber(locatorStatusBits, 8)}`,
    keyId !== 0 && `KK key ${keyId}`,
  );
  const encrypted = tunnel === undefined ? 'encrypted' : `Stayput tunnel packet, ${tunnel}`;
  return item(
    `LISP data packet, ${length} octets`,
    `header: ${fields === '' ? 'no fields' : fields}`,
    packet === undefined ? (keyId === 0 ? 'no inner packet' : encrypted) : packetText(packet),
    inner === undefined ? undefined : dissectionItem(inner),
  );
}

function packetText({
  family,
  source,
  destination,
  protocol,
  ports,
  hopLimit,
  fragment,
  octets: length,
}: InnerPacket): string {
  const [from, to] =
    ports === undefined
      ? [source, destination]
      : [`${source} port ${ports.source}`, `${destination} port ${ports.destination}`];
  const name = PROTOCOLS[protocol] ?? `protocol ${protocol}`;
  return parts(`IPv${family} ${from} > ${to}`, name, fragment && 'fragment', `TTL ${hopLimit}`, `${length} octets`);
}

/** The line of the octets where reading ended, and a mark below the one. */
function malformedItem({ error, bytes }: Malformed): Item {
  const { offset } = error;
  const start = Math.min(offset, bytes.length) & ~0xf;
  const row = Array.from(bytes.subarray(start, start + 16), (octet) => octet.toString(16).padStart(2, '0'));
  const label = `${start.toString(16).padStart(4, '0')}  `;
  return item(
    `NOT READABLE, ${bytes.length} octets: ${error.message}`,
    `${label}${row.join(' ')}`,
    `${' '.repeat(label.length + 3 * (Math.min(offset, bytes.length) - start))}^^`,
  );
}

function nonceText({ nonce }: { readonly nonce: bigint }): string {
  return `nonce ${hexNumber(nonce, 16)}`;
}

function trailerTexts({ xtrId, siteId }: XtrTrailer): string[] {
  if (xtrId === undefined) return [];
  return [`xTR-ID ${xtrId}`, siteId === undefined ? 'no site ID' : `site ID ${siteId}`];
}

function ttlText(ttl: number): string {
  if (ttl === 0) return 'TTL 0 (remove)';
  return ttl === TTL_RECEIVER_DECIDES ? 'TTL as the receiver likes' : `TTL ${ttl} min`;
}

function date(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}

const TITLES: Readonly<Record<LispMessage['type'], string>> = {
  'map-request': 'Map-Request (1)',
  'map-reply': 'Map-Reply (2)',
  'map-register': 'Map-Register (3)',
  'map-notify': 'Map-Notify (4)',
  'map-notify-ack': 'Map-Notify-Ack (5)',
  'map-referral': 'Map-Referral (6)',
  'info-request': 'Info-Request (7)',
  'info-reply': 'Info-Reply (7)',
  'encapsulated-control': 'Encapsulated Control Message (8)',
  'shared-extension': 'LISP Shared Extension (15)',
};
const ALGORITHMS = ['none', 'HMAC-SHA-1-96', 'HMAC-SHA-256-128', 'HMAC-SHA-256-128+HKDF-SHA256'];
const HMACS = ['no preference', 'HMAC-SHA-1-96', 'HMAC-SHA-256-128'];
const WRAPPINGS = ['none', 'NULL-KEY-WRAP-128', 'AES-KEY-WRAP-128+HKDF-SHA256'];
const KDFS = ['no preference', 'HKDF-SHA1-128', 'HKDF-SHA256'];
const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 58: 'ICMPv6', 132: 'SCTP' };
