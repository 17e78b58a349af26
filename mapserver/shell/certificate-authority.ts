/**
 * The overlay's certificate authority: makes its own certificate, those of map servers, and those of agents.
 *
 * node-forge builds the ASN.1; keys and signatures are ECDSA P-256 by node:crypto, because forge knows only RSA. Nothing
 * is verified in forge: requests by node:crypto, certificates by the TLS stack.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
  X509Certificate,
} from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import forge from 'node-forge';
import { ipToBytes, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { StayputError } from '../../proto/errors.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { WallClock } from '../../proto/time.ts';

export interface KeyAndCertificate {
  /** PKCS#8 PEM. */
  readonly key: string;
  /** PEM. */
  readonly certificate: string;
}

export class CertificateError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_CERTIFICATE', message, options);
  }
}

/** A self-signed CA for ten years. */
export function createAuthority(name: string, now: WallClock): KeyAndCertificate {
  const { privateKey, publicKey } = newKeyPair();
  const certificate = signCertificate({
    subject: name,
    issuer: name,
    publicKey,
    signer: privateKey,
    notBefore: now - BACKDATED,
    notAfter: now + AUTHORITY_LIFE,
    extensions: [
      extension(OID.basicConstraints, true, sequence(boolean(true), integer('00'))),
      extension(OID.keyUsage, true, keyUsage(KEY_CERT_SIGN | CRL_SIGN)),
      extension(OID.subjectKeyIdentifier, false, octets(keyIdentifier(publicKey))),
    ],
  });
  return { key: pkcs8(privateKey), certificate };
}

/** A map server's TLS certificate for names and addresses. */
export function createServerCertificate(
  authority: KeyAndCertificate,
  hosts: readonly string[],
  now: WallClock,
): KeyAndCertificate {
  const { privateKey, publicKey } = newKeyPair();
  const names = hosts.map((host) =>
    isIpAddress(host) ? contextValue(SAN_IP, binary(ipToBytes(parseIpAddress(host)))) : contextValue(SAN_DNS, host),
  );
  const certificate = signLeaf(authority, publicKey, {
    subject: 'Stayput map server',
    usage: OID.serverAuth,
    alternativeNames: names,
    notBefore: now - BACKDATED,
    notAfter: now + SERVER_LIFE,
  });
  return { key: pkcs8(privateKey), certificate };
}

/** Certifies the key of a request for an agent. Nothing else in the request has a say. */
export function certifyAgent(authority: KeyAndCertificate, publicKey: KeyObject, xtrId: XtrId, now: WallClock): string {
  return signLeaf(authority, publicKey, {
    subject: xtrId,
    usage: OID.clientAuth,
    alternativeNames: [contextValue(SAN_URI, agentUri(xtrId))],
    notBefore: now - BACKDATED,
    notAfter: now + AGENT_LIFE,
  });
}

/** The agent at the other end, if its certificate is of this authority and valid. */
export function callerOf(socket: TLSSocket): XtrId | undefined {
  if (!socket.authorized) return undefined;
  const names = socket.getPeerX509Certificate()?.subjectAltName ?? '';
  const match = /(?:^|, )URI:urn:stayput:agent:([0-9a-f]{32})(?:$|, )/.exec(names);
  return match?.[1] !== undefined && names.includes(agentUri(match[1])) ? (match[1] as XtrId) : undefined;
}

export function agentUri(xtrId: string): string {
  return `urn:stayput:agent:${xtrId}`;
}

/** The public key of a PKCS#10 request, whose signature proves that the requester has the private one. @throws CertificateError */
export function readSigningRequest(pem: string): KeyObject {
  const { info, algorithm, signature } = parseRequest(pem);
  const publicKey = requestKey(info);
  const algorithmOid = forge.asn1.derToOid(forge.util.createBuffer(child(algorithm, 0).value as string));
  if (algorithmOid !== OID.ecdsaWithSha256) throw new CertificateError('a CSR must be signed with ECDSA and SHA-256');
  const bits = signature.value;
  if (typeof bits !== 'string' || bits.charCodeAt(0) !== 0)
    throw new CertificateError('the signature of the CSR cannot be read');
  const signed = Buffer.from(forge.asn1.toDer(info).getBytes(), 'binary');
  if (!verify('sha256', signed, publicKey, Buffer.from(bits.slice(1), 'binary'))) {
    throw new CertificateError('the CSR is not signed with its own key');
  }
  return publicKey;
}

