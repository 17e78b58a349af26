import type { Command } from 'commander';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { formatDuration, printJson, printLines } from '../output.ts';

interface Resolution {
  readonly asked: string;
  readonly result: 'found' | 'absent' | 'unavailable';
  readonly action?: string;
  readonly eid: string;
  readonly own: boolean;
  readonly stale: boolean;
  readonly ageMs: number;
  readonly generation: number;
  readonly owner: string | null;
  readonly locators: readonly { address: string; port: number; priority: number; weight: number }[];
  readonly names: readonly string[];
  readonly targets: readonly string[];
}

export function registerResolveCommand(program: Command): void {
  withClientOptions(
    program.command('resolve').description('Who owns an EID or a name, and where it is').argument('<eid|name>'),
  ).action(async (text: string, options: ClientOptions) => {
    const found = (await callAgent(options, 'GET', `/v1/resolve?q=${encodeURIComponent(text)}`)) as Resolution;
    if (options.json === true) printJson(found);
    else printLines(...describe(found));
    if (found.result !== 'found') process.exitCode = 1;
  });
}

function describe(found: Resolution): readonly string[] {
  switch (found.result) {
    case 'absent':
      return [`${found.asked} is not registered${found.action === 'policy-denied' ? ' (policy denies it)' : ''}.`];
    case 'unavailable':
      return [`${found.asked} is not in the map-cache and the map server does not answer.`];
    case 'found':
      return [
        `${found.eid}${found.own ? ' (this host)' : ''}`,
        `  owner       ${found.owner ?? '-'}, generation ${found.generation}`,
        ...found.targets.map((target) => `  address     ${target}`),
        ...found.locators.map(({ address, port, priority, weight }) => {
          const host = address.includes(':') ? `[${address}]` : address;
          return `  locator     ${host}:${port}, priority ${priority}, weight ${weight}`;
        }),
        ...(found.names.length > 0 ? [`  names       ${found.names.join(' ')}`] : []),
        `  age         ${formatDuration(found.ageMs)}${found.stale ? ', stale: the map server is away' : ''}`,
      ];
    default:
      return found.result satisfies never;
  }
}
