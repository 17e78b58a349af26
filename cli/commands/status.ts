import type { Command } from 'commander';
import { formatPolicyVersion, type PolicyAction } from '../../proto/policy.ts';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { formatDuration, printJson, printLines, printTable } from '../output.ts';

interface Status {
  readonly version: string;
  readonly xtrId: string;
  readonly agentAddress: string;
  readonly overlay: readonly string[];
  readonly zone: string;
  readonly registered: boolean;
  readonly locators: readonly { address: string; port: number; priority: number }[];
  readonly mapServer: {
    host: string;
    port: number;
    connected: boolean;
    connectedMs: number | null;
    problem: string | null;
  };
  readonly dataplane: {
    connected: boolean;
    software: string | null;
    cipher: string | null;
    offloads: readonly string[];
    /** Null: it does not say. */
    sandbox: readonly string[] | null;
  };
  readonly policy: {
    version: number;
    default: PolicyAction;
    rules: number;
    denied: { out: number; in: number } | null;
  };
  readonly eids: readonly OwnEid[];
  readonly mapCache: { positive: number; negative: number; stale: number; oldestMs: number };
  readonly peers: number;
  readonly problems: readonly string[];
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

export function registerStatusCommand(program: Command): void {
  withClientOptions(program.command('status').description('What this host’s agent does, and what is wrong')).action(
    async (options: ClientOptions) => {
      const status = (await callAgent(options, 'GET', '/v1/status')) as Status;
      if (options.json === true) printJson(status);
      else printStatus(status);
    },
  );
}

export function printEids(eids: readonly OwnEid[]): void {
  printTable(
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

function describePolicy({ version, default: byDefault, rules, denied }: Status['policy']): string {
  if (version === 0) return 'none, all is allowed';
  const counted =
    denied === null ? '' : `; ${denied.out} packets denied on their way out, ${denied.in} on their way in`;
  return `version ${formatPolicyVersion(version)}, ${rules} rules, otherwise ${byDefault}${counted}`;
}

function describeSandbox(sandbox: readonly string[] | null): readonly string[] {
  if (sandbox === null) return [];
  return [sandbox.length === 0 ? 'no sandbox' : `confined by ${sandbox.join(' and ')}`];
}

function printStatus(status: Status): void {
  const { mapServer, dataplane, mapCache } = status;
  const session =
    mapServer.connected && mapServer.connectedMs !== null
      ? `connected for ${formatDuration(mapServer.connectedMs)}`
      : `not connected (${mapServer.problem ?? 'connecting'})`;
  const plane = dataplane.connected
    ? [dataplane.software, dataplane.cipher, ...dataplane.offloads, ...describeSandbox(dataplane.sandbox)].join(', ')
    : 'not connected';
  const locators = status.locators.map(({ address, port, priority }) => {
    const host = address.includes(':') ? `[${address}]` : address;
    return `${host}:${port} (priority ${priority})`;
  });
  printLines(
    `Agent        ${status.xtrId} (${status.agentAddress}), stayput ${status.version}`,
    `Overlay      ${status.overlay.join(', ')}, names in ${status.zone}`,
    `Registered   ${status.registered ? 'yes' : 'no'}`,
    `Locators     ${locators.length > 0 ? locators.join(', ') : 'none'}`,
    `Map server   ${mapServer.host}:${mapServer.port}, ${session}`,
    `Data plane   ${plane}`,
    `Policy       ${describePolicy(status.policy)}`,
    `Map-cache    ${mapCache.positive} mappings, ${mapCache.stale} stale, ${mapCache.negative} negative; ${status.peers} peers`,
  );
  if (status.eids.length > 0) {
    printLines('');
    printEids(status.eids);
  }
  if (status.problems.length > 0) printLines('', ...status.problems.map((line) => `! ${line}`));
}