/** SHA-256 of a public key, in hex. */
export function keyHash(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}

/** SHA-256 of a certificate's DER, in hex: what a join token pins. */
export function fingerprint(certificate: string): string {
  return createHash('sha256').update(new X509Certificate(certificate).raw).digest('hex');
}

/** True when less than a third of the life is left, or the names are not those. */
export function needsRenewal(certificate: string, hosts: readonly string[], now: WallClock): boolean {
  const parsed = new X509Certificate(certificate);
  if (Date.parse(parsed.validTo) - now < SERVER_LIFE / 3) return true;
  return !hosts.every((host) =>
    isIpAddress(host) ? parsed.checkIP(host) !== undefined : parsed.checkHost(host) !== undefined,
  );
}

type Asn1 = forge.asn1.Asn1;

interface CertificateContent {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly notBefore: WallClock;
  readonly notAfter: WallClock;
  readonly extensions: readonly Asn1[];
}

function signLeaf(
  authority: KeyAndCertificate,
  publicKey: KeyObject,
  leaf: {
    readonly subject: string;
    readonly usage: string;
    readonly alternativeNames: readonly Asn1[];
    readonly notBefore: WallClock;
    readonly notAfter: WallClock;
  },
): string {
  const issuer = new X509Certificate(authority.certificate);
  return signCertificate({
    subject: leaf.subject,
    issuer: commonName(issuer),
    publicKey,
    signer: createPrivateKey(authority.key),
    notBefore: leaf.notBefore,
    notAfter: Math.min(leaf.notAfter, Date.parse(issuer.validTo)),
    extensions: [
      extension(OID.basicConstraints, true, sequence()),
      extension(OID.keyUsage, true, keyUsage(DIGITAL_SIGNATURE)),
      extension(OID.extendedKeyUsage, false, sequence(oid(leaf.usage))),
      extension(OID.subjectAlternativeName, false, sequence(...leaf.alternativeNames)),
      extension(OID.subjectKeyIdentifier, false, octets(keyIdentifier(publicKey))),
      extension(OID.authorityKeyIdentifier, false, sequence(contextValue(0, binary(keyIdentifier(issuer.publicKey))))),
    ],
  });
}

function signCertificate(content: CertificateContent): string {
  const algorithm = sequence(oid(OID.ecdsaWithSha256));
  const body = sequence(
    contextConstructed(0, integer('02')),
    integer(serialNumber()),
    algorithm,
    distinguishedName(content.issuer),
    sequence(time(content.notBefore), time(content.notAfter)),
    distinguishedName(content.subject),
    parseDer(content.publicKey.export({ type: 'spki', format: 'der' })),
    contextConstructed(3, sequence(...content.extensions)),
  );
  const signature = sign('sha256', der(body), content.signer);
  const certificate = sequence(body, algorithm, bitString(signature));
  return pem('CERTIFICATE', der(certificate));
}

function parseRequest(text: string): { readonly info: Asn1; readonly algorithm: Asn1; readonly signature: Asn1 } {
  if (text.length > MAX_REQUEST) throw new CertificateError('the CSR is too long');
  const match = /-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END/.exec(text);
  if (match?.[1] === undefined) throw new CertificateError('the CSR is not a PEM certificate request');
  try {
    const request = parseDer(Buffer.from(match[1], 'base64'));
    return { info: child(request, 0), algorithm: child(request, 1), signature: child(request, 2) };
  } catch (cause) {
    throw cause instanceof CertificateError ? cause : new CertificateError('the CSR is not valid DER', { cause });
  }
}

function requestKey(info: Asn1): KeyObject {
  let publicKey: KeyObject;
  try {
    publicKey = createPublicKey({ key: der(child(info, 2)), format: 'der', type: 'spki' });
  } catch (cause) {
    throw cause instanceof CertificateError
      ? cause
      : new CertificateError('the key in the CSR cannot be read', { cause });
  }
  if (publicKey.asymmetricKeyType !== 'ec' || publicKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new CertificateError('the key in the CSR must be an ECDSA P-256 key');
  }
  return publicKey;
}

function child(node: Asn1, index: number): Asn1 {
  const found = Array.isArray(node.value) ? node.value[index] : undefined;
  if (found === undefined) throw new CertificateError('the CSR does not have the form of PKCS#10');
  return found;
}

