/** `stayput doctor dns`: from who decides about names to a lookup end to end, each step with what to do about it. */
import type { Answer, RecordType } from 'dns-packet';
import { z } from 'zod';
import { isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { reverseName } from '../../proto/dns/reverse-zones.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { callApi } from '../../runtime/http-api.ts';
import type { AgentConfig } from '../config.ts';
import { type HostFacts, hostSources, ownerOf } from '../core/dns-host-owner.ts';
import { parseNameservers } from '../core/dns-resolv-conf.ts';
import { RESOLV_CONF, readHostFacts } from './dns-host-facts.ts';
import { run } from './dns-host-program.ts';
import { type DnsServerAddress, type DnsStatus, readDnsStatus, serversOf, serverText } from './dns-host-target.ts';
import { askDns } from './dns-question.ts';

export interface Diagnosis {
  readonly check: string;
  readonly level: 'ok' | 'warn' | 'fail';
  readonly found: string;
  /** What to do; null when there is nothing to do. */
  readonly advice: string | null;
}

export interface DoctorOptions {
  readonly config: AgentConfig;
  /** Of the overlay; without it, one of this host's own. */
  readonly name: string | undefined;
  /** Not of the overlay; without it, the map server's name. */
  readonly forward: string | undefined;
}

/** Looks from this host's files to a lookup of each kind; ends early where the agent does not answer. */
export async function examineDns({ config, name, forward }: DoctorOptions): Promise<readonly Diagnosis[]> {
  const facts = readHostFacts();
  const local = [diagnoseOwner(facts), diagnoseSources(facts), diagnoseMode(config, facts)];
  let status: DnsStatus;
  try {
    status = await readDnsStatus(config.socket, TIMEOUT);
  } catch (error) {
    const advice = 'is the agent running (systemctl status stayput-agent), and dns.enabled true?';
    return [...local, fail('agent', `no answer at ${config.socket}: ${(error as Error).message}`, advice)];
  }
  const [server] = serversOf(status);
  const listeners = await Promise.all(serversOf(status).map((each) => diagnoseListener(each, status.zone)));
  const upstreams = await diagnoseUpstreams(status);
  if (server === undefined) return [...local, ...listeners, ...upstreams];
  return [
    ...local,
    ...listeners,
    ...upstreams,
    ...(await diagnoseOverlayName(server, name ?? (await ownName(config.socket, status.zone)), config)),
    ...(await diagnoseForwarded(server, forward ?? (await mapServerName(config.socket)))),
  ];
}

function diagnoseOwner(facts: HostFacts): Diagnosis {
  const { owner, why, ours } = ownerOf(facts);
  const asked = parseNameservers(facts.resolvConf?.text ?? '').join(', ') || 'nobody';
  const found = `${RESOLV_CONF} asks ${asked}; ${ours ? 'it is ours, and before it ' : ''}${owner} decided: ${why}`;
  if (facts.resolvConf === null) return warn('owner', found, 'programs ask 127.0.0.1 then; set dns.host to auto');
  return ok('owner', found);
}

function diagnoseSources(facts: HostFacts): Diagnosis {
  const sources = hostSources(facts.nsswitch);
  const found = `hosts: ${sources.join(' ')}`;
  if (sources.includes('dns') || sources.includes('resolve')) return ok('nsswitch', found);
  return fail('nsswitch', found, 'no program asks DNS: add dns to the line hosts in /etc/nsswitch.conf');
}

function diagnoseMode({ dns: { host } }: AgentConfig, facts: HostFacts): Diagnosis {
  const { method, ours } = ownerOf(facts);
  if (host === 'off') {
    return ok('dns.host', `off: this host is not made to ask the agent (auto would be ${method})`);
  }
  const applies = host === 'auto' ? method : host;
  if (applies === 'file' && !ours) {
    const advice = 'see journalctl -u stayput-dns-host: it says why, or does not run';
    return fail('dns.host', `${host}, that is file, but ${RESOLV_CONF} is not ours`, advice);
  }
  return ok('dns.host', host === 'auto' ? `auto, that is ${method}` : host);
}

async function diagnoseListener(server: DnsServerAddress, zone: string): Promise<Diagnosis> {
  const outcome = await askDns(server, zone, 'SOA', TIMEOUT);
  const where = serverText(server);
  if (outcome?.rcode === 'NOERROR') return ok('agent', `${where} answers for ${zone} in ${ms(outcome.ms)}`);
  const found = outcome === null ? `${where} does not answer` : `${where} answers ${outcome.rcode} for ${zone}`;
  return fail('agent', found, 'is something between: a firewall on lo, another program on that port?');
}

async function diagnoseUpstreams({ upstreams }: DnsStatus): Promise<readonly Diagnosis[]> {
  if (upstreams.length === 0) {
    const advice = `name them in dns.upstreams, or let ${RESOLV_CONF} name the network's`;
    return [fail('upstream', 'the agent knows no resolver to ask for other names', advice)];
  }
  const diagnoses = await Promise.all(upstreams.map(diagnoseUpstream));
  if (diagnoses.some(({ level }) => level === 'ok')) return diagnoses;
  return diagnoses.map((each) => ({ ...each, level: 'fail' as const }));
}

async function diagnoseUpstream(upstream: string): Promise<Diagnosis> {
  if (upstream.startsWith('tls://')) return ok('upstream', `${upstream}: over TLS, not tried from here`);
  const server = isIpAddress(upstream) ? { host: upstream, port: 53 } : parseHostPort(upstream);
  const outcome = await askDns(server, '.', 'NS', TIMEOUT);
  if (outcome !== null) return ok('upstream', `${upstream} answers (${outcome.rcode}) in ${ms(outcome.ms)}`);
  return warn('upstream', `${upstream} does not answer`, 'is it that of another place? See who decided, above');
}

async function diagnoseOverlayName(
  server: DnsServerAddress,
  name: string | undefined,
  { dns: { host } }: AgentConfig,
): Promise<readonly Diagnosis[]> {
  if (name === undefined) {
    return [warn('overlay name', 'not tried: no name is registered here', 'give one with --name')];
  }
  const direct = await addressesOf(server, name);
  const [address] = direct.addresses;
  if (address === undefined) {
    const advice = 'is it registered (stayput resolve NAME), and the map server connected (stayput status)?';
    return [fail('overlay name', `${name}: the agent says ${direct.rcode}`, advice)];
  }
  const advice = host === 'off' ? 'set dns.host to auto (docs/dns.md)' : 'see "owner" and "dns.host" above';
  const found = await libcFinds('ahosts', name);
  return [
    ok('overlay name', `${name} is ${direct.addresses.join(', ')}, says the agent`),
    found.includes(address)
      ? ok('overlay name', 'and so do programs of this host')
      : fail('overlay name', `programs of this host do not find ${name}`, advice),
    ...(await diagnoseReverseName(server, address, advice)),
  ];
}

async function diagnoseReverseName(
  server: DnsServerAddress,
  address: string,
  advice: string,
): Promise<readonly Diagnosis[]> {
  const outcome = await askDns(server, reverseName(parseIpAddress(address)), 'PTR', TIMEOUT);
  const names = textAnswers(outcome?.answers ?? [], ['PTR']);
  if (names.length === 0) {
    return [warn('reverse name', `${address}: the agent says ${outcome?.rcode ?? 'nothing'}`, 'has the EID a name?')];
  }
  const found = await libcFinds('hosts', address);
  return [
    ok('reverse name', `${address} is ${names.join(', ')}, says the agent`),
    names.some((name) => found.includes(name))
      ? ok('reverse name', 'and so do programs of this host')
      : fail('reverse name', `programs of this host do not find ${address}`, advice),
  ];
}

async function diagnoseForwarded(server: DnsServerAddress, name: string | undefined): Promise<readonly Diagnosis[]> {
  if (name === undefined) {
    return [warn('other name', 'not tried: the map server is known by address', 'give one with --forward')];
  }
  const direct = await addressesOf(server, name);
  const found = await libcFinds('ahosts', name);
  return [
    direct.addresses.length > 0
      ? ok('other name', `${name} is ${direct.addresses.join(', ')}, says the agent`)
      : fail('other name', `${name}: the agent says ${direct.rcode}`, 'do the upstreams answer, and know it?'),
    found.length > 0
      ? ok('other name', 'and programs of this host find it')
      : fail('other name', `programs of this host do not find ${name}`, 'see "owner" above: is what it asks there?'),
  ];
}

async function addressesOf(
  server: DnsServerAddress,
  name: string,
): Promise<{ readonly rcode: string; readonly addresses: readonly string[] }> {
  const outcomes = await Promise.all(
    (['A', 'AAAA'] as const).map((type) => askDns(server, name, type, LOOKUP_TIMEOUT)),
  );
  const answers = outcomes.flatMap((outcome) => outcome?.answers ?? []);
  return { rcode: outcomes[0]?.rcode ?? 'nothing', addresses: textAnswers(answers, ['A', 'AAAA']) };
}

function textAnswers(answers: readonly Answer[], types: readonly RecordType[]): string[] {
  return answers.flatMap((answer) =>
    types.includes(answer.type) && 'data' in answer && typeof answer.data === 'string' ? [answer.data] : [],
  );
}

/** The words of what the libc finds, by nsswitch.conf and resolv.conf as every program. */
async function libcFinds(database: 'ahosts' | 'hosts', key: string): Promise<readonly string[]> {
  try {
    return (await run('getent', [database, key])).split(/\s+/).filter((word) => word !== '');
  } catch {
    return [];
  }
}

async function ownName(socketPath: string, zone: string): Promise<string | undefined> {
  const { eids } = OWN_EIDS.parse(await callApi({ socketPath }, 'GET', '/v1/eids', { timeoutMs: TIMEOUT }));
  const name = eids.find(({ names }) => names !== null && names.length > 0)?.names?.[0];
  return name === undefined ? undefined : `${name}.${zone}`;
}

async function mapServerName(socketPath: string): Promise<string | undefined> {
  const { mapServer } = MAP_SERVER.parse(await callApi({ socketPath }, 'GET', '/v1/status', { timeoutMs: TIMEOUT }));
  return isIpAddress(mapServer.host) ? undefined : mapServer.host;
}

function ms(duration: number): string {
  return `${duration.toFixed(1)} ms`;
}

function ok(check: string, found: string): Diagnosis {
  return { check, level: 'ok', found, advice: null };
}

function warn(check: string, found: string, advice: string): Diagnosis {
  return { check, level: 'warn', found, advice };
}

function fail(check: string, found: string, advice: string): Diagnosis {
  return { check, level: 'fail', found, advice };
}

const OWN_EIDS = z.object({ eids: z.array(z.object({ names: z.array(z.string()).nullable() })) });
const MAP_SERVER = z.object({ mapServer: z.object({ host: z.string() }) });
/** Milliseconds. */
const TIMEOUT = 2000;
/** As long as the agent tries. */
const LOOKUP_TIMEOUT = 9000;
