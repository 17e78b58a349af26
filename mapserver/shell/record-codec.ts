/** Records as the JSON text that the store keeps. */
import { z } from 'zod';
import { type IpAddress, type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { type EidKey, eidKey, instanceId, parseEidKey } from '../../proto/eid.ts';
import { StayputError } from '../../proto/errors.ts';
import { parseTunnelKey, parseXtrId } from '../../proto/identity.ts';
import type { Generation } from '../../proto/mapping.ts';
import { firstIssue } from '../../runtime/json-file.ts';
import { parseNamePattern } from '../core/grants.ts';
import { parsePolicy } from '../core/policy/language.ts';
import {
  FORGOTTEN_GENERATIONS_KEY,
  POLICY_KEY,
  RESTORATION_KEY,
  type RecordKey,
  type StoreRecord,
} from '../core/records.ts';

export class RecordError extends StayputError {
  constructor(key: string, problem: string, options?: ErrorOptions) {
    super('STAYPUT_RECORD', `the store's record ${key} cannot be read: ${problem}`, options);
  }
}

export function encodeRecord(record: StoreRecord): string {
  return JSON.stringify(record);
}

/** Undefined for keys of other kinds, which newer versions may have. @throws RecordError */
export function decodeRecord(key: string, text: string): StoreRecord | undefined {
  if (!isRecordKey(key)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new RecordError(key, 'it is not JSON', { cause });
  }
  const parsed = RECORD.safeParse(value);
  if (!parsed.success) throw new RecordError(key, firstIssue(parsed.error), { cause: parsed.error });
  return parsed.data as StoreRecord;
}

export function isRecordKey(key: string): key is RecordKey {
  return /^(eid|agent|token|name|site|site-nonces)\//.test(key) || SINGLE_KEYS.has(key);
}

/** Text that `parse` accepts, in its canonical form. */
export function parsedBy<T>(parse: (text: string) => T): z.ZodPipe<z.ZodString, z.ZodTransform<Awaited<T>, string>> {
  return z.string().transform((text, context) => {
    try {
      return parse(text) as Awaited<T>;
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message });
      return z.NEVER;
    }
  });
}

export const ipPrefixText = parsedBy<IpPrefix>(parseIpPrefix);
export const ipAddressText = parsedBy<IpAddress>(parseIpAddress);
const eidKeyText = parsedBy<EidKey>((text) => eidKey(parseEidKey(text)));
export const namePatternText = parsedBy(parseNamePattern);
export const tunnelKeyText = parsedBy(parseTunnelKey);
export const xtrIdText = parsedBy(parseXtrId);
const wallClock = z.number();

const OWNERSHIP = z.object({
  kind: z.literal('eid'),
  eid: eidKeyText,
  generation: z
    .int()
    .positive()
    .transform((value) => value as Generation),
  owner: xtrIdText,
  tunnelKey: tunnelKeyText.optional(),
  site: z
    .object({
      name: z.string(),
      rlocs: z.base64(),
      rlocCount: z.int().min(0).max(255),
      proxyReply: z.boolean(),
      mapVersion: z.int().min(0).max(0xfff),
    })
    .optional(),
  state: z.enum(['live', 'withdrawn', 'released']),
  ownerSince: wallClock,
  ttl: z.number(),
  locators: z.array(
    z.object({
      address: ipAddressText,
      port: z.int().min(0).max(65535),
      priority: z.int().min(0).max(255),
      weight: z.int().min(0).max(255),
    }),
  ),
  names: z.array(z.string()),
  targets: z.array(ipAddressText),
});

const CERTIFICATE_NOTE = z.object({ authority: z.string(), notAfter: wallClock });

const AGENT = z.object({
  kind: z.literal('agent'),
  xtrId: xtrIdText,
  tunnelKey: tunnelKeyText,
  certificateKey: z.string(),
  certificate: CERTIFICATE_NOTE.optional(),
  formerCertificate: CERTIFICATE_NOTE.optional(),
  tokenId: z.string(),
  assigned: z.array(ipPrefixText).optional(),
  withdrawn: z.array(ipPrefixText).optional(),
  eids: z.array(ipPrefixText),
  names: z.array(z.string()),
  groups: z.array(z.string()).default([]),
  software: z.string(),
  enrolledAt: wallClock,
  revokedAt: wallClock.optional(),
  incarnation: z.object({ run: z.int().min(0), process: z.string().max(16) }).optional(),
});

