/** How agents join: the CA certificate for everybody, and a certificate for whoever has a join token. */
import { createHash, randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import type { IpPrefix } from '../../proto/address.ts';
import { isHostPrefix } from '../../proto/address.ts';
import { nameEid } from '../../proto/eid.ts';
import { isOfSmallOrder } from '../../proto/identity.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { WallClock } from '../../proto/time.ts';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import type { MapServerSettings } from '../config.ts';
import { parseGroupName, parseNamePattern } from '../core/grants.ts';
import type { OperationCode, OperationError } from '../core/operation-error.ts';
import { RateTable } from '../core/rate-table.ts';
import type { CertificateNote } from '../core/records.ts';
import type { AuditLog } from './audit-log.ts';
import { audited } from './audited.ts';
import { type Caller, callerOf, certifyAgent, keyHash } from './certificate-authority.ts';
import type { Driver } from './driver.ts';
import type { LimitReports } from './limit-reports.ts';
import type { MapServerMetrics } from './metrics.ts';
import type { OverlayFiles } from './overlay-files.ts';
import { ipPrefixText, tunnelKeyText } from './record-codec.ts';
import { readSigningRequest } from './signing-request.ts';
import { remoteAddressOf, sourceOf } from './source-address.ts';
import { TokenBucket } from './token-bucket.ts';
import type { Trust } from './trust.ts';

export interface EnrolmentOptions {
  readonly driver: Driver;
  readonly overlay: OverlayFiles;
  readonly trust: Trust;
  readonly metrics: MapServerMetrics;
  readonly reports: LimitReports;
  readonly audit: AuditLog;
  readonly settings: Pick<MapServerSettings, 'enrolment' | 'limits'>;
  readonly reflectorPorts: () => readonly number[];
}

export function enrolmentRoutes(options: EnrolmentOptions): Route[] {
  const { driver, overlay, trust, metrics, reports, audit, settings } = options;
  const { limits } = settings;
  const rate = new TokenBucket(limits.enrolmentsPerSecond, performance.now());
  const perSource = limits.enrolmentsPerSecondAndSource;
  const sources = new RateTable(perSource, 5 * perSource, MAX_SOURCES);
  const renewals = new RateTable(RENEWALS_PER_SECOND, RENEWALS_AT_ONCE, MAX_SOURCES);
  const renew = async (caller: Caller, now: WallClock): Promise<unknown> => {
    demandRenewable(caller, settings.enrolment, now);
    const { xtrId } = caller;
    const { publicKey } = caller.certificate;
    if (!renewals.tryTake(xtrId, performance.now())) {
      throw new ApiError(429, 'STAYPUT_RATE', 'this agent renews its certificate too often; try again in a minute');
    }
    switch (driver.core.admits(xtrId, null)) {
      case 'revoked':
        throw new ApiError(403, 'STAYPUT_AGENT_REVOKED', 'this agent was revoked');
      case 'unknown':
        throw new ApiError(403, 'STAYPUT_AGENT_UNKNOWN', 'this agent is not enrolled here');
      default:
    }
    // The handshake has proved that the caller has the private key.
    const presented = { authority: caller.authority, notAfter: caller.notAfter };
    const certificate = noteOf(trust, now);
    const result = await driver.operate({ kind: 'renew-certificate', xtrId, certificate, presented });
    if (!result.ok) throw apiError(result.error);
    const life = trust.agentCertificateEnd(now) - now;
    return { certificate: certifyAgent(trust.authority, publicKey, xtrId, now, life), ca: trust.anchors };
  };
  const enrol = async (body: unknown, source: string, from: string): Promise<Enrolled> => {
    if (!sources.tryTake(source, performance.now())) {
      reports.hit('enrolmentsPerSecondAndSource', source);
      throw tooMany(metrics);
    }
    const asked = counted(metrics, () => parseBody(ENROL, body));
    const secretHash = hashSecret(counted(metrics, () => secretOf(asked.token)));
    // What everybody shares is used up by those with a token only.
    if (driver.core.state.isTokenValid(secretHash) && !rate.tryTake(performance.now())) {
      reports.hit('enrolmentsPerSecond', source);
      throw tooMany(metrics);
    }
    const publicKey = counted(metrics, () => readSigningRequest(asked.csr));
    const now = Date.now();
    const result = await driver.operate({
      kind: 'enrol',
      secretHash,
      tunnelKey: asked.tunnelKey,
      certificateKey: keyHash(publicKey),
      certificate: noteOf(trust, now),
      eids: asked.eids,
      names: asked.names,
      software: asked.software,
    });
    if (!result.ok) throw apiError(result.error);
    if (result.record.kind !== 'agent') throw new Error('an enrolment must end in an agent');
    const { xtrId, eids, names, assigned, tokenId, enrolledAt } = result.record;
    const token = driver.core.state.token(tokenId);
    if (token?.used === token?.uses && enrolledAt >= now) {
      audit.write({ event: 'token-used-up', who: `agent ${xtrId}`, from, what: { id: tokenId }, result: 'ok' });
    }
    const life = trust.agentCertificateEnd(now) - now;
    return {
      certificate: certifyAgent(trust.authority, publicKey, xtrId, now, life),
      ca: trust.anchors,
      xtrId,
      instance: overlay.instance,
      overlay: overlay.prefixes,
      zone: overlay.zone,
      presharedKey: overlay.presharedKey,
      assigned: assigned ?? [],
      // Whoever asks for nothing in particular gets what the token names one by one.
      eids: asked.eids.length > 0 ? asked.eids : eids.filter(isHostPrefix),
      names: asked.names.length > 0 ? asked.names : names.filter((name) => !name.startsWith('*')),
    };
  };
  return [
    { method: 'GET', path: '/v1/ca', handle: () => ({ ca: trust.anchors, reflector: options.reflectorPorts() }) },
    {
      method: 'POST',
      path: '/v1/renew',
      handle: ({ raw }) => {
        const now = Date.now();
        const caller = callerOf(raw.socket as TLSSocket, trust.certificates, now);
        const who = caller.kind === 'nobody' ? 'unknown' : `agent ${caller.xtrId}`;
        const entry = { event: 'certificate-renewed' as const, who, from: remoteAddressOf(raw.socket), what: {} };
        return audited(successOrLimited(audit), entry, () => renew(caller, now));
      },
    },
    {
      method: 'POST',
      path: '/v1/enrol',
      handle: ({ body, raw }) => {
        const entry = { event: 'agent-enrolled' as const, who: 'unknown', from: remoteAddressOf(raw.socket), what: {} };
        return audited(
          successOrLimited(audit),
          entry,
          () => enrol(body, sourceOf(raw.socket), entry.from),
          ({ xtrId, eids, names }) => ({ agent: xtrId, eids, names, tokenId: driver.core.state.agent(xtrId)?.tokenId }),
        );
      },
    },
  ];
}

interface Enrolled extends Readonly<Record<string, unknown>> {
  readonly xtrId: XtrId;
  readonly eids: readonly string[];
  readonly names: readonly string[];
}

/** What was done is always told, what was refused at a bounded rate: strangers cause that. */
function successOrLimited(audit: AuditLog): Pick<AuditLog, 'write'> {
  return { write: (entry) => (entry.result === 'ok' ? audit.write(entry) : audit.writeLimited(entry)) };
}

/** Why this caller has no session here, or does not get a new certificate. */
export function describeCaller(caller: Exclude<Caller, { kind: 'agent' }>, policy: EnrolmentPolicy): string {
  if (caller.kind === 'nobody') return `An agent certificate of this overlay is needed (${caller.why}).`;
  const ended = `The certificate of this agent ended at ${new Date(caller.notAfter).toISOString()}`;
  if (policy.expiredRenewal === 'allow') return `${ended}; it may be renewed for ${policy.expiredMaxDays} days.`;
  return `${ended}, and this map server does not renew what has ended (enrolment.expiredRenewal): join again with a new token and --force.`;
}

type EnrolmentPolicy = MapServerSettings['enrolment'];

/** @throws ApiError */
function demandRenewable(
  caller: Caller,
  policy: EnrolmentPolicy,
  now: WallClock,
): asserts caller is Exclude<Caller, { kind: 'nobody' }> {
  if (caller.kind === 'agent') return;
  if (caller.kind === 'nobody') throw new ApiError(401, 'STAYPUT_CERTIFICATE', describeCaller(caller, policy));
  const tooOld = now - caller.notAfter > policy.expiredMaxDays * 86_400_000;
  if (policy.expiredRenewal === 'allow' && !tooOld) return;
  const why = describeCaller(caller, policy);
  const hint = policy.expiredRenewal === 'allow' ? ' That is over: join again with a new token and --force.' : '';
  throw new ApiError(401, 'STAYPUT_CERTIFICATE_EXPIRED', `${why}${hint}`);
}

function noteOf(trust: Trust, now: WallClock): CertificateNote {
  const [authority = ''] = trust.fingerprints;
  return { authority, notAfter: trust.agentCertificateEnd(now) };
}

function tooMany(metrics: MapServerMetrics): ApiError {
  metrics.enrolled('rate');
  return new ApiError(429, 'STAYPUT_RATE', 'too many agents join at once; try again in a few seconds');
}

/** A new token: its text for the agent, and the hash that the store keeps. */
export function newToken(caFingerprint: string): { readonly text: string; readonly secretHash: string } {
  const secret = randomBytes(24).toString('base64url');
  const json = JSON.stringify({ f: caFingerprint, s: secret });
  return { text: `${TOKEN_PREFIX}${Buffer.from(json).toString('base64url')}`, secretHash: hashSecret(secret) };
}

export function apiError(error: OperationError): ApiError {
  return new ApiError(STATUS[error.code], error.code, error.message, { cause: error });
}

export const namePatternText = z.string().transform((text, context) => {
  try {
    return parseNamePattern(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

export const groupNameText = z.string().transform((text, context) => {
  try {
    return parseGroupName(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

function counted<T>(metrics: MapServerMetrics, read: () => T): T {
  try {
    return read();
  } catch (error) {
    metrics.enrolled('malformed');
    throw error;
  }
}

/** @throws ApiError */
export function secretOf(token: string): string {
  try {
    if (token.startsWith(TOKEN_PREFIX)) {
      const json: unknown = JSON.parse(Buffer.from(token.slice(TOKEN_PREFIX.length), 'base64url').toString('utf8'));
      return TOKEN.parse(json).s;
    }
  } catch {
    // Answered below: what is wrong with it in detail helps nobody.
  }
  throw new ApiError(401, 'STAYPUT_TOKEN_UNKNOWN', 'this is not a join token; create one with "stayput token create"');
}

function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

const plainName = z.string().transform((text, context) => {
  try {
    return nameEid(0 as Parameters<typeof nameEid>[0], text).name;
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

export const ENROL = z.object({
  token: z.string().max(1024),
  csr: z.string().max(8192),
  tunnelKey: tunnelKeyText.refine(
    (key) => !isOfSmallOrder(key),
    'this tunnel key is a point of small order: no secret can be made with it; use a new identity',
  ),
  eids: z
    .array(ipPrefixText)
    .max(256)
    .default([] as IpPrefix[]),
  names: z.array(plainName).max(256).default([]),
  software: z.string().max(100).default(''),
});

const TOKEN = z.object({ f: z.string(), s: z.string().min(16).max(100) });
const TOKEN_PREFIX = 'stp1.';
/** One in a minute, and a few more when something went wrong. */
const RENEWALS_PER_SECOND = 1 / 60;
const RENEWALS_AT_ONCE = 5;
const MAX_SOURCES = 20_000;

const STATUS: Readonly<Record<OperationCode, number>> = {
  STAYPUT_TOKEN_UNKNOWN: 401,
  STAYPUT_TOKEN_SPENT: 401,
  STAYPUT_TOKEN_EXPIRED: 401,
  STAYPUT_TOKEN_REVOKED: 401,
  STAYPUT_NOT_GRANTED: 403,
  STAYPUT_AGENT_REVOKED: 403,
  STAYPUT_AGENT_UNKNOWN: 404,
  STAYPUT_ALREADY_ENROLLED: 409,
  STAYPUT_POOL_EMPTY: 409,
  STAYPUT_OUTSIDE_OVERLAY: 400,
  STAYPUT_TOO_MANY: 429,
  STAYPUT_POLICY_TEXT: 422,
  STAYPUT_POLICY_TEST: 422,
  STAYPUT_POLICY_TOO_LARGE: 422,
  STAYPUT_POLICY_CHANGED: 409,
  STAYPUT_NO_POLICY: 404,
  STAYPUT_NAME_UNKNOWN: 404,
  STAYPUT_NAME_CHANGED: 409,
  STAYPUT_NAME_RECORDS: 422,
  STAYPUT_SITE: 422,
  STAYPUT_SITE_UNKNOWN: 404,
  STAYPUT_STORE: 503,
};
