/** The screen of `stayput status`: what the agent says of itself, as lines. */
import { formatPolicyVersion, type PolicyAction } from '../proto/policy.ts';
import { formatHostPort } from '../runtime/host-port.ts';
import { formatDuration, tableLines } from './output.ts';
import type { Style } from './style.ts';

/** `GET /v1/status`; an agent of the version before does not say all of it. */
export interface Status {
  readonly version: string;
  readonly xtrId: string;
  readonly agentAddress: string;
  readonly overlay: readonly string[];
  readonly zone: string;
  readonly registered: boolean;
  readonly locators: readonly { readonly address: string; readonly port: number; readonly priority: number }[];
  readonly uplinks?: readonly { readonly address: string; readonly interface: string; readonly silent: boolean }[];
  readonly mapServer: {
    readonly host: string;
    readonly port: number;
    readonly connected: boolean;
    readonly connectedMs: number | null;
    readonly problem: string | null;
    readonly localAddress?: string | null;
  };
  /** How the map server sees this host over UDP; `passes` null: it was not asked. */
  readonly udp?: {
    readonly passes: boolean | null;
    readonly view: { readonly address: string; readonly port: number; readonly nat: string } | null;
  };
  readonly dataplane: {
    readonly connected: boolean;
    readonly software: string | null;
    readonly cipher: string | null;
    readonly offloads: readonly string[];
    /** Null: it does not say. */
    readonly sandbox: readonly string[] | null;
  };
  /** Null: nobody asks, or not yet. */
  readonly platform?: {
    readonly title: string;
    readonly instance: string | null;
    readonly zone: string | null;
    readonly region: string | null;
    readonly problem: string | null;
    readonly maintenance: readonly { readonly action: string; readonly notBefore: string | null }[];
  } | null;
  readonly policy: {
    readonly version: number;
    readonly default: PolicyAction;
    readonly rules: number;
    readonly denied: { readonly out: number; readonly in: number } | null;
  };
  readonly inbound?: {
    readonly rules: readonly {
      readonly action: PolicyAction;
      readonly from: readonly string[];
      readonly more: number;
      readonly service: string;
    }[];
    readonly more: number;
    readonly otherwise: PolicyAction;
  };
  readonly eids: readonly OwnEid[];
  readonly mapCache: { readonly positive: number; readonly negative: number; readonly stale: number };
  readonly peers: number;
  /** Of sites of LISP routers. */
  readonly rlocs?: { readonly up: number; readonly down: number; readonly unknown: number };
  /** Null: the data plane does not say. */
  readonly heard?: readonly HeardPeer[] | null;
  readonly problems: readonly string[];
}

interface HeardPeer {
  readonly publicKey: string;
  readonly endpoint: { readonly address: string; readonly port: number } | null;
  readonly session: string;
  readonly lastReceivedMs: number | null;
  readonly rttUs: number | null;
  readonly pathMtu: number;
  readonly eids: readonly string[];
}

export interface OwnEid {
  readonly eid: string;
  readonly kind: 'address' | 'name';
  readonly state: string;
  readonly generation: number;
  readonly interface: string | null;
  readonly names: readonly string[];
  readonly sinceMs: number;
  readonly registered: boolean;
  readonly problem: string | null;
}

export function isHealthy(status: Status): boolean {
  return status.registered && status.problems.length === 0;
}

export function statusLines(status: Status, style: Style): string[] {
  const { mapCache } = status;
  return [
    isHealthy(status)
      ? style.good('Healthy: registered, and nothing is wrong')
      : style.bad(`NOT healthy: ${status.problems.length > 0 ? 'see below' : 'not registered (yet)'}`),
    ...status.problems.map((line) => style.bad(`! ${line}`)),
    '',
    `Agent        ${status.xtrId} (${status.agentAddress}), stayput ${status.version}`,
    `Overlay      ${status.overlay.join(', ')}, names in ${status.zone}`,
    `Registered   ${status.registered ? style.good('yes') : style.bad('no')}${since(status)}`,
    `Map server   ${mapServerText(status)}`,
    `Locators     ${locatorsText(status)}`,
    ...silentUplinks(status).map((text) => `             ${style.bad(text)}`),
    ...udpLines(status, style),
    `Data plane   ${dataplaneText(status)}`,
    ...platformLines(status, style),
    `Policy       ${policyText(status.policy)}`,
    ...inboundLines(status),
    `Map-cache    ${mapCache.positive} mappings, ${mapCache.stale} stale, ${mapCache.negative} negative; ${status.peers} peers`,
    ...siteLines(status),
    ...(status.eids.length > 0 ? ['', ...eidLines(status.eids)] : []),
    ...heardLines(status.heard),
  ];
}

/** Nothing without LISP routers. */
function siteLines({ rlocs }: Status): string[] {
  if (rlocs === undefined || rlocs.up + rlocs.down + rlocs.unknown === 0) return [];
  return [`LISP sites   RLOCs: ${rlocs.up} up, ${rlocs.down} down, ${rlocs.unknown} not known yet`];
}

export function eidLines(eids: readonly OwnEid[]): string[] {
  return tableLines(
    [
      ['eid', 'EID'],
      ['state', 'STATE'],
      ['generation', 'GENERATION'],
      ['via', 'INTERFACE'],
      ['names', 'NAMES'],
      ['since', 'SINCE'],
      ['registered', 'REGISTERED'],
    ],
    eids.map((each) => ({
      eid: each.eid,
      state: each.state,
      generation: each.generation,
      via: each.kind === 'name' ? null : (each.interface ?? 'this host'),
      names: each.names.length > 0 ? each.names.join(' ') : null,
      since: formatDuration(each.sinceMs),
      registered: each.registered ? 'yes' : 'no',
    })),
  );
}

