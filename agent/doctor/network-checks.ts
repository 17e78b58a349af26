/** Checks of the underlay: packet sizes, UDP both ways, NAT, firewalls, and routes that are in the way. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import {
  type IpAddress,
  type IpPrefix,
  isIpAddress,
  parseIpAddress,
  parseIpPrefix,
  prefixContains,
} from '../../proto/address.ts';
import { eidSpace } from '../../proto/overlay.ts';
import { fail, type Outcome, ok, skipped, warn } from '../../runtime/finding.ts';
import { callApi } from '../../runtime/http-api.ts';
import { findProgram } from '../../runtime/programs.ts';
import { run } from '../shell/dns-host-program.ts';
import { askReflector, type UdpView } from '../shell/reflection.ts';
import { TUNNEL } from './host-checks.ts';
import type { Contact } from './map-server-checks.ts';
import type { Subject } from './subject.ts';

/** By pings that may not be fragmented. */
export async function checkMtu({ config, status }: Subject, found: Contact | null): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  const address = found?.answer?.address.replace(/^::ffff:/, '');
  if (address === undefined) outcomes.push(skipped('the map server does not answer'));
  else if (findProgram('ping') === undefined) outcomes.push(skipped('the program ping is not installed'));
  else outcomes.push(judgeMtu(await pathMtu(address), address, config.mtu));
  for (const { pathMtu: mtu, eids, publicKey } of status?.heard ?? []) {
    const inner = mtu - overhead(6);
    if (inner < SMALLEST_INNER) {
      const peer = eids[0] ?? publicKey.slice(0, 12);
      outcomes.push(
        warn(
          `path to the peer ${peer}: ${mtu} octets`,
          'too small for whole IPv6 packets: what limits it? (tracepath)',
        ),
      );
    }
  }
  return outcomes;
}

function judgeMtu(mtu: number | null, address: string, tunnel: number): Outcome {
  if (mtu === null) return skipped(`${address} answers no ping, so the way there cannot be measured`);
  const over = overhead(isIP(address) === 6 ? 6 : 4);
  const found = `packets of ${mtu} octets reach ${address}`;
  if (mtu - over < SMALLEST_INNER)
    return fail(found, `at least ${SMALLEST_INNER + over} are needed: what limits it? (tracepath ${address})`);
  if (mtu - over >= tunnel) return ok(found);
  return warn(
    found,
    `TCP is cut to it by itself; for other protocols set "mtu": ${mtu - over} in /etc/stayput/agent.json on all hosts`,
  );
}

/** Null: no answer, not even to small ones. */
async function pathMtu(address: string): Promise<number | null> {
  const headers = isIP(address) === 6 ? 48 : 28;
  const passes = async (size: number): Promise<boolean> => {
    try {
      await run('ping', ['-n', '-q', '-M', 'do', '-c', '1', '-W', '1', '-s', String(size - headers), address]);
      return true;
    } catch {
      return false;
    }
  };
  // Most ways are of the first; else by halves, since a lost answer costs a second.
  if (await passes(SIZES[0])) return SIZES[0];
  let [passing, failing] = [SIZES.length, 0];
  while (passing - failing > 1) {
    const middle = Math.floor((passing + failing) / 2);
    if (await passes(SIZES[middle] ?? 0)) passing = middle;
    else failing = middle;
  }
  return SIZES[passing] ?? null;
}

/** Of a tunnel, in octets of the underlay (docs/wire-format.md). */
function overhead(family: 4 | 6): number {
  return family === 4 ? 60 : 80;
}

/** Whether UDP leaves and comes: tried with the map server, also before this host joins, and with the peers of the agent. */
export async function checkUdp({ status, config }: Subject, found: Contact | null): Promise<readonly Outcome[]> {
  const reflected = await checkReflection(found);
  if (status === null) return [...reflected, skipped('the agent does not answer, so no peers can be tried')];
  const listener = judgeListener(config.listenPort);
  const outcomes = [...(listener === null ? [] : [listener]), ...reflected];
  const peers = (status.heard ?? []).slice(0, TRIED_PEERS);
  if (peers.length === 0) {
    return [...outcomes, skipped('no peer yet: send something to another EID (stayput ping EID) and look again')];
  }
  const tried = await Promise.all(
    peers.map(async ({ eids, publicKey, endpoint }): Promise<Outcome> => {
      const name = eids.find((eid) => !eid.startsWith('fd53:7461:7970:7574:')) ?? eids[0];
      const where = endpoint === null ? 'nowhere' : `${endpoint.address} port ${endpoint.port}`;
      if (name === undefined)
        return skipped(`the peer ${publicKey.slice(0, 12)}… at ${where} has no EID that is known here`);
      const rtt = await probe(config.socket, name.replace(/\/\d+$/, ''));
      if (rtt !== null) return ok(`${name} at ${where} answers in ${(rtt / 1000).toFixed(1)} ms`);
      const advice = `is UDP ${config.listenPort} open both ways in every firewall and security group between, also at the other host?`;
      return warn(`${name} at ${where} does not answer`, advice);
    }),
  );
  if (tried.every(({ level }) => level === 'skipped')) return [...outcomes, ...tried];
  if (tried.some(({ level }) => level === 'ok')) {
    // UDP passes, so it is the map server's firewall.
    const proven = reflected.map((each) => (each.level === 'fail' ? { ...each, level: 'warn' as const } : each));
    return [...outcomes.filter((each) => !reflected.includes(each)), ...proven, ...tried];
  }
  return [...outcomes, ...tried.map((each) => (each.level === 'warn' ? { ...each, level: 'fail' as const } : each))];
}

