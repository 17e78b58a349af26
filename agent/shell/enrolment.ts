/**
 * Joining an overlay: the token names the CA by its fingerprint, so the first contact is already authenticated; a CSR
 * and the tunnel public key go to the map server, a certificate and the overlay's parameters come back.
 *
 * Keys are made and kept before the map server is asked. When its answer is lost, the same command with the same token
 * is the same agent again.
 */
import { createPrivateKey, createPublicKey, sign, type X509Certificate } from 'node:crypto';
import forge from 'node-forge';
import { z } from 'zod';
import {
  hostPrefix,
  type IpPrefix,
  isHostPrefix,
  parseIpAddress,
  parseIpPrefix,
  prefixAddress,
} from '../../proto/address.ts';
import { DEFAULT_INSTANCE, nameEid } from '../../proto/eid.ts';
import { StayputError, UsageError } from '../../proto/errors.ts';
import { parseXtrId, xtrIdOf } from '../../proto/identity.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { ApiError, type ApiTarget, callApi } from '../../runtime/http-api.ts';
import { firstIssue } from '../../runtime/json-file.ts';
import { keep, type Machine, NEVER_RUN } from '../core/incarnation.ts';
import type { SavedEid } from '../core/registrar.ts';
import { Registrar } from '../core/registrar.ts';
import { type AgentKeys, agentIdentity, type Identity, type StateFolder } from './identity.ts';
import { readMachine } from './machine.ts';
import { overlayPrefixes, parsed } from './parsed.ts';
import { fingerprintOf, readAnchors } from './trust-anchors.ts';

export class EnrolmentError extends StayputError {}

export interface JoinRequest {
  readonly url: string;
  readonly token: string;
  readonly eids: readonly string[];
  /** `NAME` for all EIDs, or `NAME=ADDRESS`. */
  readonly names: readonly string[];
  readonly force: boolean;
  readonly software: string;
}

export type JoinResult =
  | { readonly kind: 'joined'; readonly identity: Identity; readonly eids: readonly SavedEid[] }
  | { readonly kind: 'already'; readonly identity: Identity };

/** @throws UsageError, EnrolmentError, ApiError */
export async function join(folder: StateFolder, request: JoinRequest): Promise<JoinResult> {
  const mapServer = parseMapServerUrl(request.url);
  // Without EIDs the names are for what the map server assigns.
  const waits = request.eids.length === 0 && request.names.length > 0;
  const wanted = parseOwned(request.eids, waits ? [] : request.names);
  const names = waits ? request.names.map(plainName) : [...new Set(wanted.flatMap((each) => each.names))];
  const existing = folder.identity();
  if (existing !== undefined && !request.force) {
    const { host, port } = existing.mapServer;
    if (host === mapServer.host && port === mapServer.port) return { kind: 'already', identity: existing };
    throw new UsageError(
      `${folder.path}: already joined to ${host}:${port}; use --force to give that identity up and join ${mapServer.host}:${mapServer.port}`,
    );
  }
  const fingerprint = tokenFingerprint(request.token);
  const keys = folder.joiningKeys();
  const ca = await fetchCa(mapServer, fingerprint);
  const answer = await enrol({ ...mapServer, ca }, keys, request, wanted, names);
  const identity = identityFrom(answer, keys, mapServer);
  if (waits && answer.assigned.length === 0) {
    throw new UsageError(`--name ${request.names[0]}: the token assigns no EID; give --eid, with the same token`);
  }
  const owned = wanted.length > 0 ? wanted : answer.assigned.map((prefix) => ({ prefix, names }));
  const eids = firstEids(identity, owned);
  // Not before: a refused token must not cost the identity that this host has.
  if (existing !== undefined) folder.clear();
  folder.writeEids({ eids, withdrawals: [], targets: [], departures: [] });
  folder.writeIncarnation({ ...NEVER_RUN, machine: readMachine() });
  folder.writeIdentity(identity);
  return { kind: 'joined', identity, eids };
}

/**
 * For a copy: new keys at the map server of before, with what the new token grants. Nothing of the old identity is
 * kept, so the other agent that has it goes on undisturbed. @throws UsageError, EnrolmentError, ApiError
 */
export async function resetIdentity(
  folder: StateFolder,
  request: Omit<JoinRequest, 'url' | 'force'>,
): Promise<JoinResult> {
  const { host, port } = folder.requireIdentity().mapServer;
  return join(folder, { ...request, url: `https://${formatHostPort(host, port)}`, force: true });
}

/** For the one that is to keep the identity: its next start is the newest, and on this machine. @throws UsageError */
export function keepIdentity(folder: StateFolder, machine: Machine): Identity {
  const identity = folder.requireIdentity();
  folder.writeIncarnation(keep(folder.incarnation() ?? NEVER_RUN, machine));
  return identity;
}

