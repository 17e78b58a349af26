/** The agent's API for the command line: JSON over HTTP on a Unix socket that only its group may open. */
import type { Server } from 'node:http';
import { z } from 'zod';
import { type IpPrefix, isHostPrefix, parseIpPrefix, prefixAddress } from '../../proto/address.ts';
import type { PeerStatus, StatsReply } from '../../proto/dataplane/messages.ts';
import { reverseZones } from '../../proto/dns/reverse-zones.ts';
import { DEFAULT_INSTANCE, type Eid, nameEid, prefixEid } from '../../proto/eid.ts';
import { INTERFACE_NAME } from '../../proto/lisp/order.ts';
import type { Mapping } from '../../proto/mapping.ts';
import { formatPolicyVersion } from '../../proto/policy.ts';
import { seconds } from '../../proto/time.ts';
import { ApiError, apiListener, parseBody, type Route } from '../../runtime/http-api.ts';
import type { Log } from '../../runtime/log.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { listenOnUnixSocket } from '../../runtime/unix-server.ts';
import type { Resolution } from '../core/output.ts';
import { isTakenOver, type OwnedEid } from '../core/registrar.ts';
import { countRlocs, type ProbedRloc } from '../core/rloc-probes.ts';
import { DataplaneError } from './dataplane-link.ts';
import type { DnsStatus } from './dns-host-target.ts';
import type { DnsServer } from './dns-server.ts';
import type { AgentDriver } from './driver.ts';
import { agentIdentity, type Identity } from './identity.ts';
import { inboundOf } from './reachability.ts';
import { dataplaneProblem, dataplaneState, mapServerProblem } from './readiness.ts';

/**
 * The API for the host's own programs, at `path`, open to owner and group. Resolves when it listens.
 *
 * @param dns the DNS server, undefined while there is none
 * @param more routes beside those here
 * @throws UsageError if another daemon has the socket, or the path cannot be used
 */
