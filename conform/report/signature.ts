/**
 * Signed reports: Ed25519 over the report as JSON with its keys sorted and no white space.
 *
 * A signature says that the holder of the key vouches for the report; whose key it is, its reader has to know. Who made
 * the report could have changed it before it was signed.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { z } from 'zod';
import { StayputError } from '../../proto/errors.ts';
import { LEVELS } from '../check.ts';
import { OUTCOMES } from '../engine.ts';
import { GRADES, makeReport, REPORT_FORMAT, type Report } from './report.ts';

export interface SignedReport extends Report {
  readonly signature: {
    readonly algorithm: 'Ed25519' /** Raw, base64. */;
    readonly publicKey: string;
    readonly value: string;
  };
}

/** A report is none, or is not what was signed. */
export class ReportError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_CONFORM_REPORT', message, options);
  }
}

export interface SigningKey {
  /** PKCS #8, PEM. */
  readonly privateKey: string;
  /** Raw, base64. */
  readonly publicKey: string;
}

export function generateSigningKey(): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), publicKey: rawOf(publicKey) };
}

/** @throws ReportError when the key is no Ed25519 key */
export function signReport(report: Report, privateKey: string): SignedReport {
  const key = readKey(privateKey);
  const publicKey = rawOf(createPublicKey(key));
  const value = sign(null, canonical(report), key).toString('base64');
  return { ...report, signature: { algorithm: 'Ed25519', publicKey, value } };
}

export interface Verified {
  readonly report: Report;
  /** Whose key signed it; undefined for a report that nobody signed. */
  readonly signedBy: string | undefined;
}

/**
 * Reads a report from JSON, or from an HTML page that holds one.
 * @throws ReportError when it is none, its signature is wrong, or its grade and counts do not follow from its checks
 */
export function verifyReport(text: string): Verified {
  const parsed = SIGNED.safeParse(parseJson(text));
  if (!parsed.success) throw new ReportError('this is no conformance report');
  const { signature, ...report } = parsed.data;
  const { grade, counts } = makeReport(report, report.checks);
  if (grade !== report.grade || JSON.stringify(counts) !== JSON.stringify({ ...counts, ...report.counts })) {
    throw new ReportError('the grade of the report does not follow from its checks');
  }
  if (signature === undefined) return { report, signedBy: undefined };
  const key = publicKeyFrom(signature.publicKey);
  if (!verify(null, canonical(report), key, Buffer.from(signature.value, 'base64'))) {
    throw new ReportError('the signature is wrong: the report is not the one that was signed');
  }
  return { report, signedBy: signature.publicKey };
}

function parseJson(text: string): unknown {
  const embedded = /<script type="application\/json" id="report">([\s\S]*?)<\/script>/.exec(text)?.[1];
  try {
    return JSON.parse(embedded ?? text);
  } catch (cause) {
    throw new ReportError('this is no conformance report', { cause });
  }
}

function canonical(value: Report): Buffer {
  return Buffer.from(JSON.stringify(sorted(value)));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sorted(inner)]));
}

function readKey(pem: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (cause) {
    throw new ReportError('the signing key is no private key in PEM', { cause });
  }
  if (key.asymmetricKeyType !== 'ed25519') throw new ReportError('the signing key is no Ed25519 key');
  return key;
}

function rawOf(publicKey: KeyObject): string {
  return Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url').toString('base64');
}

function publicKeyFrom(raw: string): KeyObject {
  const x = Buffer.from(raw, 'base64');
  if (x.length !== 32) throw new ReportError('the key of the signature is no Ed25519 key');
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: x.toString('base64url') }, format: 'jwk' });
}

const VERDICT = z.strictObject({
  id: z.string(),
  level: z.enum(LEVELS),
  source: z.string(),
  title: z.string(),
  sent: z.string(),
  expected: z.string(),
  outcome: z.enum(OUTCOMES),
  seen: z.string(),
  milliseconds: z.number(),
});

const SIGNED = z.strictObject({
  format: z.literal(REPORT_FORMAT),
  tool: z.string(),
  role: z.string(),
  target: z.string(),
  startedAt: z.string(),
  endedAt: z.string(),
  settings: z.record(z.string(), z.string()),
  grade: z.enum(GRADES),
  counts: z.record(z.enum(OUTCOMES), z.number()),
  sent: z.number(),
  checks: z.array(VERDICT),
  signature: z.strictObject({ algorithm: z.literal('Ed25519'), publicKey: z.string(), value: z.string() }).optional(),
});
