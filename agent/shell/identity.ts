/** The files in the state folder: who this agent is, and what must outlive its process. */
import { generateKeyPairSync } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { MAX_RECORDS, MAX_SERVERS, NO_RECORDS } from '../../proto/dns/record-sets.ts';
import { eidKey, instanceId, parseEidKey } from '../../proto/eid.ts';
import { UsageError } from '../../proto/errors.ts';
import { agentAddressOf, parseTunnelKey, parseXtrId } from '../../proto/identity.ts';
import type { Generation, Mapping, TunnelKey, XtrId } from '../../proto/mapping.ts';
import { type AgentPolicy, decodeAgentPolicy } from '../../proto/policy.ts';
import { readJsonFile, StateFileError, writeJsonFile } from '../../runtime/json-file.ts';
import type { Log } from '../../runtime/log.ts';
import type { SavedState } from '../core/agent.ts';
import type { SavedDataplane } from '../core/dataplane-process.ts';
import type { SavedIncarnation } from '../core/incarnation.ts';
import type { SavedEntry } from '../core/map-cache.ts';
import { MAX_WITHDRAWALS } from '../core/map-registers.ts';
import { type AgentIdentity, MAX_OWNED } from '../core/registrar.ts';
import type { MapServerTarget } from './map-server-connection.ts';
import { decoded, parsed } from './parsed.ts';

/** What this agent owns, gave up, and who may take it over. */
export type SavedEids = Pick<SavedState, 'eids' | 'withdrawals' | 'targets' | 'departures'>;

/** Both key pairs of an agent: X25519 for the tunnels, P-256 for TLS. */
export interface AgentKeys {
  /** 32 octets in base64. */
  readonly tunnelPrivateKey: string;
  readonly tunnelKey: TunnelKey;
  /** PKCS#8 PEM. */
  readonly tlsPrivateKey: string;
}

export interface Identity extends AgentKeys {
  readonly mapServer: { readonly host: string; readonly port: number };
  readonly ca: string;
  readonly certificate: string;
  readonly presharedKey: string;
  readonly xtrId: XtrId;
  readonly instance: number;
  readonly overlay: readonly IpPrefix[];
  readonly zone: string;
}

