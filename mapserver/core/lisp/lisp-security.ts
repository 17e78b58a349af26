/**
 * LISP-SEC at the map server (RFC 9303 section 6.7): answers that the ITR can verify, if it sent a one-time key.
 *
 * The key comes in the ECM, wrapped with the key of the site from whose address the ITR speaks. The answer says which
 * prefixes it may be about, all of them the map server's own word, as it answers for the sites. A site that answers
 * itself is not asked: what it said could not be verified, which the ITR is told by a negative answer with E set.
 */
import type { IpAddress } from '../../../proto/address.ts';
import type { EncapsulatedControl } from '../../../proto/lisp/ecm.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import type { Nonce } from '../../../proto/lisp/header.ts';
import {
  AES_KEY_WRAP,
  authorizePrefixes,
  chosenHmac,
  chosenKdf,
  deriveMapServerKey,
  protectMapReply,
  unwrapOneTimeKey,
} from '../../../proto/lisp/lisp-sec.ts';
import type { MapReply } from '../../../proto/lisp/map-reply.ts';

/** What the ITR wants its answer protected by. */
export interface ReplyProtection {
  readonly oneTimeKey: Uint8Array;
  readonly kdf: number;
  readonly hmac: number;
}

/** Secrets with this key ID of sites with an xTR at one of the addresses. */
export type SecretsOf = (addresses: readonly IpAddress[], keyId: number) => readonly Uint8Array[];

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
  for (const secret of secretsOf(addresses, security.keyId)) {
    const oneTimeKey = unwrapOneTimeKey(security.oneTimeKey, nonce, secret);
    if (oneTimeKey === undefined) continue;
    return { oneTimeKey, kdf: chosenKdf(security.eid.kdf), hmac: chosenHmac(security.requestedHmac) };
  }
  return 'unknown';
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
