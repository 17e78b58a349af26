/**
 * What the overlay's certificate authority certifies: map servers, agents, and (for a roll-over) its successor.
 *
 * Whether a certificate is one of ours is decided here and by node:crypto, against the authorities themselves: an agent
 * trusts exactly those, so that an operator's intermediate authority brings in nothing of what else its issuer vouches for.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { ipToBytes, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { type Millis, minutes, type WallClock } from '../../proto/time.ts';
import {
  type Asn1,
  authorityExtensions,
  CertificateError,
  commonNameOnly,
  dnsName,
  ipName,
  keyIdentifier,
  leafExtensions,
  maySignCertificates,
  OID,
  pathLengthOf,
  signCertificate,
  subjectKeyIdentifier,
  subjectOf,
  uriName,
} from './x509.ts';

export interface KeyAndCertificate {
  /** PKCS#8 PEM. */
  readonly key: string;
  /** PEM; of a server, followed by what links it to an authority before. */
  readonly certificate: string;
}

/**
 * A self-signed CA for ten years. One that succeeds another takes its name (RFC 5280: a self-issued certificate), since
 * that may forbid authorities of other names below it.
 */
export function createAuthority(name: string, now: WallClock, before?: X509Certificate): KeyAndCertificate {
  const { privateKey, publicKey } = newKeyPair();
  const subject = before === undefined ? commonNameOnly(name) : subjectOf(before);
  const certificate = signCertificate({
    subject,
    issuer: subject,
    publicKey,
    signer: privateKey,
    notBefore: now - BACKDATED,
    notAfter: now + AUTHORITY_LIFE,
    // One below it, so that it can certify a successor of another name.
    extensions: authorityExtensions(1, keyIdentifier(publicKey), null),
  });
  return { key: pkcs8(privateKey), certificate };
}

/**
 * An operator's CA, an intermediate one as a rule. `pem` is its certificate, then perhaps those of its issuers, each of
 * which must have issued the one before. @throws CertificateError
 */
export function adoptAuthority(pem: string, keyPem: string, now: WallClock): KeyAndCertificate {
  const [certificate, ...issuers] = readCertificates(pem);
  if (certificate === undefined) throw new CertificateError('there is no certificate in PEM');
  let lower = certificate;
  for (const issuer of issuers) {
    if (!lower.checkIssued(issuer) || !lower.verify(issuer.publicKey)) {
      throw new CertificateError(`"${nameOf(lower)}" was not issued by "${nameOf(issuer)}", which follows it`);
    }
    lower = issuer;
  }
  for (const each of [certificate, ...issuers]) {
    const name = nameOf(each);
    if (!each.ca || !maySignCertificates(each)) throw new CertificateError(`"${name}" may not issue certificates`);
    if (now < startOf(each) - CLOCK_SKEW) throw new CertificateError(`"${name}" is not valid before ${each.validFrom}`);
    if (now > endOf(each)) throw new CertificateError(`"${name}" has ended at ${each.validTo}`);
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(keyPem);
  } catch (cause) {
    const why = /ENCRYPTED/.test(keyPem) ? 'is encrypted; take the encryption off first' : 'cannot be read';
    throw new CertificateError(`the private key ${why}`, { cause });
  }
  if (!certificate.checkPrivateKey(key))
    throw new CertificateError('the private key does not belong to the certificate');
  const authority = { key: pkcs8(key), certificate: certificate.toString() };
  // Whether its key is of a kind that can be used shows now and not when the first agent joins.
  createServerCertificate(authority, ['localhost'], now);
  return authority;
}

/** Certifies `successor` by `authority`, for those who know only that. PEM. @throws CertificateError */
export function crossCertify(authority: KeyAndCertificate, successor: string, now: WallClock): string {
  const [issuer, subject] = [new X509Certificate(authority.certificate), new X509Certificate(successor)];
  if (issuer.subject !== subject.subject && pathLengthOf(issuer) === 0) {
    throw new CertificateError(
      `"${nameOf(issuer)}" may not vouch for an authority of another name (path length 0), so agents could not follow; roll over to one without --ca-cert first`,
    );
  }
  return signCertificate({
    subject: subjectOf(subject),
    issuer: subjectOf(issuer),
    publicKey: subject.publicKey,
    signer: createPrivateKey(authority.key),
    notBefore: now - BACKDATED,
    notAfter: Math.min(endOf(issuer), endOf(subject)),
    extensions: authorityExtensions(pathLengthOf(subject), subjectKeyIdentifier(subject), issuer),
  });
}

/** A map server's TLS certificate for names and addresses. */
export function createServerCertificate(
  authority: KeyAndCertificate,
  hosts: readonly string[],
  now: WallClock,
): KeyAndCertificate {
  const { privateKey, publicKey } = newKeyPair();
  const names = hosts.map((host) => (isIpAddress(host) ? ipName(ipToBytes(parseIpAddress(host))) : dnsName(host)));
  const certificate = signLeaf(authority, publicKey, 'Stayput map server', OID.serverAuth, names, now, SERVER_LIFE);
  return { key: pkcs8(privateKey), certificate };
}

