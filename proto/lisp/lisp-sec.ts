/**
 * LISP-SEC (RFC 9303): what protects a Map-Reply on its way, over octets. The layouts are in security-data.ts.
 *
 * An ITR makes a one-time key (ITR-OTK) and sends it to its map server wrapped with the key that they share. The map
 * server says with it which prefixes an answer may be about (EID HMAC), and derives from it the key (MS-OTK) by which
 * whoever answers, the ETR or the map server for it, protects the whole Map-Reply (PKT HMAC). So nobody on the way, and no
 * ETR, can claim more than the map server allowed.
 *
 * | ID | wrapping (OTK Wrapping ID)                | KDF (KDF ID)              | HMAC (HMAC ID)              |
 * |----|-------------------------------------------|---------------------------|-----------------------------|
 * | 1  | none, refused: for DTLS only              | HKDF-SHA-1, 128 bits      | HMAC-SHA-1-96, 12 octets    |
 * | 2  | AES-128 key wrap (RFC 3394) + HKDF-SHA-256 | HKDF-SHA-256, 128 bits   | HMAC-SHA-256-128, 16 octets |
 *
 * The wrapping key is HKDF-SHA-256 of nonce, "OTK-Key-Wrap" and the shared key, one after the other. The RFC leaves out
 * what else HKDF takes; ours is without salt and `info`. The key of a subscription (PubSubKey) is made likewise, of
 * one-time key and nonce, and is as long as these keys.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { EncodeError, Writer } from '../bytes.ts';
import type { Nonce } from './header.ts';
import type { MapReply } from './map-reply.ts';
import { encodeLispMessage } from './message.ts';
import { type AuthorizedPrefixes, type EidAuthorization, encodeEidAuthorization } from './security-data.ts';

/** Preamble and key, for the OTK fields of an ECM. */
export function wrapOneTimeKey(otk: Uint8Array, nonce: Nonce, psk: Uint8Array): Uint8Array {
  const cipher = createCipheriv(KEY_WRAP, wrappingKey(nonce, psk), WRAP_IV);
  return new Uint8Array(Buffer.concat([cipher.update(otk), cipher.final()]));
}

/** Undefined when it was not wrapped with this key. */
export function unwrapOneTimeKey(wrapped: Uint8Array, nonce: Nonce, psk: Uint8Array): Uint8Array | undefined {
  if (wrapped.length !== WRAPPED_LENGTH) return undefined;
  try {
    const decipher = createDecipheriv(KEY_WRAP, wrappingKey(nonce, psk), WRAP_IV);
    return new Uint8Array(Buffer.concat([decipher.update(wrapped), decipher.final()]));
  } catch {
    // What OpenSSL throws here has no code, and nothing but the integrity check can fail.
    return undefined;
  }
}

/** MS-OTK. @throws EncodeError for an unknown KDF */
export function deriveMapServerKey(otk: Uint8Array, kdf: number): Uint8Array {
  const hash = KDF_HASH[kdf];
  if (hash === undefined) throw new EncodeError('KDF ID', `${kdf} is unknown`);
  return new Uint8Array(hkdfSync(hash, otk, '', '', OTK_LENGTH));
}

/** PubSubKey: what Map-Notifies are signed by that follow from a Map-Request with this nonce (RFC 9437 section 7.1). */
export function derivePubSubKey(otk: Uint8Array, nonce: Nonce): Uint8Array {
  const material = new Writer().bytes(otk).u64(nonce, 'nonce').finish();
  return new Uint8Array(hkdfSync('sha256', material, '', '', OTK_LENGTH));
}

/** EID-AD, protected by the ITR-OTK. */
export function authorizePrefixes(
  otk: Uint8Array,
  kdf: number,
  hmac: number,
  authorized: Omit<AuthorizedPrefixes, 'hmac'>,
): EidAuthorization {
  const withHmac = (value: Uint8Array): EidAuthorization => ({
    kdf,
    authorized: { ...authorized, hmac: { algorithm: hmac, value } },
  });
  return withHmac(digest(hmac, otk, encoded(withHmac(new Uint8Array(hmacLength(hmac))))));
}

