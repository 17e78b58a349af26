/** The certificate authorities that an agent trusts: one, or during a roll-over two. Kept as PEM, one after the other. */
import { createHash, X509Certificate } from 'node:crypto';

export function readAnchors(pem: string): readonly X509Certificate[] {
  const parts = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  return parts.slice(0, MAX_ANCHORS).map((part) => new X509Certificate(part));
}

/** SHA-256 of its DER, in hex. */
export function fingerprintOf(certificate: X509Certificate): string {
  return createHash('sha256').update(certificate.raw).digest('hex');
}

/** The one that issued it. */
export function issuerOf(
  certificate: X509Certificate,
  anchors: readonly X509Certificate[],
): X509Certificate | undefined {
  return anchors.find((anchor) => certificate.checkIssued(anchor) && certificate.verify(anchor.publicKey));
}

const MAX_ANCHORS = 4;