export function generateKeys(): AgentKeys {
  const { x = '', d = '' } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const base64 = (text: string): string => Buffer.from(text, 'base64url').toString('base64');
  return {
    tunnelPrivateKey: base64(d),
    tunnelKey: parseTunnelKey(base64(x)),
    tlsPrivateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

export class StateFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  identity(): Identity | undefined {
    return this.read('identity', IDENTITY);
  }

  /** @throws UsageError when this host has not joined */
  requireIdentity(): Identity {
    const identity = this.identity();
    if (identity !== undefined) return identity;
    throw new UsageError(
      `${this.path}: this host has not joined an overlay; run "sudo stayput agent join URL --token-file FILE" first`,
    );
  }

  writeIdentity(identity: Identity): void {
    writeJsonFile(this.file('identity'), identity);
    rmSync(this.file('joining'), { force: true });
  }

  /** Keys of a join that has begun: if its answer is lost, the next try is the same agent. */
  joiningKeys(): AgentKeys {
    const kept = this.read('joining', KEYS);
    if (kept !== undefined) return kept;
    const keys = generateKeys();
    writeJsonFile(this.file('joining'), keys);
    return keys;
  }

  /** Everything of a former identity; a join that has begun goes on. */
  clear(): void {
    for (const name of FILES) if (name !== 'joining') rmSync(this.file(name), { force: true });
  }

  eids(): SavedEids {
    return this.read('eids', EIDS) ?? { eids: [], withdrawals: [], targets: [], departures: [] };
  }

  writeEids(eids: SavedEids): void {
    writeJsonFile(this.file('eids'), eids);
  }

  /** A broken cache is worth a warning, not an agent that does not start. */
  cache(wallNow: number, log: Log): readonly SavedEntry[] {
    try {
      const saved = this.read('map-cache', CACHE);
      if (saved === undefined) return [];
      const elapsed = Math.max(0, wallNow - saved.savedAt);
      return saved.entries.map(({ ageMs, ...entry }) => ({ ...entry, ageMs: ageMs + elapsed }));
    } catch (err) {
      log.warn({ err }, 'map-cache on disk cannot be used, starting without it');
      return [];
    }
  }

  writeCache(entries: readonly SavedEntry[], wallNow: number): void {
    const plain = entries.map(({ mapping, ...rest }) => ({
      ...rest,
      mapping: { ...mapping, eid: eidKey(mapping.eid) },
    }));
    writeJsonFile(this.file('map-cache'), { savedAt: wallNow, entries: plain });
  }

  dataplane(): SavedDataplane {
    return this.read('dataplane', DATAPLANE) ?? { process: null, epoch: 0 };
  }

  writeDataplane(dataplane: SavedDataplane): void {
    writeJsonFile(this.file('dataplane'), dataplane);
  }

  policy(): AgentPolicy | null {
    return this.read('policy', POLICY) ?? null;
  }

  writePolicy(policy: AgentPolicy | null): void {
    writeJsonFile(this.file('policy'), policy);
  }

  incarnation(): SavedIncarnation | undefined {
    return this.read('incarnation', INCARNATION);
  }

  writeIncarnation(incarnation: SavedIncarnation): void {
    writeJsonFile(this.file('incarnation'), incarnation);
  }

  /** @throws UsageError that says what to do */
  private read<T extends z.ZodType>(name: (typeof FILES)[number], schema: T): z.output<T> | undefined {
    try {
      return readJsonFile(this.file(name), schema);
    } catch (cause) {
      if (!(cause instanceof StateFileError)) throw cause;
      throw new UsageError(`${cause.message}; restore the file, or delete it${AFTERWARDS[name]}`, { cause });
    }
  }

  private file(name: (typeof FILES)[number]): string {
    return join(this.path, `${name}.json`);
  }
}

const AFTERWARDS: Readonly<Record<(typeof FILES)[number], string>> = {
  identity: ' and join again',
  joining: '',
  eids: ' and attach the EIDs again',
  'map-cache': '',
  dataplane: '',
  policy: ': the map server says it again',
  incarnation: '; the map server may then say that another agent is newer',
};

export function agentIdentity(identity: Identity): AgentIdentity {
  return {
    xtrId: identity.xtrId,
    tunnelKey: identity.tunnelKey,
    agentAddress: agentAddressOf(identity.tunnelKey),
    instance: instanceId(identity.instance),
  };
}

export function mapServerTarget(identity: Identity): MapServerTarget {
  const { mapServer, ca, certificate, tlsPrivateKey } = identity;
  return { ...mapServer, ca, certificate, privateKey: tlsPrivateKey };
}

const FILES = ['identity', 'joining', 'eids', 'map-cache', 'dataplane', 'policy', 'incarnation'] as const;

const key = parsed(parseTunnelKey);
const pem = z.string().includes('-----BEGIN ').max(65_536);
const generation = z
  .int()
  .min(0)
  .transform((value) => value as Generation);

const KEYS = z.object({ tunnelPrivateKey: z.string().length(44), tunnelKey: key, tlsPrivateKey: pem });

const IDENTITY = KEYS.extend({
  mapServer: z.object({ host: z.string().min(1), port: z.int().min(1).max(65535) }),
  ca: pem,
  certificate: pem,
  presharedKey: z.string().length(44),
  xtrId: parsed(parseXtrId),
  instance: z.int(),
  overlay: z.array(parsed(parseIpPrefix)),
  zone: z.string().min(1),
});

const EIDS = z.object({
  eids: z
    .array(
      z.object({
        eid: parsed((text) => eidKey(parseEidKey(text))),
        kind: z.enum(['agent', 'address', 'name']),
        state: z.enum(['base', 'target', 'live', 'drain', 'lost']),
        generation,
        interface: z.string().nullable(),
        when: z.enum(['now', 'up', 'seen']).default('up'),
        names: z.array(z.string()),
        problem: z.string().max(500).nullable().default(null),
        yielded: z.boolean().default(false),
        awaitsGrant: z.boolean().default(false),
      }),
    )
    .max(MAX_OWNED),
  withdrawals: z
    .array(z.object({ eid: parsed((text) => eidKey(parseEidKey(text))), generation }))
    .max(MAX_WITHDRAWALS)
    .default([]),
  targets: z
    .array(z.object({ eid: parsed((text) => eidKey(parseEidKey(text))), tunnelKey: key }))
    .max(8192)
    .default([]),
  departures: z
    .array(
      z.object({
        eid: parsed((text) => eidKey(parseEidKey(text))),
        to: key,
        owner: parsed(parseXtrId),
        generation,
      }),
    )
    .max(8192)
    .default([]),
});

const LOCATOR = z.object({
  address: parsed(parseIpAddress),
  port: z.int().min(0).max(65535),
  priority: z.int().min(0).max(255),
  weight: z.int().min(0).max(255),
});

const WORD = z.int().min(0).max(65535);
const ZONE = z.object({
  weights: z.array(z.int().min(0).max(255)).max(255),
  records: z
    .object({
      ttl: z.int().min(0).nullable(),
      cname: z.string().nullable(),
      srv: z.array(z.object({ priority: WORD, weight: WORD, port: WORD, target: z.string() })).max(MAX_RECORDS),
      txt: z.array(z.string()).max(MAX_RECORDS),
      ns: z.array(z.object({ host: z.string(), addresses: z.array(parsed(parseIpAddress)) })).max(MAX_SERVERS),
    })
    .transform((records) => ({ ...NO_RECORDS, ...records })),
  cut: z.string().nullable(),
});

const MAPPING = z
  .object({
    eid: parsed(parseEidKey),
    ttl: z.number().min(0),
    action: z.enum(['no-action', 'natively-forward', 'send-map-request', 'drop', 'policy-denied', 'auth-failure']),
    generation,
    owner: parsed(parseXtrId).optional(),
    tunnelKey: key.optional(),
    locators: z.array(LOCATOR).max(255),
    names: z.array(z.string()).max(255),
    targets: z.array(parsed(parseIpAddress)).max(255),
    zone: ZONE.optional(),
  })
  .transform(
    ({ owner, tunnelKey, zone, ...rest }): Mapping => ({
      ...rest,
      ...(zone === undefined ? {} : { zone }),
      ...(owner === undefined ? {} : { owner }),
      ...(tunnelKey === undefined ? {} : { tunnelKey }),
    }),
  );

const CACHE = z.object({
  savedAt: z.number(),
  entries: z.array(z.object({ mapping: MAPPING, ageMs: z.number(), asked: z.boolean() })).max(65_536),
});

const INCARNATION = z.object({
  run: z.int().min(0),
  machine: z.object({ machineId: z.string().max(64).nullable(), productUuid: z.string().max(64).nullable() }),
  fencedBy: z.int().min(0).nullable(),
});

const POLICY = decoded(decodeAgentPolicy).nullable();

const DATAPLANE = z.object({ process: z.string().nullable(), epoch: z.int().min(0) });
