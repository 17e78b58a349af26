/**
 * LISP-SEC at the map server (RFC 9303 section 6.7): answers that the ITR can verify, if it sent a one-time key.
 *
 * The key comes in the ECM, wrapped with the key of the site from whose address the ITR speaks. What the map server
 * answers itself says which prefixes it may be about, and is protected as a whole. For a site that answers itself, one of
 * its ETRs that can do LISP-SEC is asked: it gets what the map server says of the prefix, protected by the ITR's key which
 * it never sees, and a key derived from that to protect its answer by, wrapped with its own site's. Where no ETR can,
 * the ITR is told so by a negative answer with E set.
 *
 * A one-time key that comes with a subscription is what the Map-Notifies of it are signed by (RFC 9437 section 7.1).
 */
import type { IpAddress } from '../../../proto/address.ts';
import type { LispAddress } from '../../../proto/lisp/afi.ts';
import type { SigningOptions } from '../../../proto/lisp/authentication.ts';
import type { EncapsulatedControl } from '../../../proto/lisp/ecm.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import type { Nonce } from '../../../proto/lisp/header.ts';
import {
  AES_KEY_WRAP,
  authorizePrefixes,
  chosenHmac,
  chosenKdf,
  deriveMapServerKey,
  derivePubSubKey,
  protectMapReply,
  unwrapOneTimeKey,
  wrapOneTimeKey,
} from '../../../proto/lisp/lisp-sec.ts';
import type { MapReply } from '../../../proto/lisp/map-reply.ts';
import type { LispSecRequest } from '../../../proto/lisp/security-data.ts';

/** What the ITR wants its answer protected by. */
export interface ReplyProtection {
  readonly oneTimeKey: Uint8Array;
  /** Of the key by which it was wrapped. */
  readonly keyId: number;
  /** That have this key: one, unless they share it. */
  readonly sites: readonly string[];
  readonly kdf: number;
  readonly hmac: number;
  /** As the ITR has it, for whoever answers. */
  readonly requestedHmac: number;
}

/** Secrets with this key ID of sites with an xTR at one of the addresses. */
export type SecretsOf = (addresses: readonly IpAddress[], keyId: number) => readonly SiteSecret[];

export interface SiteSecret {
  readonly site: string;
  readonly secret: Uint8Array;
}

/** What the Map-Notifies of a subscription are signed by, and which sites can have asked for that. */
export interface SubscriptionSigning extends SigningOptions {
  readonly sites: readonly string[];
}

/** Undefined: none is wanted. `unknown`: its key cannot be read with any that the ITR could have. */
export function wantedProtection(
  ecm: EncapsulatedControl | undefined,
  nonce: Nonce,
  addresses: readonly IpAddress[],
  secretsOf: SecretsOf,
): ReplyProtection | 'unknown' | undefined {
  const security = ecm?.security;
  if (security?.kind !== 'lisp-sec') return undefined;
  if (security.wrapping !== AES_KEY_WRAP) return 'unknown';
  const { keyId, requestedHmac, eid } = security;
  const opened = secretsOf(addresses, keyId).flatMap(({ site, secret }) => {
    const oneTimeKey = unwrapOneTimeKey(security.oneTimeKey, nonce, secret);
    return oneTimeKey === undefined ? [] : [{ site, oneTimeKey }];
  });
  const [first] = opened;
  if (first === undefined) return 'unknown';
  const sites = opened.map(({ site }) => site);
  const { oneTimeKey } = first;
  return { oneTimeKey, keyId, sites, kdf: chosenKdf(eid.kdf), hmac: chosenHmac(requestedHmac), requestedHmac };
}

/** `unprotectedEtrs`: E, some record would have been for an ETR to answer. */
export function protectedReply(
  reply: Omit<MapReply, 'security'>,
  { oneTimeKey, kdf, hmac }: ReplyProtection,
  unprotectedEtrs: boolean,
): Uint8Array {
  const prefixes = reply.records.map(({ eid, maskLength }: EidRecord) => ({ eid, maskLength }));
  const authorization = authorizePrefixes(oneTimeKey, kdf, hmac, { unprotectedEtrs, prefixes });
  return protectMapReply(reply, authorization, hmac, deriveMapServerKey(oneTimeKey, kdf));
}

/** For the ECM to an ETR that has this key, about the prefix that it registered. `unprotectedEtrs`: E, others cannot do it. */
export function protectedForEtr(
  prefix: { readonly eid: LispAddress; readonly maskLength: number },
  { oneTimeKey, kdf, hmac, requestedHmac }: ReplyProtection,
  nonce: Nonce,
  { keyId, psk }: Pick<SigningOptions, 'keyId' | 'psk'>,
  unprotectedEtrs: boolean,
): LispSecRequest {
  return {
    kind: 'lisp-sec',
    requestedHmac,
    keyId,
    wrapping: AES_KEY_WRAP,
    oneTimeKey: wrapOneTimeKey(deriveMapServerKey(oneTimeKey, kdf), nonce, psk),
    eid: authorizePrefixes(oneTimeKey, kdf, hmac, { unprotectedEtrs, prefixes: [prefix] }),
  };
}

/** What the Map-Notifies of a subscription are signed by, if it was asked for with a one-time key. */
export function subscriptionSigning({ oneTimeKey, keyId, sites }: ReplyProtection, nonce: Nonce): SubscriptionSigning {
  return { keyId, algorithm: HMAC_SHA_256_128, psk: derivePubSubKey(oneTimeKey, nonce), sites };
}

/** Algorithm ID of Map-Notifies (RFC 9301 section 12.5). */
const HMAC_SHA_256_128 = 2;
