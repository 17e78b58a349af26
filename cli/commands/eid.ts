import { type Command, Option } from 'commander';
import { parseIpPrefix } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { dataDirOption } from '../map-server-client.ts';
import { printJson, printLines } from '../output.ts';
import { eidLines, type OwnEid } from '../status-screen.ts';
import { type OrderOptions, orderAttach } from './mapserver.ts';

export function registerEidCommands(program: Command): void {
  const eid = program.command('eid').description('The EIDs of this host');
  withClientOptions(eid.command('list').description('List them with their state and generation')).action(
    async (options: ClientOptions) => {
      const { eids } = (await callAgent(options, 'GET', '/v1/eids')) as { eids: readonly OwnEid[] };
      if (options.json === true) printJson(eids);
      else if (eids.length === 0) printLines('No EIDs; see "stayput eid attach --help".');
      else printLines(...eidLines(eids));
    },
  );
  withClientOptions(
    eid
      .command('attach')
      .description('Take an EID to this host: at once, or as soon as its interface is up')
      .argument('<eid>', 'address or prefix')
      .option('--name <name>', 'name that points to it; may be given several times', collect)
      .option('--interface <if>', 'the workload is behind this interface, which may be still to come')
      .addOption(
        new Option('--when <event>', 'with an interface: take it now, when that is up, or when the workload is seen')
          .choices(['now', 'up', 'seen'])
          .default('up'),
      ),
  ).action(
    async (text: string, options: ClientOptions & { name?: readonly string[]; interface?: string; when: string }) => {
      const body = {
        eid: checked(text),
        ...(options.name === undefined ? {} : { names: options.name }),
        ...(options.interface === undefined ? {} : { interface: options.interface, when: options.when }),
      };
      const result = (await callAgent(options, 'POST', '/v1/eids', body)) as { state: string; generation: number };
      if (options.json === true) printJson(result);
      else printLines(describe(text, result, options));
    },
  );
  eid
    .command('move')
    .description(
      'On the map server: move an EID from the agent that has it to another one, and wait until it is live there',
    )
    .argument('<eid>', 'address or prefix')
    .addOption(dataDirOption())
    .option('--json', 'print JSON')
    .requiredOption('--to <agent>', 'xTR-ID of the agent, or as much of its start as fits one only')
    .option('--interface <if>', 'the workload is behind this interface there')
    .option('--timeout <duration>', 'how long to wait until it is live', '10s')
    .action(async (text: string, options: OrderOptions) => {
      await orderAttach('/v1/moves', text, options);
    });
  withClientOptions(eid.command('detach').description('Give an EID up').argument('<eid>', 'address or prefix')).action(
    async (text: string, options: ClientOptions) => {
      const result = await callAgent(options, 'DELETE', `/v1/eids/${encodeURIComponent(checked(text))}`);
      if (options.json === true) printJson(result);
      else printLines(`${text} is detached.`);
    },
  );
}

function describe(
  eid: string,
  { state, generation }: { state: string; generation: number },
  { interface: via, when }: { interface?: string; when: string },
): string {
  if (state === 'live') return `${eid} is live here at generation ${generation}.`;
  const event = when === 'seen' ? `its workload is seen behind ${via}` : `${via} comes up`;
  if (state === 'target') return `${eid} is prepared: it becomes live when ${event}.`;
  return `${eid} is attached; it becomes live when the map server confirms it.`;
}

function checked(text: string): string {
  try {
    return parseIpPrefix(text);
  } catch (cause) {
    throw new UsageError((cause as Error).message, { cause });
  }
}

function collect(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}
