/** What the checks are about: this host, its agent if that answers, and the map server that it has or is to get. */
import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { StayputError } from '../../proto/errors.ts';
import { callApi } from '../../runtime/http-api.ts';
import type { AgentConfig } from '../config.ts';
import { parseMapServerUrl } from '../shell/enrolment.ts';
import { type Identity, StateFolder } from '../shell/identity.ts';

export interface Subject {
  readonly config: AgentConfig;
  /** What the agent says of itself; null while it does not answer. */
  readonly status: AgentStatus | null;
  /** Why not, in a line. */
  readonly away: string | null;
  readonly mapServer: { readonly host: string; readonly port: number; readonly ca: string | null } | null;
  /** Null: this host has not joined, or its state may not be read. */
  readonly joined: { readonly certificate: X509Certificate } | null;
  readonly unreadable: string | null;
  readonly overlay: readonly string[];
}

export type AgentStatus = z.output<typeof STATUS>;

/** `url`: of the map server, for a host that has not joined. @throws UsageError when it is none */
export async function subjectOf(config: AgentConfig, url: string | undefined): Promise<Subject> {
  let status: AgentStatus | null = null;
  let away: string | null = null;
  try {
    status = STATUS.parse(await callApi({ socketPath: config.socket }, 'GET', '/v1/status', { timeoutMs: TIMEOUT }));
  } catch (error) {
    away = `no answer at ${config.socket} (${(error as Error).message.split('\n', 1)[0]})`;
  }
  let identity: Identity | undefined;
  let unreadable: string | null = null;
  try {
    identity = new StateFolder(config.stateDir).identity();
  } catch (error) {
    if (!(error instanceof StayputError)) throw error;
    unreadable = error.message;
  }
  const known = url === undefined ? (identity?.mapServer ?? status?.mapServer) : parseMapServerUrl(url);
  return {
    config,
    status,
    away,
    mapServer: known === undefined ? null : { host: known.host, port: known.port, ca: identity?.ca ?? null },
    joined: identity === undefined ? null : { certificate: new X509Certificate(identity.certificate) },
    unreadable,
    overlay: status?.overlay ?? identity?.overlay ?? [],
  };
}

const STATUS = z.object({
  version: z.string(),
  overlay: z.array(z.string()),
  registered: z.boolean(),
  fenced: z.boolean(),
  agentAddress: z.string(),
  locators: z.array(z.object({ address: z.string() })),
  uplinks: z.array(z.object({ address: z.string(), interface: z.string(), silent: z.boolean() })).default([]),
  mapServer: z.object({
    host: z.string(),
    port: z.number(),
    connected: z.boolean(),
  }),
  dataplane: z.object({ connected: z.boolean(), software: z.string().nullable(), offloads: z.array(z.string()) }),
  eids: z.array(z.object({ eid: z.string(), interface: z.string().nullable() })),
  heard: z
    .array(
      z.object({
        publicKey: z.string(),
        endpoint: z.object({ address: z.string(), port: z.number() }).nullable(),
        session: z.string(),
        lastReceivedMs: z.number().nullable(),
        rttUs: z.number().nullable(),
        pathMtu: z.number(),
        eids: z.array(z.string()),
      }),
    )
    .nullable()
    .default(null),
  problems: z.array(z.string()),
});

/** Milliseconds. */
const TIMEOUT = 5_000;