/** A Map-Reply as octets, with what `authorization` allows, protected by the MS-OTK. */
export function protectMapReply(
  reply: Omit<MapReply, 'security'>,
  authorization: EidAuthorization,
  hmac: number,
  mapServerKey: Uint8Array,
): Uint8Array {
  const length = hmacLength(hmac);
  const packetHmac = { algorithm: hmac, value: new Uint8Array(length) };
  const bytes = encodeLispMessage({ ...reply, security: { eid: authorization, packetHmac } });
  bytes.set(digest(hmac, mapServerKey, bytes), bytes.length - length);
  return bytes;
}

/** What an ITR checks: that the map server made the authorization, and that nobody changed `bytes` since the reply left. */
export function verifyMapReply(bytes: Uint8Array, reply: MapReply, otk: Uint8Array): boolean {
  const { security } = reply;
  const authorized = security?.eid.authorized;
  if (security === undefined || authorized === undefined || KDF_HASH[security.eid.kdf] === undefined) return false;
  const { packetHmac, eid } = security;
  if (!isHmac(authorized.hmac) || !isHmac(packetHmac)) return false;
  const zeroedEid = {
    ...authorized,
    hmac: { ...authorized.hmac, value: new Uint8Array(authorized.hmac.value.length) },
  };
  const claimed = digest(authorized.hmac.algorithm, otk, encoded({ kdf: eid.kdf, authorized: zeroedEid }));
  if (!timingSafeEqual(claimed, authorized.hmac.value)) return false;
  const zeroed = Uint8Array.from(bytes).fill(0, bytes.length - packetHmac.value.length);
  return timingSafeEqual(digest(packetHmac.algorithm, deriveMapServerKey(otk, eid.kdf), zeroed), packetHmac.value);
}

/** The one that was asked for if it is known, else the one that everybody has to know. */
export function chosenHmac(requested: number): number {
  return HMACS[requested] === undefined ? HMAC_SHA256 : requested;
}

export function chosenKdf(requested: number): number {
  return KDF_HASH[requested] === undefined ? HKDF_SHA256 : requested;
}

function wrappingKey(nonce: Nonce, psk: Uint8Array): Uint8Array {
  const material = new Writer().u64(nonce, 'nonce').bytes(Buffer.from('OTK-Key-Wrap')).bytes(psk).finish();
  return new Uint8Array(hkdfSync('sha256', material, '', '', OTK_LENGTH));
}

function digest(algorithm: number, key: Uint8Array, bytes: Uint8Array): Uint8Array {
  const { hash, length } = hmacOf(algorithm);
  return createHmac(hash, key).update(bytes).digest().subarray(0, length);
}

function hmacLength(algorithm: number): number {
  return hmacOf(algorithm).length;
}

function hmacOf(algorithm: number): { readonly hash: string; readonly length: number } {
  const known = HMACS[algorithm];
  if (known === undefined) throw new EncodeError('HMAC ID', `${algorithm} is unknown`);
  return known;
}

function isHmac({ algorithm, value }: { algorithm: number; value: Uint8Array }): boolean {
  return HMACS[algorithm]?.length === value.length;
}

function encoded(authorization: EidAuthorization): Uint8Array {
  const writer = new Writer();
  encodeEidAuthorization(authorization, writer);
  return writer.finish();
}

/** OTK Wrapping ID of what is not sent in the clear. */
export const AES_KEY_WRAP = 2;
export const OTK_LENGTH = 16;
const WRAPPED_LENGTH = 24;
const KEY_WRAP = 'id-aes128-wrap';
/** RFC 3394 section 2.2.3.1. */
const WRAP_IV = new Uint8Array(8).fill(0xa6);
const HMAC_SHA256 = 2;
const HKDF_SHA256 = 2;
const KDF_HASH: Readonly<Record<number, string>> = { 1: 'sha1', 2: 'sha256' };
const HMACS: Readonly<Record<number, { readonly hash: string; readonly length: number }>> = {
  1: { hash: 'sha1', length: 12 },
  2: { hash: 'sha256', length: 16 },
};