function since({ registered, mapServer: { connectedMs } }: Status): string {
  return registered && connectedMs !== null ? `, for ${formatDuration(connectedMs)}` : '';
}

function mapServerText({ mapServer }: Status): string {
  const { connected, connectedMs, localAddress, problem } = mapServer;
  const from = localAddress == null ? '' : ` from ${localAddress}`;
  const session =
    connected && connectedMs !== null
      ? `connected${from} for ${formatDuration(connectedMs)}`
      : `not connected (${problem ?? 'connecting'})`;
  return `${formatHostPort(mapServer.host, mapServer.port)}, ${session}`;
}

function udpLines({ udp }: Status, style: Style): string[] {
  if (udp === undefined || udp.passes === null) return [];
  if (udp.view === null) return [`UDP          ${style.bad('no answer from the map server: stayput doctor udp')}`];
  const { address, nat } = udp.view;
  return [`UDP          seen from ${address}, ${NATS[nat] ?? nat}`];
}

/** Where others send to. */
function locatorsText({ locators, uplinks = [] }: Status): string {
  if (locators.length === 0) return 'none';
  return locators
    .map(({ address, port, priority }) => {
      const uplink = uplinks.find((each) => each.address === address);
      const where = uplink === undefined ? 'not of this host: NAT' : uplink.interface;
      return `${formatHostPort(address, port)} (${where}, priority ${priority})`;
    })
    .join(', ');
}

function silentUplinks({ uplinks = [] }: Status): string[] {
  return uplinks
    .filter(({ silent }) => silent)
    .map(({ address, interface: name }) => `${address} (${name}) is not used: nobody answers through it`);
}

function dataplaneText({ dataplane }: Status): string {
  const { connected, software, cipher, offloads, sandbox } = dataplane;
  if (!connected) return 'not connected';
  const confined =
    sandbox === null ? [] : [sandbox.length === 0 ? 'no sandbox' : `confined by ${sandbox.join(' and ')}`];
  return [software, cipher, ...offloads, ...confined].join(', ');
}

function platformLines({ platform }: Status, style: Style): string[] {
  if (platform == null) return [];
  const { title, instance, zone, region, problem, maintenance } = platform;
  const where = [title, instance, zone ?? region].filter((text) => text !== null).join(', ');
  return [
    `Platform     ${where}${problem === null ? '' : ` (cannot be asked: ${problem})`}`,
    ...maintenance.map(({ action, notBefore }) =>
      style.bad(`             announces ${action}${notBefore === null ? '' : `, not before ${notBefore}`}`),
    ),
  ];
}

function policyText({ version, default: byDefault, rules, denied }: Status['policy']): string {
  if (version === 0) return 'none, all is allowed';
  const counted =
    denied === null ? '' : `; ${denied.out} packets denied on their way out, ${denied.in} on their way in`;
  return `version ${formatPolicyVersion(version)}, ${rules} rules, otherwise ${byDefault}${counted}`;
}

/** Who may open a conversation with this host. */
function inboundLines({ inbound, policy, overlay }: Status): string[] {
  if (inbound === undefined) return [];
  const everybody = policy.version === 0 ? `everybody in ${overlay.join(', ')}` : 'everybody else';
  const rules = inbound.rules.map(({ action, from, more, service }) => {
    const sources = `${from.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
    return `${action === 'allow' ? 'yes' : 'no '} ${sources}: ${service}`;
  });
  const lines = [
    ...rules,
    ...(inbound.more > 0 ? [`… and ${inbound.more} more rules`] : []),
    `${inbound.otherwise === 'allow' ? 'yes' : 'no '} ${everybody}`,
  ];
  return lines.map((line, at) => `${at === 0 ? 'Reached by ' : '           '}  ${line}`);
}

function heardLines(heard: Status['heard']): string[] {
  if (heard == null || heard.length === 0) return [];
  return [
    '',
    ...tableLines(
      [
        ['peer', 'PEER'],
        ['locator', 'LOCATOR'],
        ['session', 'SESSION'],
        ['heard', 'HEARD'],
        ['rtt', 'RTT'],
        ['mtu', 'MTU'],
      ],
      heard.map(({ eids, publicKey, endpoint, session, lastReceivedMs, rttUs, pathMtu }) => ({
        peer: eids.find((eid) => !eid.startsWith(AGENT_ADDRESSES)) ?? `${publicKey.slice(0, 12)}…`,
        locator: endpoint === null ? null : formatHostPort(endpoint.address, endpoint.port),
        session,
        heard: lastReceivedMs === null ? 'never' : `${formatDuration(lastReceivedMs)} ago`,
        rtt: rttUs === null ? null : `${(rttUs / 1000).toFixed(2)} ms`,
        mtu: pathMtu,
      })),
    ),
  ];
}

const NATS: Readonly<Record<string, string>> = {
  none: 'no NAT',
  independent: 'behind a NAT with one port for all peers',
  dependent: 'behind a NAT with another port for each peer',
  unknown: 'behind a NAT',
};
const AGENT_ADDRESSES = 'fd53:7461:7970:7574:';