export async function startAdminSocket(
  path: string,
  driver: AgentDriver,
  identity: Identity,
  dns: () => DnsServer | undefined,
  log: Log,
  more: readonly Route[] = [],
): Promise<{ close(): Promise<void> }> {
  const listener = apiListener([...routes(driver, identity, dns), ...more], (err) =>
    log.error({ err }, 'admin request failed'),
  );
  const server: Server = await listenOnUnixSocket(path, 0o660, listener);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function routes(driver: AgentDriver, identity: Identity, dns: () => DnsServer | undefined): readonly Route[] {
  return [
    { method: 'GET', path: '/v1/status', handle: () => status(driver, identity) },
    { method: 'GET', path: '/v1/eids', handle: () => ({ eids: ownEids(driver) }) },
    { method: 'POST', path: '/v1/eids', handle: ({ body }) => attach(driver, parseBody(ATTACH, body)) },
    { method: 'DELETE', path: '/v1/eids/:eid', handle: ({ params }) => detach(driver, params.eid ?? '') },
    {
      method: 'POST',
      path: '/v1/eids/:eid/leave',
      handle: ({ params, body }) => leave(driver, params.eid ?? '', parseBody(LEAVE, body)),
    },
    { method: 'GET', path: '/v1/peers', handle: () => byDataplane(peers(driver)) },
    { method: 'GET', path: '/v1/rlocs', handle: () => ({ rlocs: rlocs(driver) }) },
    { method: 'GET', path: '/v1/dns', handle: () => dnsStatus(driver, identity, dns()) },
    { method: 'GET', path: '/v1/resolve', handle: ({ query }) => resolve(driver, query.get('q') ?? '') },
    {
      method: 'POST',
      path: '/v1/ping',
      handle: ({ body }) => ping(driver, identity.xtrId, parseBody(PING, body).target),
    },
    { method: 'POST', path: '/v1/sleep', handle: () => byDataplane(driver.sleep()) },
    { method: 'POST', path: '/v1/wake', handle: () => byDataplane(driver.wake()) },
  ];
}

async function status(driver: AgentDriver, identity: Identity): Promise<unknown> {
  const { agent, mapServer, dataplane } = driver;
  const snapshot = agent.snapshot(driver.now());
  const own = agent.ownEids();
  const agentEid = own.find(({ kind }) => kind === 'agent');
  const { xtrId, agentAddress } = agentIdentity(identity);
  const registered = mapServer.connected && agentEid?.confirmedAt != null;
  // Both at once: a data plane that stands still is waited for once.
  const [stats, heard] = await Promise.all([dataplane.stats().catch(() => null), heardPeers(driver)]);
  return {
    version: VERSION,
    xtrId,
    agentAddress,
    tunnelKey: identity.tunnelKey,
    overlay: snapshot.overlay,
    zone: driver.overlayZone,
    instance: identity.instance,
    registered,
    fenced: driver.fence !== null,
    locators: snapshot.locators,
    uplinks: snapshot.uplinks.map(({ address, interface: name, silent }) => ({
      address,
      interface: name,
      silent: silent === true,
    })),
    mapServer: {
      ...identity.mapServer,
      connected: mapServer.connected,
      connectedMs: snapshot.sessionMs,
      problem: mapServer.lastProblem,
      localAddress: mapServer.localAddress,
      observed: snapshot.observed,
    },
    udp: driver.reflection.state,
    dataplane: {
      connected: dataplane.connected,
      software: snapshot.dataplane?.software ?? null,
      cipher: snapshot.dataplane?.cipher ?? null,
      offloads: snapshot.dataplane?.offloads ?? [],
      sandbox: snapshot.dataplane?.sandbox ?? null,
    },
    platform: driver.platformState,
    policy: policy(driver, stats),
    eids: ownEids(driver),
    mapCache: snapshot.cache,
    inbound: inboundOf(snapshot.policy, ownPrefixes(own)),
    peers: snapshot.peers,
    rlocs: countRlocs(agent.probedRlocs()),
    heard,
    problems: problems(driver, own, snapshot.locators.length, registered, stats !== null || heard !== null),
  };
}

/** What keeps this agent from doing its work, each with what to do. */
function problems(
  driver: AgentDriver,
  own: readonly OwnedEid[],
  locators: number,
  registered: boolean,
  answers: boolean,
): readonly string[] {
  if (driver.fence !== null) return [driver.fence];
  const lines: string[] = [];
  const { mapServer, dataplane } = driver;
  const { connected, lastProblem: problem } = mapServer;
  const withoutDataplane = dataplaneProblem(dataplaneState(dataplane, answers));
  if (withoutDataplane !== null) lines.push(withoutDataplane);
  else if (locators === 0) lines.push('no locator: this host has no usable underlay address');
  // Nothing is registered without a locator, which is said above.
  const unheard = mapServerProblem({ mapServer: { connected, problem }, registered: registered || locators === 0 });
  if (unheard !== null) lines.push(unheard);
  const { policy, policyProblem, enforcesPolicy } = driver.agent.snapshot(driver.now());
  if (policyProblem !== null) {
    lines.push(
      `the map server's policy is not enforced (${policyProblem}); ${policy.version === 0 ? 'all is allowed' : `version ${formatPolicyVersion(policy.version)} stays`}`,
    );
  }
  if (policy.version > 0 && !enforcesPolicy) lines.push('the data plane is too old to enforce the policy: upgrade it');
  if (mapServer.clockProblem !== null) lines.push(mapServer.clockProblem);
  const { warning } = driver.certificate;
  if (warning !== null) lines.push(warning);
  for (const why of driver.unwrittenState)
    lines.push(`${why}: a restart of the agent would go back to what was written`);
  for (const each of own) {
    const { eid, state, problem, interface: via } = each;
    if (problem !== null) lines.push(`${textOf(eid)}: ${problem}`);
    if (isTakenOver(each)) {
      lines.push(`${textOf(eid)}: another agent took it over; detach it here, or attach it again to take it back`);
    }
    if (state === 'live' && via !== null && !driver.agent.interfaceUp(via)) {
      lines.push(`${textOf(eid)}: interface ${via} is not up; packets are held for a while only`);
    }
  }
  return lines;
}

/** `denied`: packets since the data plane was started; null while it does not say. */
function policy(driver: AgentDriver, stats: StatsReply | null): unknown {
  const { version, default: byDefault, rules } = driver.agent.snapshot(driver.now()).policy;
  const denied =
    stats === null ? null : { out: stats.counters['drop.policy'] ?? 0, in: stats.counters['drop.policy_in'] ?? 0 };
  return { version, default: byDefault, rules: rules.length, denied };
}

function ownPrefixes(own: readonly OwnedEid[]): readonly IpPrefix[] {
  return own.flatMap(({ eid, kind }) => (kind === 'address' && eid.kind === 'prefix' ? [eid.prefix] : []));
}

/** Those heard of last first; null while the data plane does not say. */
async function heardPeers(driver: AgentDriver): Promise<unknown> {
  try {
    const listed = (await peers(driver)).peers.filter(({ session }) => session !== 'none');
    const silence = ({ lastReceivedMs }: { lastReceivedMs: number | null }): number => lastReceivedMs ?? NEVER;
    return listed.sort((a, b) => silence(a) - silence(b)).slice(0, SHOWN_PEERS);
  } catch {
    return null;
  }
}

function ownEids(driver: AgentDriver): readonly unknown[] {
  return driver.agent
    .ownEids()
    .filter(({ kind }) => kind !== 'agent')
    .map(({ eid, kind, state, generation, interface: via, names, since, confirmedAt, problem }) => ({
      eid: textOf(eid),
      kind,
      state,
      generation,
      interface: via,
      names,
      sinceMs: Math.round(driver.now() - since),
      registered: driver.mapServer.connected && confirmedAt !== null,
      problem,
    }));
}

async function attach(driver: AgentDriver, body: z.output<typeof ATTACH>): Promise<unknown> {
  const prefix = parseIpPrefix(body.eid);
  const names = body.names?.map((name) => nameEid(DEFAULT_INSTANCE, name).name) ?? null;
  const via = body.interface ?? null;
  if (via === null && (body.when ?? 'now') !== 'now') {
    throw new ApiError(400, 'STAYPUT_BAD_REQUEST', `when "${body.when}": needs an interface`);
  }
  const when = body.when ?? 'up';
  const { state, generation, problem } = await driver.attach({ prefix, names, interface: via, when });
  if (problem !== null) throw new ApiError(403, 'STAYPUT_NOT_GRANTED', `${body.eid}: ${problem}`);
  return { eid: prefix, state, generation };
}

function detach(driver: AgentDriver, text: string): unknown {
  const prefix = parseIpPrefix(text);
  refuseFenced(driver);
  if (driver.detach(prefix)) return { eid: prefix };
  throw notAttached(prefix);
}

/** @throws ApiError */
function refuseFenced({ fence }: AgentDriver): void {
  if (fence !== null) throw new ApiError(409, 'STAYPUT_FENCED', fence);
}

function notAttached(prefix: IpPrefix): ApiError {
  return new ApiError(404, 'STAYPUT_NOT_ATTACHED', `${prefix} is not attached here; see "stayput eid list"`);
}

function leave(
  driver: AgentDriver,
  text: string,
  { interface: from, patienceSeconds }: z.infer<typeof LEAVE>,
): unknown {
  const prefix = parseIpPrefix(text);
  refuseFenced(driver);
  if (driver.leave(prefix, from, seconds(patienceSeconds))) return { eid: prefix };
  throw notAttached(prefix);
}

function dnsStatus(driver: AgentDriver, identity: Identity, dns: DnsServer | undefined): DnsStatus {
  if (dns === undefined) throw new ApiError(404, 'STAYPUT_NO_DNS', 'DNS is switched off (dns.enabled)');
  const { overlay } = driver.agent.snapshot(driver.now());
  const own = driver.agent
    .ownEids()
    .flatMap(({ eid, interface: via }) => (eid.kind === 'prefix' && via === null ? [prefixAddress(eid.prefix)] : []));
  return {
    zone: driver.overlayZone,
    reverseZones: overlay.flatMap(reverseZones),
    listen: [...dns.addresses],
    upstreams: [...dns.upstreams],
    addresses: [...new Set([agentIdentity(identity).agentAddress, ...own])],
  };
}

async function peers(driver: AgentDriver): Promise<{ peers: (PeerStatus & { eids: readonly string[] })[] }> {
  const eids = new Map<string, string[]>();
  for (const { mapping, negative } of driver.agent.cached()) {
    if (negative || mapping.tunnelKey === undefined || mapping.eid.kind === 'name') continue;
    const list = eids.get(mapping.tunnelKey) ?? [];
    if (list.length < 16) list.push(mapping.eid.prefix);
    eids.set(mapping.tunnelKey, list);
  }
  const { peers } = await driver.dataplane.peers();
  return { peers: peers.map((peer) => ({ ...peer, eids: eids.get(peer.publicKey) ?? [] })) };
}

/** Of sites that plain packets may go to. */
function rlocs(driver: AgentDriver): readonly ProbedRloc[] {
  return driver.agent.probedRlocs().map((each) => ({ ...each, eids: each.eids.slice(0, 16) }));
}

async function resolve(driver: AgentDriver, text: string): Promise<unknown> {
  if (text === '') throw new ApiError(400, 'STAYPUT_BAD_REQUEST', 'q: what to resolve is missing');
  const eid = driver.parseEid(text);
  return describeResolution(eid, await driver.resolve(eid));
}

async function ping(driver: AgentDriver, self: string, text: string): Promise<unknown> {
  const { eid, mapping } = await owner(driver, driver.parseEid(text));
  const { tunnelKey, owner: xtrId } = mapping;
  if (xtrId === undefined || tunnelKey === undefined) {
    throw new ApiError(404, 'STAYPUT_NO_MAPPING', `${text} has no owner`);
  }
  return { eid: textOf(eid), owner: xtrId, rttUs: xtrId === self ? 0 : await driver.probe(tunnelKey) };
}

/** Follows a name to the address EID behind it. */
async function owner(driver: AgentDriver, eid: Eid): Promise<{ eid: Eid; mapping: Mapping }> {
  const resolution = await driver.resolve(eid);
  if (resolution.kind === 'unavailable') {
    throw new ApiError(
      503,
      'STAYPUT_UNAVAILABLE',
      `${textOf(eid)} is not in the map-cache and the map server does not answer`,
    );
  }
  if (resolution.kind === 'absent') {
    throw new ApiError(404, 'STAYPUT_NO_MAPPING', `${textOf(eid)} is not registered`);
  }
  const { mapping } = resolution;
  const [target] = mapping.targets;
  if (mapping.eid.kind !== 'name' || target === undefined) return { eid, mapping };
  return owner(driver, prefixEid(mapping.eid.iid, parseIpPrefix(target)));
}

/** Whoever calls has said nothing wrong if the data plane cannot. */
async function byDataplane<T>(done: Promise<T>): Promise<T> {
  try {
    return await done;
  } catch (cause) {
    if (cause instanceof DataplaneError) throw new ApiError(503, cause.code, cause.message, { cause });
    throw cause;
  }
}

function describeResolution(eid: Eid, resolution: Resolution): unknown {
  if (resolution.kind !== 'found') {
    return {
      asked: textOf(eid),
      result: resolution.kind,
      ...(resolution.kind === 'absent' ? { action: resolution.action } : {}),
    };
  }
  const { mapping, own, stale, ageMs } = resolution;
  return {
    asked: textOf(eid),
    result: 'found',
    eid: textOf(mapping.eid),
    own,
    stale,
    ageMs: Math.round(ageMs),
    ttlMs: mapping.ttl,
    generation: mapping.generation,
    owner: mapping.owner ?? null,
    tunnelKey: mapping.tunnelKey ?? null,
    locators: mapping.locators,
    names: mapping.names,
    targets: mapping.targets,
  };
}

/** A host prefix as its address. */
function textOf(eid: Eid): string {
  if (eid.kind === 'name') return eid.name;
  return isHostPrefix(eid.prefix) ? prefixAddress(eid.prefix) : eid.prefix;
}

/** Of those that this host talks to, in the status. */
const SHOWN_PEERS = 10;
const NEVER = Number.MAX_SAFE_INTEGER;
const INTERFACE = z.string().regex(INTERFACE_NAME, 'is not the name of a network interface');
export const ATTACH = z.strictObject({
  eid: z.string().max(64),
  names: z.array(z.string().max(253)).max(16).optional(),
  interface: INTERFACE.optional(),
  /** Default: with an interface `up`, else `now`. */
  when: z.enum(['now', 'up', 'seen']).optional(),
});
export const LEAVE = z.strictObject({ interface: INTERFACE, patienceSeconds: z.number().min(0).max(3600) });
export const PING = z.strictObject({ target: z.string().min(1).max(300) });