/** Certifies the key of a request for an agent. Nothing else in the request has a say. */
export function certifyAgent(
  authority: KeyAndCertificate,
  publicKey: KeyObject,
  xtrId: XtrId,
  now: WallClock,
  life: Millis = AGENT_LIFE,
): string {
  return signLeaf(authority, publicKey, xtrId, OID.clientAuth, [uriName(agentUri(xtrId))], now, life);
}

export type Caller =
  | {
      readonly kind: 'agent' | 'expired';
      readonly xtrId: XtrId;
      readonly certificate: X509Certificate;
      readonly notAfter: WallClock;
      /** SHA-256 of the certificate of the authority that issued its certificate, in hex. */
      readonly authority: string;
    }
  | { readonly kind: 'nobody'; readonly why: string };

/** The agent at the other end, if its certificate is of one of these authorities. TLS has proved that it has the key. */
export function callerOf(socket: TLSSocket, authorities: readonly X509Certificate[], now: WallClock): Caller {
  const certificate = socket.getPeerX509Certificate?.();
  if (certificate === undefined) return { kind: 'nobody', why: 'none was sent' };
  const issuer = authorities.find((authority) => certificate.checkIssued(authority));
  if (issuer === undefined || !certificate.verify(issuer.publicKey)) {
    return { kind: 'nobody', why: 'it is of another certificate authority, or of one that was retired' };
  }
  const names = certificate.subjectAltName ?? '';
  const match = /^URI:urn:stayput:agent:([0-9a-f]{32})$/.exec(names);
  if (match?.[1] === undefined || certificate.keyUsage?.includes(OID.clientAuth) !== true) {
    return { kind: 'nobody', why: 'it does not name an agent' };
  }
  if (now < startOf(certificate) - CLOCK_SKEW) {
    return { kind: 'nobody', why: `it is not valid before ${certificate.validFrom}; is the clock right?` };
  }
  const notAfter = endOf(certificate);
  const kind = now > notAfter + CLOCK_SKEW ? 'expired' : 'agent';
  const authority = fingerprintOf(issuer);
  return { kind, xtrId: match[1] as XtrId, certificate, notAfter, authority };
}

export function agentUri(xtrId: string): string {
  return `urn:stayput:agent:${xtrId}`;
}

/** SHA-256 of a public key, in hex. */
export function keyHash(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}

/** SHA-256 of a certificate's DER, in hex: what a join token pins. */
export function fingerprint(certificate: string): string {
  return fingerprintOf(new X509Certificate(certificate));
}

/** The same of one that is parsed already: parsing is what takes the time. */
export function fingerprintOf(certificate: X509Certificate): string {
  return createHash('sha256').update(certificate.raw).digest('hex');
}

/** True when less than a third of the life is left, the names are not those, or the authority is another one. */
export function needsRenewal(
  certificate: string,
  authority: KeyAndCertificate,
  hosts: readonly string[],
  now: WallClock,
): boolean {
  const parsed = new X509Certificate(certificate);
  if (!parsed.verify(new X509Certificate(authority.certificate).publicKey)) return true;
  if (endOf(parsed) - now < (endOf(parsed) - startOf(parsed)) / 3) return true;
  return !hosts.every((host) =>
    isIpAddress(host) ? parsed.checkIP(host) !== undefined : parsed.checkHost(host) !== undefined,
  );
}

export function startOf(certificate: X509Certificate): WallClock {
  return Date.parse(certificate.validFrom);
}

export function endOf(certificate: X509Certificate): WallClock {
  return Date.parse(certificate.validTo);
}

/** Its subject in a line. */
export function nameOf(certificate: X509Certificate): string {
  return certificate.subject.split('\n').join(', ');
}

function signLeaf(
  authority: KeyAndCertificate,
  publicKey: KeyObject,
  subject: string,
  usage: string,
  names: readonly Asn1[],
  now: WallClock,
  life: Millis,
): string {
  const issuer = new X509Certificate(authority.certificate);
  return signCertificate({
    subject: commonNameOnly(subject),
    issuer: subjectOf(issuer),
    publicKey,
    signer: createPrivateKey(authority.key),
    notBefore: now - BACKDATED,
    notAfter: Math.min(now + life, endOf(issuer)),
    extensions: leafExtensions(usage, names, publicKey, issuer),
  });
}

function readCertificates(pem: string): X509Certificate[] {
  const parts = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  try {
    return parts.map((part) => new X509Certificate(part));
  } catch (cause) {
    throw new CertificateError('the certificate cannot be read', { cause });
  }
}

function newKeyPair(): { readonly privateKey: KeyObject; readonly publicKey: KeyObject } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

function pkcs8(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}

/** By how much clocks may differ, either way. */
export const CLOCK_SKEW = minutes(5);
const DAY = minutes(24 * 60);
const AUTHORITY_LIFE = 3650 * DAY;
const SERVER_LIFE = 365 * DAY;
export const AGENT_LIFE = 30 * DAY;
/** Clocks of joining machines may be behind. */
const BACKDATED = minutes(60);
