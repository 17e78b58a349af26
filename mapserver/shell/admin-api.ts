/** What administrators see and do, on the Unix socket in the data folder. Who can open it may do all of it. */
import { z } from 'zod';
import type { IpPrefix } from '../../proto/address.ts';
import { parseEidKey, prefixEid } from '../../proto/eid.ts';
import { INTERFACE_NAME } from '../../proto/lisp/order.ts';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import { VERSION } from '../../runtime/project-root.ts';
import type { Operation } from '../core/operations.ts';
import type { EidOrder, OrderCode } from '../core/orders.ts';
import {
  type AgentRecord,
  type OwnershipRecord,
  type StoreRecord,
  type TokenRecord,
  tokenState,
} from '../core/records.ts';
import type { Driver } from './driver.ts';
import { apiError, groupNameText, namePatternText, newToken } from './enrolment.ts';
import { nameRoutes } from './names-api.ts';
import { type OverlayFiles, overlayUrl } from './overlay-files.ts';
import { policyRoutes } from './policy-api.ts';
import { ipPrefixText } from './record-codec.ts';
import { siteRoutes } from './sites-api.ts';
import type { Trust } from './trust.ts';

export interface AdminApiOptions {
  readonly driver: Driver;
  readonly overlay: OverlayFiles;
  readonly trust: Trust;
  readonly startedAt: number;
  readonly listen: () => readonly string[];
  readonly metricsPort: () => number | undefined;
  /** Lines of the audit log that could not be written. */
  readonly auditLost: () => number;
}

