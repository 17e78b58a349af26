/** Names of the overlay's zone: what is behind them, and the records that are set at them. */
import type { Command } from 'commander';
import { parseIpAddress } from '../../proto/address.ts';
import { MAX_WEIGHT, type RecordSets } from '../../proto/dns/record-sets.ts';
import { UsageError } from '../../proto/errors.ts';
import { admin, type ListOptions, mapServerCommand } from '../map-server-client.ts';
import { typed, wholeNumber } from '../option-values.ts';
import { printJson, printLines, printTable } from '../output.ts';

export function registerNameCommands(program: Command): void {
  const name = program.command('name').description('Names of the zone: the EIDs behind them and their DNS records');
  mapServerCommand(name, 'set <name>', 'Set records at a name; those of other types stay')
    .option('--address <address...>', 'EIDs, or addresses of elsewhere, that are behind the name')
    .option('--weight <address=n...>', 'share of the answers that an address gets; 0: only when there is no other')
    .option('--srv <record...>', '"PRIORITY WEIGHT PORT TARGET"')
    .option('--txt <text...>', 'text')
    .option('--cname <target>', 'the name is another name for this one')
    .option('--ns <server...>', 'HOST=ADDRESS[,ADDRESS]: these servers answer for the name and all below it')
    .option('--ttl <seconds>', 'how long others may keep the answers')
    .action(async (text: string, options: SetOptions) => {
      const news = recordsOf(options);
      if (Object.keys(news).length === 0) throw new UsageError('nothing to set; see --help');
      const view = (await admin(options, 'POST', '/v1/zone/names', { name: text, ...news })) as NameView;
      return options.json ? printJson(view) : printLines(`${view.name}: ${describe(view)}`);
    });
  mapServerCommand(name, 'list', 'All names of the zone').action(async (options: ListOptions) => {
    const { zone, names } = (await admin(options, 'GET', '/v1/zone')) as { zone: string; names: NameView[] };
    if (options.json) return printJson({ zone, names });
    return printTable(
      [
        ['name', 'NAME'],
        ['has', 'HAS'],
      ],
      names.map((view) => ({ name: view.name, has: describe(view) })),
    );
  });
  mapServerCommand(name, 'rm <name>', 'Remove what is set at a name; what agents registered stays')
    .option('--type <type>', 'only address, weight, srv, txt, cname or ns')
    .action(async (text: string, options: ListOptions & { type?: string }) => {
      const body = options.type === undefined ? {} : { type: options.type.toLowerCase() };
      const view = (await admin(options, 'DELETE', `/v1/zone/names/${encodeURIComponent(text)}`, body)) as NameView;
      if (options.json) return printJson(view);
      return printLines(view.members === undefined ? `${view.name} is gone` : `${view.name}: ${describe(view)}`);
    });
}

function recordsOf({ address, weight, srv, txt, cname, ns, ttl }: SetOptions): Record<string, unknown> {
  return {
    ...(address === undefined ? {} : { addresses: address.map((each) => ip('--address', each)) }),
    ...(weight === undefined ? {} : { weights: weight.map(weightOf) }),
    ...(srv === undefined ? {} : { srv: srv.map(serviceOf) }),
    ...(txt === undefined ? {} : { txt }),
    ...(cname === undefined ? {} : { cname }),
    ...(ns === undefined ? {} : { ns: ns.map(serverOf) }),
    ...(ttl === undefined ? {} : { ttl: wholeNumber('--ttl', ttl, 0, 86_400) }),
  };
}

function weightOf(text: string): unknown {
  const [address = '', weight, ...more] = text.split('=');
  if (weight === undefined || more.length > 0) throw new UsageError(`--weight: "${text}" is not ADDRESS=N`);
  return { address: ip('--weight', address), weight: wholeNumber('--weight', weight, 0, MAX_WEIGHT) };
}

function serviceOf(text: string): unknown {
  const [priority = '', weight = '', port = '', target, ...more] = text.trim().split(/\s+/);
  if (target === undefined || more.length > 0)
    throw new UsageError(`--srv: "${text}" is not "PRIORITY WEIGHT PORT TARGET"`);
  const number = (value: string): number => wholeNumber('--srv', value, 0, 65_535);
  return { priority: number(priority), weight: number(weight), port: number(port), target };
}

function serverOf(text: string): unknown {
  const [host = '', addresses, ...more] = text.split('=');
  if (addresses === undefined || more.length > 0) throw new UsageError(`--ns: "${text}" is not HOST=ADDRESS[,ADDRESS]`);
  return { host, addresses: addresses.split(',').map((each) => ip('--ns', each)) };
}

function ip(flag: string, text: string): string {
  return typed(flag, () => parseIpAddress(text));
}

function describe({ members, ttl, cname, srv, txt, ns }: NameView): string {
  const parts = [
    ...members.map(
      ({ address, weight, live }) => `${address}${weight === 1 ? '' : ` (weight ${weight})`}${live ? '' : ' (down)'}`,
    ),
    ...(cname === null ? [] : [`CNAME ${cname}`]),
    ...srv.map(({ priority, weight, port, target }) => `SRV ${priority} ${weight} ${port} ${target}`),
    ...txt.map((text) => `TXT ${JSON.stringify(text)}`),
    ...ns.map(({ host, addresses }) => `NS ${host} ${addresses.join(' ')}`),
    ...(ttl === null ? [] : [`TTL ${ttl}`]),
  ];
  return parts.join(', ') || 'nothing';
}

/** As the admin API shows it; a name that is gone has its name only. */
interface NameView extends Omit<RecordSets, 'addresses' | 'weights'> {
  readonly name: string;
  readonly members: readonly { readonly address: string; readonly weight: number; readonly live: boolean }[];
}

interface SetOptions extends ListOptions {
  readonly address?: string[];
  readonly weight?: string[];
  readonly srv?: string[];
  readonly txt?: string[];
  readonly cname?: string;
  readonly ns?: string[];
  readonly ttl?: string;
}
