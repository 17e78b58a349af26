/**
 * X.509 certificates as octets: made from their parts, and the parts that node:crypto does not tell read back.
 *
 * node-forge builds the ASN.1; signatures are made by node:crypto, because forge knows only RSA.
 */
import { createHash, type KeyObject, randomBytes, sign, type X509Certificate } from 'node:crypto';
import forge from 'node-forge';
import { StayputError } from '../../proto/errors.ts';
import type { WallClock } from '../../proto/time.ts';

export type Asn1 = forge.asn1.Asn1;

export class CertificateError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_CERTIFICATE', message, options);
  }
}

export interface CertificateContent {
  /** Names as `commonNameOnly` makes them, or `subjectOf` reads them. */
  readonly subject: Asn1;
  readonly issuer: Asn1;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly notBefore: WallClock;
  readonly notAfter: WallClock;
  readonly extensions: readonly Asn1[];
}

/** PEM. @throws CertificateError when the signer's key is of a kind that does not sign certificates here */
export function signCertificate(content: CertificateContent): string {
  const { algorithm, digest } = signatureOf(content.signer);
  const body = sequence(
    contextConstructed(0, integer('02')),
    integer(serialNumber()),
    algorithm,
    content.issuer,
    sequence(time(content.notBefore), time(content.notAfter)),
    content.subject,
    parseDer(content.publicKey.export({ type: 'spki', format: 'der' })),
    contextConstructed(3, sequence(...content.extensions)),
  );
  const certificate = sequence(body, algorithm, bitString(sign(digest, der(body), content.signer)));
  return pem('CERTIFICATE', der(certificate));
}

export function commonNameOnly(name: string): Asn1 {
  const attribute = sequence(oid(OID.commonName), universal(forge.asn1.Type.UTF8, false, forge.util.encodeUtf8(name)));
  return sequence(universal(forge.asn1.Type.SET, true, [attribute]));
}

export function subjectOf(certificate: X509Certificate): Asn1 {
  const subject = bodyOf(certificate)[SUBJECT];
  if (subject === undefined) throw new CertificateError('the certificate has no subject');
  return subject;
}

/** What certificates that it issues name it by: its own word for it, or the one that RFC 5280 proposes. */
export function subjectKeyIdentifier(certificate: X509Certificate): Buffer {
  const value = extensionOf(certificate, OID.subjectKeyIdentifier);
  return typeof value?.value === 'string' ? Buffer.from(value.value, 'binary') : keyIdentifier(certificate.publicKey);
}

/** How many certificate authorities may be between it and a leaf; undefined: any number. */
export function pathLengthOf(certificate: X509Certificate): number | undefined {
  const constraints = extensionOf(certificate, OID.basicConstraints)?.value;
  const length = Array.isArray(constraints) ? constraints[1]?.value : undefined;
  return typeof length === 'string' ? Number.parseInt(Buffer.from(length, 'binary').toString('hex'), 16) : undefined;
}

/** False only if it says what its key is for, and that is not to sign certificates. */
export function maySignCertificates(certificate: X509Certificate): boolean {
  const usage = extensionOf(certificate, OID.keyUsage)?.value;
  return typeof usage !== 'string' || (usage.charCodeAt(1) & KEY_CERT_SIGN) !== 0;
}

/** RFC 5280 4.2.1.2, method 1: SHA-1 of the key's bits. */
export function keyIdentifier(publicKey: KeyObject): Buffer {
  const [, bits] = parseDer(publicKey.export({ type: 'spki', format: 'der' })).value as Asn1[];
  const octetsOfKey = typeof bits?.value === 'string' ? bits.value.slice(1) : '';
  return createHash('sha1').update(Buffer.from(octetsOfKey, 'binary')).digest();
}

/** For what a leaf certificate is, and what it is issued by. */
export function leafExtensions(usage: string, names: readonly Asn1[], key: KeyObject, issuer: X509Certificate): Asn1[] {
  return [
    extension(OID.basicConstraints, true, sequence()),
    extension(OID.keyUsage, true, keyUsage(DIGITAL_SIGNATURE)),
    extension(OID.extendedKeyUsage, false, sequence(oid(usage))),
    extension(OID.subjectAlternativeName, false, sequence(...names)),
    extension(OID.subjectKeyIdentifier, false, octets(keyIdentifier(key))),
    authorityExtension(issuer),
  ];
}