export function adminRoutes(options: AdminApiOptions): Route[] {
  const { driver, overlay, trust } = options;
  const records = <K extends StoreRecord['kind']>(kind: K): Extract<StoreRecord, { kind: K }>[] =>
    [...driver.core.state.records()].filter(
      (record): record is Extract<StoreRecord, { kind: K }> => record.kind === kind,
    );
  const operate = async (operation: Operation): Promise<TokenRecord | AgentRecord> => {
    const result = await driver.operate(operation);
    if (!result.ok) throw apiError(result.error);
    if (result.record.kind === 'token' || result.record.kind === 'agent') return result.record;
    throw new Error(`this operation must not end in a ${result.record.kind}`);
  };
  const order = async (wanted: EidOrder): Promise<Record<string, unknown>> => {
    const since = performance.now();
    const result = await driver.order(wanted);
    if (!result.ok) throw new ApiError(ORDER_STATUS[result.error.code], result.error.code, result.error.message);
    const view = result.record === undefined ? { eid: wanted.eid.prefix } : eidView(driver, result.record);
    return { ...view, already: result.already, tookMs: Math.round((performance.now() - since) * 10) / 10 };
  };
  const give = (
    eid: IpPrefix,
    agent: string,
    via: string | null,
    patience: number,
    move: boolean,
  ): Promise<Record<string, unknown>> =>
    order({
      kind: 'attach',
      eid: prefixEid(overlay.instance, eid),
      xtrId: resolveAgent(records('agent'), agent),
      interface: via,
      move,
      patience,
    });
  const token = (record: TokenRecord | AgentRecord): unknown =>
    record.kind === 'token' ? tokenView(record, Date.now()) : agentView(driver, record);
  const owned = (kind: 'prefix' | 'name'): OwnershipRecord[] =>
    records('eid').filter(({ eid }) => parseEidKey(eid).kind === kind);
  return [
    ...policyRoutes(driver),
    ...nameRoutes(driver, () => overlay.zone),
    ...siteRoutes(driver, overlay.instance),
    {
      method: 'GET',
      path: '/v1/status',
      handle: () => ({
        version: VERSION,
        url: overlayUrl(overlay),
        fingerprint: presentFingerprint(trust),
        overlay: overlay.prefixes,
        zone: overlay.zone,
        instance: overlay.instance,
        listen: options.listen(),
        metricsPort: options.metricsPort(),
        auditLinesLost: options.auditLost(),
        restored: restorationView(driver),
        uptimeMs: Date.now() - options.startedAt,
        rssBytes: process.memoryUsage.rss(),
        ...driver.core.state.statistics(),
      }),
    },
    {
      method: 'GET',
      path: '/v1/tokens',
      handle: () => ({ tokens: records('token').map((record) => tokenView(record, Date.now())) }),
    },
    {
      method: 'POST',
      path: '/v1/tokens',
      handle: async ({ body }) => {
        const { eids, pools, names, groups, uses, expiresInMs } = parseBody(NEW_TOKEN, body);
        const authority = presentFingerprint(trust);
        const { text, secretHash } = newToken(authority);
        const record = await operate({
          kind: 'create-token',
          secretHash,
          authority,
          eids,
          pools,
          names,
          groups,
          uses,
          ttl: expiresInMs,
        });
        return { token: text, url: overlayUrl(overlay), ...(token(record) as object) };
      },
    },
    {
      method: 'DELETE',
      path: '/v1/tokens/:id',
      handle: async ({ params }) => token(await operate({ kind: 'revoke-token', id: params.id ?? '' })),
    },
    {
      method: 'GET',
      path: '/v1/agents',
      handle: () => ({ agents: records('agent').map((record) => agentView(driver, record)) }),
    },
    {
      method: 'GET',
      path: '/v1/agents/:xtrId',
      handle: ({ params }) => {
        const xtrId = resolveAgent(records('agent'), params.xtrId ?? '');
        const views = records('agent').filter((record) => record.xtrId === xtrId);
        const owns = records('eid').filter(({ owner, state }) => owner === xtrId && state !== 'released');
        return {
          ...views.map((record) => agentView(driver, record))[0],
          owns: owns.map((each) => eidView(driver, each)),
        };
      },
    },
    {
      method: 'DELETE',
      path: '/v1/agents/:xtrId',
      handle: async ({ params, body }) => {
        const { withToken } = parseBody(REVOCATION, body ?? {});
        const xtrId = resolveAgent(records('agent'), params.xtrId ?? '');
        const joinedWith = records('agent').find((record) => record.xtrId === xtrId)?.tokenId ?? '';
        // Before the agent, which might join again in between.
        if (withToken && driver.core.state.token(joinedWith) !== undefined)
          await operate({ kind: 'revoke-token', id: joinedWith });
        const revoked = await operate({ kind: 'revoke-agent', xtrId });
        const left = driver.core.state.token(joinedWith);
        return { ...(token(revoked) as object), token: left === undefined ? null : tokenView(left, Date.now()) };
      },
    },
    {
      method: 'GET',
      path: '/v1/eids',
      handle: () => ({ eids: owned('prefix').map((record) => eidView(driver, record)) }),
    },
    {
      method: 'POST',
      path: '/v1/eids',
      handle: async ({ body }) => {
        const { eid, agent, interface: via, timeoutMs } = parseBody(ATTACH, body);
        return await give(eid, agent, via, timeoutMs, false);
      },
    },
    {
      method: 'POST',
      path: '/v1/moves',
      handle: async ({ body }) => {
        const { eid, agent, interface: via, timeoutMs } = parseBody(ATTACH, body);
        return await give(eid, agent, via, timeoutMs, true);
      },
    },
    {
      method: 'DELETE',
      path: '/v1/eids/:eid',
      handle: async ({ params, query }) => {
        const eid = parseBody(DETACH, { eid: params.eid, timeoutMs: query.get('timeoutMs') ?? undefined });
        return await order({
          kind: 'detach',
          eid: prefixEid(overlay.instance, eid.eid),
          patience: eid.timeoutMs,
        });
      },
    },
    {
      method: 'GET',
      path: '/v1/names',
      handle: () => ({ names: owned('name').map((record) => eidView(driver, record)) }),
    },
    {
      method: 'GET',
      path: '/v1/grants',
      handle: () => ({
        grants: records('agent')
          .filter(({ revokedAt }) => revokedAt === undefined)
          .map(({ xtrId, eids, names, groups }) => ({ xtrId, eids, names, groups })),
      }),
    },
    {
      method: 'POST',
      path: '/v1/grants',
      handle: async ({ body }) => {
        const { agent, ...grant } = parseBody(GRANT_CHANGE, body);
        return token(await operate({ kind: 'add-grant', xtrId: resolveAgent(records('agent'), agent), ...grant }));
      },
    },
    {
      method: 'DELETE',
      path: '/v1/grants',
      handle: async ({ body }) => {
        const { agent, ...grant } = parseBody(GRANT_CHANGE, body);
        return token(await operate({ kind: 'remove-grant', xtrId: resolveAgent(records('agent'), agent), ...grant }));
      },
    },
  ];
}

/** Null: never. */
function restorationView({ core }: Driver): { readonly at: string; readonly backedUpAt: string } | null {
  const record = core.state.restoration();
  if (record === undefined) return null;
  return { at: new Date(record.restoredAt).toISOString(), backedUpAt: new Date(record.backedUpAt).toISOString() };
}