/** `https://host[:4342]`, `host[:port]`. @throws UsageError */
export function parseMapServerUrl(text: string): { readonly host: string; readonly port: number } {
  const wrong = (why: string): UsageError =>
    new UsageError(
      `"${text}" is not the URL of a map server (${why}); it looks like https://mapserver.example:${DEFAULT_PORT}`,
    );
  let url: URL;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `https://${text}`);
  } catch {
    throw wrong('it cannot be parsed');
  }
  if (url.protocol !== 'https:') throw wrong('only https is possible');
  if (url.username !== '' || url.search !== '' || url.hash !== '') throw wrong('only a host and a port are expected');
  if (url.pathname !== '/' && url.pathname !== '') throw wrong('no path is expected');
  // An explicit :443 disappears in `url.port`.
  const port = url.port !== '' ? Number(url.port) : /:443\/?$/.test(text) ? 443 : DEFAULT_PORT;
  return { host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port };
}

/** Of the CA that a join token is for. @throws UsageError */
export function tokenFingerprint(text: string): string {
  const match = /^stp1\.([A-Za-z0-9_-]{20,1000})$/.exec(text.trim());
  try {
    const value: unknown = JSON.parse(Buffer.from(match?.[1] ?? '', 'base64url').toString('utf8'));
    return TOKEN.parse(value).f;
  } catch (cause) {
    throw new UsageError(
      'the join token is not complete or mistyped; it begins with "stp1." (make one by "stayput token create")',
      { cause },
    );
  }
}

export interface OwnedRequest {
  readonly prefix: IpPrefix;
  readonly names: readonly string[];
}

/** Pairs names with EIDs. @throws UsageError */
export function parseOwned(eids: readonly string[], names: readonly string[]): readonly OwnedRequest[] {
  const owned = new Map<IpPrefix, string[]>();
  for (const text of eids) owned.set(usage('--eid', text, parseIpPrefix), []);
  for (const text of names) {
    const [nameText = '', addressText] = text.split('=', 2);
    const { name } = usage('--name', nameText, (each) => nameEid(DEFAULT_INSTANCE, each));
    if (addressText === undefined) {
      const hosts = [...owned.keys()].filter(isHostPrefix);
      if (hosts.length === 0)
        throw new UsageError(`--name ${text}: it needs an --eid with a single address to point to`);
      for (const prefix of hosts) owned.get(prefix)?.push(name);
      continue;
    }
    const prefix = hostPrefix(usage('--name', addressText, parseIpAddress));
    const names = owned.get(prefix);
    if (names === undefined)
      throw new UsageError(`--name ${text}: ${prefixAddress(prefix)} is not among the --eid addresses`);
    names.push(name);
  }
  return [...owned].map(([prefix, list]) => ({ prefix, names: [...new Set(list)] }));
}