const TOKEN = z.object({
  kind: z.literal('token'),
  id: z.string(),
  secretHash: z.string(),
  authority: z.string().optional(),
  eids: z.array(ipPrefixText),
  names: z.array(z.string()),
  groups: z.array(z.string()).default([]),
  pools: z.array(ipPrefixText).optional(),
  uses: z.int(),
  used: z.int(),
  createdAt: wallClock,
  expiresAt: wallClock,
  revokedAt: wallClock.optional(),
});

const POLICY_VERSION = {
  version: z.int().positive(),
  text: z.string(),
  appliedAt: wallClock,
};
const POLICY = z.object({
  kind: z.literal('policy'),
  ...POLICY_VERSION,
  /** What cannot be read would hold for nobody: better no map server than one without its policy. */
  text: z.string().superRefine((text, context) => {
    try {
      parsePolicy(text);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message });
    }
  }),
  previous: z.object(POLICY_VERSION).nullable(),
});

const octetPair = z.int().min(0).max(65_535);
/** What the rules of `proto/dns/record-sets.ts` say is checked where it is set. */
export const RECORD_SETS = z.object({
  ttl: z.int().min(0).nullable().default(null),
  cname: z.string().nullable().default(null),
  srv: z.array(z.object({ priority: octetPair, weight: octetPair, port: octetPair, target: z.string() })).default([]),
  txt: z.array(z.string()).default([]),
  ns: z.array(z.object({ host: z.string(), addresses: z.array(ipAddressText).default([]) })).default([]),
  addresses: z.array(ipAddressText).default([]),
  weights: z.array(z.object({ address: ipAddressText, weight: z.int().min(0).max(255) })).default([]),
});

const NAME = z.object({
  kind: z.literal('name'),
  iid: z
    .int()
    .min(0)
    .transform((value) => instanceId(value)),
  name: z.string(),
  version: z.int().positive(),
  records: RECORD_SETS,
});

export const SITE_KEY = z.strictObject({
  keyId: z.int().min(0).max(255),
  algorithm: z.union([z.literal(1), z.literal(2), z.literal(3)]),
  secret: z.base64().max(344),
});

export const SITE_PREFIX = z.strictObject({ prefix: ipPrefixText, moreSpecifics: z.boolean().default(false) });

const SITE = z.object({
  kind: z.literal('site'),
  name: z.string(),
  iid: z
    .int()
    .min(0)
    .transform((value) => instanceId(value)),
  prefixes: z.array(SITE_PREFIX),
  keys: z.array(SITE_KEY.extend({ addedAt: wallClock.optional() })),
  allowSha1: z.boolean(),
  legacyReplay: z.boolean(),
  maxEids: z.int().positive().optional(),
  createdAt: wallClock,
});

const nonceText = z.string().regex(/^[0-9a-f]{1,16}$/);

const SITE_NONCES = z.object({
  kind: z.literal('site-nonces'),
  site: z.string(),
  last: z.record(z.string(), nonceText),
  first: z.record(z.string(), nonceText).optional(),
  forgotten: z.record(z.string(), z.object({ first: nonceText, last: nonceText })).optional(),
});

const RESTORATION = z.object({
  kind: z.literal('restoration'),
  restoredAt: wallClock,
  backedUpAt: wallClock,
  floor: z.int().positive(),
});

const FORGOTTEN_GENERATIONS = z.object({ kind: z.literal('forgotten-generations'), floor: z.int().positive() });

const RECORD = z.discriminatedUnion('kind', [
  OWNERSHIP,
  AGENT,
  TOKEN,
  POLICY,
  NAME,
  SITE,
  SITE_NONCES,
  RESTORATION,
  FORGOTTEN_GENERATIONS,
]);

const SINGLE_KEYS: ReadonlySet<string> = new Set([POLICY_KEY, RESTORATION_KEY, FORGOTTEN_GENERATIONS_KEY]);