function presentFingerprint({ fingerprints: [present = ''] }: Trust): string {
  return present;
}

/** An xTR-ID, or the start of one that fits one agent only. */
function resolveAgent(agents: readonly AgentRecord[], text: string): AgentRecord['xtrId'] {
  const fits = text.length >= 4 ? agents.filter(({ xtrId }) => xtrId.startsWith(text.toLowerCase())) : [];
  const [agent, other] = fits;
  if (agent === undefined) throw new ApiError(404, 'STAYPUT_AGENT_UNKNOWN', `there is no agent ${text.slice(0, 40)}`);
  if (other !== undefined)
    throw new ApiError(409, 'STAYPUT_AGENT_AMBIGUOUS', `${text} fits ${fits.length} agents; give more digits`);
  return agent.xtrId;
}

function tokenView(record: TokenRecord, now: number): Record<string, unknown> {
  const { id, eids, pools = [], names, groups, uses, used, createdAt, expiresAt } = record;
  return { id, state: tokenState(record, now), eids, pools, names, groups, uses, used, createdAt, expiresAt };
}

function agentView(driver: Driver, record: AgentRecord): Record<string, unknown> {
  const { xtrId, tunnelKey, eids, names, groups, software, enrolledAt, revokedAt, tokenId, certificate } = record;
  const { connectedSince, subscriptions, mappings } = driver.core.state.agentState(xtrId);
  const state = revokedAt !== undefined ? 'revoked' : connectedSince === undefined ? 'gone' : 'connected';
  return {
    xtrId,
    tunnelKey,
    state,
    connectedSince,
    eids,
    names,
    groups,
    mappings,
    subscriptions,
    software,
    enrolledAt,
    revokedAt,
    tokenId,
    certificateNotAfter: certificate?.notAfter,
  };
}

function eidView(driver: Driver, record: OwnershipRecord): Record<string, unknown> {
  const eid = parseEidKey(record.eid);
  const { generation, owner, state, ownerSince, ttl, locators, names, targets, tunnelKey, site } = record;
  const isGone =
    state === 'live' && site === undefined && driver.core.state.agentState(owner).connectedSince === undefined;
  return {
    eid: eid.kind === 'prefix' ? eid.prefix : eid.name,
    instance: eid.iid,
    state: isGone ? 'owner gone' : state,
    generation,
    owner,
    site: site?.name,
    ownerSince,
    ttlMs: ttl,
    tunnelKey,
    ...(eid.kind === 'prefix' ? { locators, names } : { targets }),
  };
}

/** `withToken`: also the token that the agent joined with. */
export const REVOCATION = z.strictObject({ withToken: z.boolean().default(false) });

const timeoutMs = z.coerce.number().int().min(100).max(600_000).default(10_000);
export const ATTACH = z.strictObject({
  eid: ipPrefixText,
  /** xTR-ID, or the start of one. */
  agent: z.string().max(64),
  interface: z.string().regex(INTERFACE_NAME, 'is not the name of a network interface').nullable().default(null),
  timeoutMs,
});
export const DETACH = z.strictObject({ eid: ipPrefixText, timeoutMs });

const ORDER_STATUS: Readonly<Record<OrderCode, number>> = {
  STAYPUT_AGENT_UNKNOWN: 404,
  STAYPUT_AGENT_REVOKED: 409,
  STAYPUT_OUTSIDE_OVERLAY: 422,
  STAYPUT_NOT_GRANTED: 403,
  STAYPUT_NOT_CONNECTED: 409,
  STAYPUT_NOT_REGISTERED: 404,
  STAYPUT_TOO_MANY: 429,
  STAYPUT_TIMEOUT: 504,
};

const GRANT = {
  eids: z
    .array(ipPrefixText)
    .max(256)
    .default([] as IpPrefix[]),
  names: z.array(namePatternText).max(256).default([]),
  groups: z.array(groupNameText).max(256).default([]),
};

export const NEW_TOKEN = z.strictObject({
  ...GRANT,
  pools: z
    .array(ipPrefixText)
    .max(4)
    .default([] as IpPrefix[]),
  uses: z.int().min(1).max(100_000).default(1),
  expiresInMs: z
    .int()
    .min(1_000)
    .max(10 * 365 * 86_400_000)
    .default(86_400_000),
});

/** `agent`: xTR-ID, or the start of one. */
export const GRANT_CHANGE = z.strictObject({ agent: z.string().max(64), ...GRANT });