/** For a certificate authority; `issuer` null: it issues itself. */
export function authorityExtensions(
  pathLength: number | undefined,
  identifier: Buffer,
  issuer: X509Certificate | null,
): Asn1[] {
  const length = pathLength === undefined ? [] : [integer(pathLength.toString(16).padStart(2, '0'))];
  return [
    extension(OID.basicConstraints, true, sequence(boolean(true), ...length)),
    extension(OID.keyUsage, true, keyUsage(KEY_CERT_SIGN | CRL_SIGN)),
    extension(OID.subjectKeyIdentifier, false, octets(identifier)),
    ...(issuer === null ? [] : [authorityExtension(issuer)]),
  ];
}

export function dnsName(name: string): Asn1 {
  return contextValue(SAN_DNS, name);
}

export function ipName(address: Uint8Array): Asn1 {
  return contextValue(SAN_IP, binary(address));
}

export function uriName(uri: string): Asn1 {
  return contextValue(SAN_URI, uri);
}

function signatureOf(key: KeyObject): { readonly algorithm: Asn1; readonly digest: string } {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'ec' && details?.namedCurve === 'prime256v1')
    return { algorithm: sequence(oid(OID.ecdsaWithSha256)), digest: 'sha256' };
  if (type === 'ec' && details?.namedCurve === 'secp384r1')
    return { algorithm: sequence(oid(OID.ecdsaWithSha384)), digest: 'sha384' };
  if (type === 'rsa' && (details?.modulusLength ?? 0) >= 2048)
    return {
      algorithm: sequence(oid(OID.rsaWithSha256), universal(forge.asn1.Type.NULL, false, '')),
      digest: 'sha256',
    };
  throw new CertificateError(
    'the key of a certificate authority must be ECDSA P-256 or P-384, or RSA of 2048 bits or more',
  );
}

/** From the serial number on, so that the version, which may be missing, does not count. */
function bodyOf(certificate: X509Certificate): readonly Asn1[] {
  const body = (parseDer(certificate.raw).value as Asn1[])[0]?.value as Asn1[];
  return body[0]?.tagClass === forge.asn1.Class.CONTEXT_SPECIFIC ? body.slice(1) : body;
}

/** What is inside the extension with this id. */
function extensionOf(certificate: X509Certificate, id: string): Asn1 | undefined {
  const holder = bodyOf(certificate).find(
    ({ tagClass, type }) => tagClass === forge.asn1.Class.CONTEXT_SPECIFIC && (type as number) === 3,
  );
  const list = (holder?.value as Asn1[] | undefined)?.[0]?.value as Asn1[] | undefined;
  for (const each of list ?? []) {
    const parts = each.value as Asn1[];
    const named = forge.asn1.derToOid(forge.util.createBuffer(parts[0]?.value as string));
    const content = parts.at(-1)?.value;
    if (named === id && typeof content === 'string') return parseDer(Buffer.from(content, 'binary'));
  }
  return undefined;
}

function authorityExtension(issuer: X509Certificate): Asn1 {
  return extension(OID.authorityKeyIdentifier, false, sequence(contextValue(0, binary(subjectKeyIdentifier(issuer)))));
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
export function parseDer(bytes: Buffer): Asn1 {
  const parse = forge.asn1.fromDer as unknown as (text: string, options: object) => Asn1;
  return parse(binary(bytes), { strict: true, parseAllBytes: true, decodeBitStrings: false });
}

export function der(node: Asn1): Buffer {
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

/** UTCTime until 2049, GeneralizedTime from then on (RFC 5280 4.1.2.5). */
function time(at: WallClock): Asn1 {
  const digits = new Date(at).toISOString().replace(/[-:T]|\.\d{3}/g, '');
  return new Date(at).getUTCFullYear() < 2050
    ? universal(forge.asn1.Type.UTCTIME, false, digits.slice(2))
    : universal(forge.asn1.Type.GENERALIZEDTIME, false, digits);
}

export const OID = {
  commonName: '2.5.4.3',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAlternativeName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  ecdsaWithSha384: '1.2.840.10045.4.3.3',
  rsaWithSha256: '1.2.840.113549.1.1.11',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

/** Behind the serial number: signature algorithm, issuer, validity, subject. */
const SUBJECT = 4;
const DIGITAL_SIGNATURE = 0x80;
const KEY_CERT_SIGN = 0x04;
const CRL_SIGN = 0x02;
const SAN_DNS = 2;
const SAN_URI = 6;
const SAN_IP = 7;
