/** How agents join: the CA certificate for everybody, and a certificate for whoever has a join token. */
import { createHash, randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import type { IpPrefix } from '../../proto/address.ts';
import { isHostPrefix } from '../../proto/address.ts';
import { nameEid } from '../../proto/eid.ts';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import { parseGroupName, parseNamePattern } from '../core/grants.ts';
import type { OperationCode, OperationError } from '../core/operation-error.ts';
import { callerOf, certifyAgent, keyHash, readSigningRequest } from './certificate-authority.ts';
import type { Driver } from './driver.ts';
import type { MapServerMetrics } from './metrics.ts';
import type { OverlayFiles } from './overlay-files.ts';
import { ipPrefixText, tunnelKeyText } from './record-codec.ts';
import { TokenBucket } from './token-bucket.ts';

export interface EnrolmentOptions {
  readonly driver: Driver;
  readonly overlay: OverlayFiles;
  readonly metrics: MapServerMetrics;
  readonly perSecond: number;
}

export function enrolmentRoutes({ driver, overlay, metrics, perSecond }: EnrolmentOptions): Route[] {
  const rate = new TokenBucket(perSecond, performance.now());
  const ca = overlay.authority.certificate;
  return [
    { method: 'GET', path: '/v1/ca', handle: () => ({ ca }) },
    {
      method: 'POST',
      path: '/v1/renew',
      handle: ({ raw }) => {
        const socket = raw.socket as TLSSocket;
        const xtrId = callerOf(socket);
        const publicKey = socket.getPeerX509Certificate()?.publicKey;
        if (xtrId === undefined || publicKey === undefined) {
          throw new ApiError(401, 'STAYPUT_CERTIFICATE', 'a valid agent certificate of this overlay is needed');
        }
        if (driver.core.admits(xtrId, null) !== 'yes') {
          throw new ApiError(403, 'STAYPUT_AGENT_REVOKED', 'this agent is not enrolled, or was revoked');
        }
        // The handshake has proved that the caller has the private key.
        return { certificate: certifyAgent(overlay.authority, publicKey, xtrId, Date.now()) };
      },
    },
    {
      method: 'POST',
      path: '/v1/enrol',
      handle: async ({ body }) => {
        if (!rate.tryTake(performance.now())) {
          metrics.enrolled('rate');
          throw new ApiError(429, 'STAYPUT_RATE', 'too many agents join at once; try again in a few seconds');
        }
        const asked = counted(metrics, () => parseBody(ENROL, body));
        const secret = counted(metrics, () => secretOf(asked.token));
        const publicKey = counted(metrics, () => readSigningRequest(asked.csr));
        const result = await driver.operate({
          kind: 'enrol',
          secretHash: hashSecret(secret),
          tunnelKey: asked.tunnelKey,
          certificateKey: keyHash(publicKey),
          eids: asked.eids,
          names: asked.names,
          software: asked.software,
        });
        if (!result.ok) throw apiError(result.error);
        if (result.record.kind !== 'agent') throw new Error('an enrolment must end in an agent');
        const { xtrId, eids, names } = result.record;
        return {
          certificate: certifyAgent(overlay.authority, publicKey, xtrId, Date.now()),
          ca,
          xtrId,
          instance: overlay.instance,
          overlay: overlay.prefixes,
          zone: overlay.zone,
          presharedKey: overlay.presharedKey,
          // Whoever asks for nothing in particular gets what the token names one by one.
          eids: asked.eids.length > 0 ? asked.eids : eids.filter(isHostPrefix),
          names: asked.names.length > 0 ? asked.names : names.filter((name) => !name.startsWith('*')),
        };
      },
    },
  ];
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
  tunnelKey: tunnelKeyText,
  eids: z
    .array(ipPrefixText)
    .max(256)
    .default([] as IpPrefix[]),
  names: z.array(plainName).max(256).default([]),
  software: z.string().max(100).default(''),
});

const TOKEN = z.object({ f: z.string(), s: z.string().min(16).max(100) });
const TOKEN_PREFIX = 'stp1.';

const STATUS: Readonly<Record<OperationCode, number>> = {
  STAYPUT_TOKEN_UNKNOWN: 401,
  STAYPUT_TOKEN_SPENT: 401,
  STAYPUT_TOKEN_EXPIRED: 401,
  STAYPUT_TOKEN_REVOKED: 401,
  STAYPUT_NOT_GRANTED: 403,
  STAYPUT_AGENT_REVOKED: 403,
  STAYPUT_AGENT_UNKNOWN: 404,
  STAYPUT_ALREADY_ENROLLED: 409,
  STAYPUT_OUTSIDE_OVERLAY: 400,
  STAYPUT_TOO_MANY: 429,
  STAYPUT_STORE: 503,
};