/** Microseconds; null: no answer. */
async function probe(socketPath: string, target: string): Promise<number | null> {
  try {
    const { rttUs } = (await callApi({ socketPath }, 'POST', '/v1/ping', { body: { target } })) as {
      rttUs: number | null;
    };
    return rttUs;
  } catch {
    return null;
  }
}

function judgeListener(port: number): Outcome | null {
  try {
    const tables = ['/proc/net/udp', '/proc/net/udp6'].map((path) => readFileSync(path, 'utf8')).join('\n');
    const hex = port.toString(16).toUpperCase().padStart(4, '0');
    if (new RegExp(`^ *\\d+: [0-9A-F]+:${hex} `, 'm').test(tables)) return null;
    return fail(`nobody listens on UDP ${port}`, 'sudo systemctl restart stayput-dataplane');
  } catch {
    return null;
  }
}

async function checkReflection(found: Contact | null): Promise<readonly Outcome[]> {
  const answer = found?.answer ?? null;
  if (answer === null) return [skipped('the map server does not answer, so nobody says how this host is seen')];
  const address = answer.address.replace(/^::ffff:/, '');
  const { reflector } = answer;
  if (reflector.length === 0 || !isIpAddress(address)) {
    return [skipped('the map server has no reflector, so nobody says how this host is seen (reflectorListen)')];
  }
  return [judgeView(await askReflector(parseIpAddress(address), reflector), `${address} UDP ${reflector.join(', ')}`)];
}

export function judgeView(view: UdpView | null, where: string): Outcome {
  if (view === null) {
    return fail(
      `nothing comes back from the map server's reflector (${where})`,
      'let UDP out, and its answers in, in every firewall and security group between; the tunnels are UDP',
    );
  }
  const { address, nat } = view;
  switch (nat) {
    case 'none':
      return ok(`UDP passes; no NAT: the map server sees ${address}`);
    case 'independent':
      return ok(
        `UDP passes; behind a NAT, seen from ${address} with one port for all: peers reach this host after it has spoken to them`,
      );
    case 'dependent':
      return warn(
        `UDP passes; behind a NAT, seen from ${address} with another port by each peer`,
        'two hosts behind such NATs do not reach each other: give one of them a public address (locators), or the NAT endpoint-independent mapping',
      );
    case 'unknown':
      return warn(
        `UDP passes; behind a NAT, seen from ${address}; of the reflector only one port answers (${where})`,
        'open the other as well, or what kind of NAT it is stays unknown',
      );
    default:
      return nat satisfies never;
  }
}

/** Routes and addresses of this host in the overlay's prefixes, besides the tunnel's. */
export async function checkOverlap({ overlay, status }: Subject): Promise<readonly Outcome[]> {
  if (overlay.length === 0) return [skipped('the overlay is not known here')];
  const own = new Set((status?.eids ?? []).filter((eid) => eid.interface !== null).map(({ eid }) => eid));
  let routes: readonly KernelRoute[];
  try {
    routes = (
      await Promise.all(['-4', '-6'].map((family) => run('ip', ['-j', family, 'route', 'show', 'table', 'all'])))
    ).flatMap((text) => JSON.parse(text || '[]') as KernelRoute[]);
  } catch (error) {
    return [skipped(`routes cannot be read (${(error as Error).message})`)];
  }
  const wrong = overlappingRoutes(routes, overlay).filter(({ dst }) => !own.has(dst.replace(/\/(32|128)$/, '')));
  if (wrong.length === 0) return [ok(`no other route leads into ${overlay.join(', ')}`)];
  return wrong
    .slice(0, SHOWN)
    .map(({ dst, dev }) =>
      fail(
        `${dst} on ${dev} is in the overlay`,
        `EIDs in it are not reached through the tunnel: remove the route or address, or choose another overlay`,
      ),
    );
}

export interface KernelRoute {
  readonly dst: string;
  readonly dev?: string;
  readonly type?: string;
}