/** PKCS#10 for a P-256 key; the map server names the agent, so the subject says nothing that is believed. */
export function certificateRequest(tlsPrivateKeyPem: string, commonName: string): string {
  const { asn1 } = forge;
  const { Class, Type } = asn1;
  const privateKey = createPrivateKey(tlsPrivateKeyPem);
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  const sequence = (values: forge.asn1.Asn1[]): forge.asn1.Asn1 =>
    asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, values);
  const oid = (dotted: string): forge.asn1.Asn1 =>
    asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(dotted).getBytes());
  const subject = sequence([
    asn1.create(Class.UNIVERSAL, Type.SET, true, [
      sequence([oid('2.5.4.3'), asn1.create(Class.UNIVERSAL, Type.UTF8, false, commonName)]),
    ]),
  ]);
  const info = sequence([
    asn1.create(Class.UNIVERSAL, Type.INTEGER, false, asn1.integerToDer(0).getBytes()),
    subject,
    asn1.fromDer(spki.toString('binary')),
    asn1.create(Class.CONTEXT_SPECIFIC, 0, true, []),
  ]);
  const signature = sign('sha256', Buffer.from(asn1.toDer(info).getBytes(), 'binary'), privateKey);
  const request = sequence([
    info,
    sequence([oid('1.2.840.10045.4.3.2')]),
    asn1.create(Class.UNIVERSAL, Type.BITSTRING, false, `\0${signature.toString('binary')}`),
  ]);
  const base64 = Buffer.from(asn1.toDer(request).getBytes(), 'binary').toString('base64');
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`;
}

/** @throws UsageError */
function plainName(text: string): string {
  if (text.includes('=')) throw new UsageError(`--name ${text}: its address is not among the --eid addresses`);
  return usage('--name', text, (each) => nameEid(DEFAULT_INSTANCE, each)).name;
}

async function fetchCa(mapServer: { host: string; port: number }, fingerprint: string): Promise<string> {
  const answer = CA_ANSWER.safeParse(await call(mapServer, 'GET', '/v1/ca'));
  if (!answer.success) {
    throw new EnrolmentError('STAYPUT_CA', `${mapServer.host}:${mapServer.port} answers, but is not a map server`);
  }
  const { ca } = answer.data;
  let named: X509Certificate | undefined;
  try {
    named = readAnchors(ca).find((each) => fingerprintOf(each) === fingerprint);
  } catch (cause) {
    throw new EnrolmentError('STAYPUT_CA', 'the map server sent something that is not a CA certificate', { cause });
  }
  if (named !== undefined) return named.toString();
  throw new EnrolmentError(
    'STAYPUT_CA_FINGERPRINT',
    `the CA of ${mapServer.host}:${mapServer.port} is not the one that the token names: wrong address, a token of another map server, or somebody in between. Nothing was sent`,
  );
}

async function enrol(
  target: { host: string; port: number; ca: string },
  keys: AgentKeys,
  request: JoinRequest,
  owned: readonly OwnedRequest[],
  names: readonly string[],
): Promise<z.output<typeof ENROL_ANSWER>> {
  const body = {
    token: request.token.trim(),
    csr: certificateRequest(keys.tlsPrivateKey, xtrIdOf(keys.tunnelKey)),
    tunnelKey: keys.tunnelKey,
    eids: owned.map(({ prefix }) => prefix),
    names,
    software: request.software,
  };
  const answer = ENROL_ANSWER.safeParse(await call(target, 'POST', '/v1/enrol', body));
  if (answer.success) return answer.data;
  throw new EnrolmentError('STAYPUT_ENROL', `the map server's answer is wrong (${firstIssue(answer.error)})`);
}

function identityFrom(
  answer: z.output<typeof ENROL_ANSWER>,
  keys: AgentKeys,
  mapServer: { host: string; port: number },
): Identity {
  if (answer.xtrId !== xtrIdOf(keys.tunnelKey)) {
    throw new EnrolmentError('STAYPUT_ENROL', 'the map server enrolled another agent than this one');
  }
  const { certificate, ca, presharedKey, xtrId, instance, overlay, zone } = answer;
  return { ...keys, mapServer, ca, certificate, presharedKey, xtrId, instance, overlay, zone };
}

/** What is asked for becomes this host's own, claimed when the agent runs. */
function firstEids(identity: Identity, owned: readonly OwnedRequest[]): readonly SavedEid[] {
  const registrar = new Registrar(agentIdentity(identity), [], 0);
  for (const { prefix, names } of owned) registrar.attach(prefix, names, null, 'now', true, 0);
  return registrar.save();
}

async function call(
  target: ApiTarget & { host: string; port: number },
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
) {
  try {
    return await callApi(target, method, path, body === undefined ? {} : { body });
  } catch (cause) {
    if (!(cause instanceof ApiError) || cause.status !== 0) throw cause;
    const code = (cause.cause as NodeJS.ErrnoException | undefined)?.code ?? '';
    if (CLOCK_ERRORS.has(code)) {
      throw new EnrolmentError(
        'STAYPUT_CLOCK',
        `map server ${target.host}:${target.port}: its certificate is not valid by the clock of this host, which says ${new Date().toISOString()}: set the clock, and try again`,
        { cause },
      );
    }
    throw new EnrolmentError(cause.code, `map server ${target.host}:${target.port}: ${cause.message}`, { cause });
  }
}

function usage<T>(option: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (cause) {
    throw new UsageError(`${option}: ${(cause as Error).message}`, { cause });
  }
}

const DEFAULT_PORT = 4342;
const CLOCK_ERRORS: ReadonlySet<string> = new Set(['CERT_NOT_YET_VALID', 'CERT_HAS_EXPIRED']);
const TOKEN = z.object({ f: z.string().regex(/^[0-9a-f]{64}$/), s: z.string().min(16).max(200) });
const CA_ANSWER = z.object({ ca: z.string().max(65_536) });
const ENROL_ANSWER = z.object({
  certificate: z.string().includes('-----BEGIN CERTIFICATE-----').max(65_536),
  /** All that it trusts now, said over a connection that the token's authority vouches for. */
  ca: z.string().includes('-----BEGIN CERTIFICATE-----').max(65_536),
  presharedKey: z.string().length(44),
  xtrId: parsed(parseXtrId),
  instance: z.int(),
  overlay: overlayPrefixes,
  zone: z.string().min(1).max(253),
  /** From the pools of the token. */
  assigned: z.array(parsed(parseIpPrefix)).max(16).default([]),
});