function newKeyPair(): { readonly privateKey: KeyObject; readonly publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
}

function pkcs8(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}

function commonName(certificate: X509Certificate): string {
  return /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? '';
}

/** RFC 5280 4.2.1.2, method 1: SHA-1 of the key's bits, which are the last 65 octets of a P-256 SPKI. */
function keyIdentifier(publicKey: KeyObject): Buffer {
  return createHash('sha1')
    .update(publicKey.export({ type: 'spki', format: 'der' }).subarray(-65))
    .digest();
}

/** 128 bits, positive. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** Leaves BIT STRINGs alone: forge would take a signature for a structure. Its types do not know the options. */
function parseDer(bytes: Buffer): Asn1 {
  const parse = forge.asn1.fromDer as unknown as (text: string, options: object) => Asn1;
  return parse(binary(bytes), { strict: true, parseAllBytes: true, decodeBitStrings: false });
}

function der(node: Asn1): Buffer {
  return Buffer.from(forge.asn1.toDer(node).getBytes(), 'binary');
}

/** forge keeps octets as text, one character each. */
function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('binary');
}

function universal(type: number, constructed: boolean, value: string | Asn1[]): Asn1 {
  return forge.asn1.create(forge.asn1.Class.UNIVERSAL, type, constructed, value);
}

function sequence(...nodes: Asn1[]): Asn1 {
  return universal(forge.asn1.Type.SEQUENCE, true, nodes);
}

function oid(text: string): Asn1 {
  return universal(forge.asn1.Type.OID, false, forge.asn1.oidToDer(text).getBytes());
}

function integer(hex: string): Asn1 {
  return universal(forge.asn1.Type.INTEGER, false, Buffer.from(hex, 'hex').toString('binary'));
}

function boolean(value: boolean): Asn1 {
  return universal(forge.asn1.Type.BOOLEAN, false, value ? '\xff' : '\x00');
}

function octets(bytes: Uint8Array): Asn1 {
  return universal(forge.asn1.Type.OCTETSTRING, false, binary(bytes));
}

function bitString(bytes: Uint8Array): Asn1 {
  return universal(forge.asn1.Type.BITSTRING, false, `\x00${binary(bytes)}`);
}

/** Bits of the first octet; the unused ones behind the last that is set do not count (DER). */
function keyUsage(bits: number): Asn1 {
  const unused = 31 - Math.clz32(bits & -bits);
  return universal(forge.asn1.Type.BITSTRING, false, String.fromCharCode(unused, bits));
}

function contextValue(tag: number, value: string): Asn1 {
  return forge.asn1.create(forge.asn1.Class.CONTEXT_SPECIFIC, tag, false, value);
}

function contextConstructed(tag: number, ...nodes: Asn1[]): Asn1 {
  return forge.asn1.create(forge.asn1.Class.CONTEXT_SPECIFIC, tag, true, nodes);
}

function extension(id: string, critical: boolean, value: Asn1): Asn1 {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(der(value)));
}

function distinguishedName(name: string): Asn1 {
  const attribute = sequence(oid(OID.commonName), universal(forge.asn1.Type.UTF8, false, forge.util.encodeUtf8(name)));
  return sequence(universal(forge.asn1.Type.SET, true, [attribute]));
}

/** UTCTime until 2049, GeneralizedTime from then on (RFC 5280 4.1.2.5). */
function time(at: WallClock): Asn1 {
  const digits = new Date(at).toISOString().replace(/[-:T]|\.\d{3}/g, '');
  return new Date(at).getUTCFullYear() < 2050
    ? universal(forge.asn1.Type.UTCTIME, false, digits.slice(2))
    : universal(forge.asn1.Type.GENERALIZEDTIME, false, digits);
}

const OID = {
  commonName: '2.5.4.3',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAlternativeName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

const DIGITAL_SIGNATURE = 0x80;
const KEY_CERT_SIGN = 0x04;
const CRL_SIGN = 0x02;
const SAN_DNS = 2;
const SAN_URI = 6;
const SAN_IP = 7;
const DAY = 86_400_000;
const AUTHORITY_LIFE = 3650 * DAY;
const SERVER_LIFE = 365 * DAY;
const AGENT_LIFE = 30 * DAY;
/** Clocks of joining machines may be behind. */
const BACKDATED = 3_600_000;
const MAX_REQUEST = 8192;