/** Those that lead to what can be an EID, by other ways than the tunnel. */
export function overlappingRoutes(
  routes: readonly KernelRoute[],
  overlay: readonly string[],
): readonly { readonly dst: string; readonly dev: string }[] {
  const space = eidSpace(overlay as readonly IpPrefix[]);
  const seen = new Set<string>();
  return routes.flatMap(({ dst, dev, type = 'unicast' }) => {
    if (dev === undefined || dev === TUNNEL || dst === 'default' || IGNORED.has(type)) return [];
    const prefix = prefixOf(dst);
    if (prefix === null || !space.some((each) => meet(each, prefix))) return [];
    const key = `${dst} ${dev}`;
    if (seen.has(key)) return [];
    seen.add(key);
    return [{ dst, dev }];
  });
}

function prefixOf(text: string): IpPrefix | null {
  try {
    return parseIpPrefix(text);
  } catch {
    return null;
  }
}

function meet(a: IpPrefix, b: IpPrefix | IpAddress): boolean {
  return prefixContains(a, b) || prefixContains(b as IpPrefix, a);
}

/** With several uplinks, a strict filter drops what comes in by another one than the route back. */
export function checkReversePath({ status }: Subject, read = readSetting): readonly Outcome[] {
  if (status === null) return [skipped('the agent does not answer')];
  const uplinks = [...new Set(status.uplinks.map((each) => each.interface))];
  if (uplinks.length < 2) return [ok('one uplink: it does not matter')];
  const all = read('all');
  const strict = uplinks.filter((name) => Math.max(all ?? 0, read(name) ?? 0) === 1);
  if (strict.length === 0) return [ok(`not strict on ${uplinks.join(', ')}`)];
  return [
    warn(
      `strict on ${strict.join(', ')}: what comes in there is dropped while the default route is elsewhere`,
      `sudo sysctl net.ipv4.conf.all.rp_filter=2, and in /etc/sysctl.d`,
    ),
  ];
}

function readSetting(name: string): number | null {
  try {
    return Number(readFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, 'utf8'));
  } catch {
    return null;
  }
}

export async function checkFirewall({ config: { listenPort } }: Subject): Promise<readonly Outcome[]> {
  if (findProgram('nft') === undefined) return [skipped('the program nft is not installed')];
  let text: string;
  try {
    text = await run('nft', ['-j', 'list', 'ruleset']);
  } catch (error) {
    return [skipped(`rules cannot be read (${(error as Error).message}): run it as root`)];
  }
  const closed = closedChains(JSON.parse(text) as NftRuleset, listenPort);
  if (closed.length === 0) return [ok(`no chain of nftables keeps UDP ${listenPort} out as its policy`)];
  return closed.map((chain) =>
    fail(
      `${chain} drops what no rule accepts, and none accepts UDP ${listenPort}`,
      `sudo nft insert rule ${chain} udp dport ${listenPort} accept, and in /etc/nftables.conf`,
    ),
  );
}

export interface NftRuleset {
  readonly nftables: readonly {
    readonly chain?: {
      readonly family: string;
      readonly table: string;
      readonly name: string;
      readonly hook?: string;
      readonly policy?: string;
    };
    readonly rule?: { readonly family: string; readonly table: string; readonly expr?: unknown };
  }[];
}

/** Chains at the input that drop by their policy, in tables where no rule names the port (or all of UDP) and accepts. */
export function closedChains({ nftables }: NftRuleset, port: number): readonly string[] {
  const accepting = new Set(
    nftables.flatMap(({ rule }) =>
      rule !== undefined && acceptsPort(rule.expr, port) ? [`${rule.family} ${rule.table}`] : [],
    ),
  );
  return nftables.flatMap(({ chain }) => {
    if (chain?.hook !== 'input' || chain.policy !== 'drop') return [];
    return accepting.has(`${chain.family} ${chain.table}`) ? [] : [`${chain.family} ${chain.table} ${chain.name}`];
  });
}

/** Also by a set or range: whoever names the port anywhere in an accepting rule is believed. */
function acceptsPort(expr: unknown, port: number): boolean {
  if (!Array.isArray(expr) || !expr.some((each) => typeof each === 'object' && each !== null && 'accept' in each))
    return false;
  const matches = expr.filter((each) => typeof each === 'object' && each !== null && 'match' in each);
  if (matches.length === 0) return true;
  const text = JSON.stringify(matches);
  if (new RegExp(`\\b${port}\\b`).test(text)) return true;
  return [...text.matchAll(/"range":\[(\d+),(\d+)\]/g)].some(
    ([, from, to]) => Number(from) <= port && port <= Number(to),
  );
}

const SMALLEST_INNER = 1280;
/** The largest first. */
const SIZES: readonly [number, ...number[]] = [
  1500, 1492, 1480, 1476, 1460, 1450, 1440, 1420, 1400, 1380, 1360, 1340, 1300, 1280, 576,
];
const TRIED_PEERS = 3;
const SHOWN = 5;
const IGNORED = new Set(['multicast', 'blackhole', 'unreachable', 'prohibit', 'throw']);
