/** PKCS#10 requests of agents that join: only the key in them counts, and the proof that the requester has it. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import forge from 'node-forge';
import { type Asn1, CertificateError, der, OID, parseDer } from './x509.ts';

/**
 * The public key of a PKCS#10 request, whose signature proves that the requester has the private one. @throws
 * CertificateError
 */
export function readSigningRequest(pem: string): KeyObject {
  const { info, algorithm, signature } = parseRequest(pem);
  const publicKey = requestKey(info);
  const named = child(algorithm, 0).value;
  const algorithmOid = typeof named === 'string' ? forge.asn1.derToOid(forge.util.createBuffer(named)) : '';
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

const MAX_REQUEST = 8192;
