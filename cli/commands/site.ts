/** Sites of LISP routers at the map server. */
import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { admin, type ListOptions, mapServerCommand } from '../map-server-client.ts';
import { prefixes, wholeNumber } from '../option-values.ts';
import { printJson, printLines, printTable } from '../output.ts';

export function registerSiteCommands(program: Command): void {
  const site = program.command('site').description('Sites of LISP routers: what they may register, and their keys');
  withKey(mapServerCommand(site, 'add <name>', 'Let the routers of a site register by LISP over UDP'))
    .option('--prefix <prefix...>', 'EID prefix that they may register, just as it is')
    .option('--within <prefix...>', 'prefix that they may register, and all inside it')
    .option('--instance <id>', 'instance ID of its EIDs; that of the overlay without it')
    .option('--allow-sha1', 'accept HMAC-SHA-1, for routers that know nothing better')
    .option('--legacy-replay', 'accept nonces that do not grow, as of lispers.net')
    .option('--max-eids <count>', 'how many EIDs it may own; as many as any site without it')
    .action(async (name: string, options: AddOptions) => {
      const view = (await admin(options, 'POST', '/v1/sites', {
        name,
        prefixes: prefixesOf(options),
        ...(options.instance === undefined
          ? {}
          : { instance: wholeNumber('--instance', options.instance, 0, 0xffffff) }),
        keys: options.secretFile === undefined ? [] : [keyOf(options, options.secretFile)],
        allowSha1: options.allowSha1 === true,
        legacyReplay: options.legacyReplay === true,
        ...(options.maxEids === undefined ? {} : { maxEids: wholeNumber('--max-eids', options.maxEids, 1, MAX_EIDS) }),
      })) as SiteView;
      return options.json ? printJson(view) : printLines(`Site ${name} may register ${prefixText(view)}`);
    });
  mapServerCommand(site, 'set <name>', 'Change what a site may do, and leave it and its keys in service')
    .option('--prefix <prefix...>', 'with --within, all that they may register from now on')
    .option('--within <prefix...>', 'with --prefix, all that they may register from now on')
    .option('--allow-sha1', 'accept HMAC-SHA-1')
    .option('--no-allow-sha1', 'refuse it')
    .option('--legacy-replay', 'accept nonces that do not grow')
    .option('--no-legacy-replay', 'nonces have to grow')
    .option('--max-eids <count>', 'how many EIDs it may own; 0: as many as any site')
    .action(async (name: string, options: SetOptions) => {
      const changes = changesOf(options);
      if (Object.keys(changes).length === 0)
        throw new UsageError('say what is to change; see "stayput site set --help"');
      const view = (await admin(options, 'POST', `/v1/sites/${encodeURIComponent(name)}`, changes)) as SiteView;
      return options.json ? printJson(view) : printLines(`Site ${name} may register ${prefixText(view)}`);
    });
  mapServerCommand(site, 'list', 'Sites, their prefixes and key IDs').action(async (options: ListOptions) => {
    const { sites } = (await admin(options, 'GET', '/v1/sites')) as { sites: SiteView[] };
    if (options.json) return printJson(sites);
    return printTable(
      [
        ['name', 'SITE'],
        ['instance', 'INSTANCE'],
        ['keys', 'KEYS'],
        ['prefixes', 'PREFIXES'],
      ],
      sites.map((view) => ({ ...view, keys: keyText(view), prefixes: prefixText(view) })),
    );
  });
  mapServerCommand(site, 'show <name>', 'One site, and what it has registered').action(
    async (name: string, options: ListOptions) => {
      const view = (await admin(options, 'GET', `/v1/sites/${encodeURIComponent(name)}`)) as SiteDetails;
      if (options.json) return printJson(view);
      return printLines(
        `site           ${view.name}`,
        `instance       ${view.instance}`,
        `prefixes       ${prefixText(view)}`,
        `keys           ${keyText(view)}`,
        `HMAC-SHA-1     ${view.allowSha1 ? 'accepted' : 'refused'}`,
        `replay         ${view.legacyReplay ? 'nonces seen lately are refused' : 'nonces have to grow'}`,
        `most EIDs      ${view.maxEids ?? 'as any site'}`,
        ...view.registered.map(({ eid, state, generation, locators }) => {
          const where = locators.map(({ address }) => address).join(', ') || 'no plain locator';
          return `registered     ${eid} at ${where} (${state}, generation ${generation})`;
        }),
      );
    },
  );
  mapServerCommand(site, 'rm <name>', 'Remove a site; its EIDs can be taken over').action(
    async (name: string, options: ListOptions) => {
      const view = await admin(options, 'DELETE', `/v1/sites/${encodeURIComponent(name)}`);
      return options.json ? printJson(view) : printLines(`Site ${name} is removed`);
    },
  );
  registerKeyCommands(site);
}

function registerKeyCommands(site: Command): void {
  const key = site.command('key').description('Keys of a site; several at once while they are rolled over');
  withKey(mapServerCommand(key, 'add <name>', 'Give a site a further key')).action(
    async (name: string, options: KeyOptions) => {
      if (options.secretFile === undefined) throw new UsageError('give --secret-file FILE, or - for standard input');
      const body = keyOf(options, options.secretFile);
      const view = (await admin(options, 'POST', `/v1/sites/${encodeURIComponent(name)}/keys`, body)) as SiteView;
      return options.json ? printJson(view) : printLines(`Site ${name} has the keys ${keyText(view)}`);
    },
  );
  mapServerCommand(key, 'rm <name> <key-id>', 'Take a key away').action(
    async (name: string, keyId: string, options: ListOptions) => {
      const id = wholeNumber('KEY-ID', keyId, 0, 255);
      const view = (await admin(options, 'DELETE', `/v1/sites/${encodeURIComponent(name)}/keys/${id}`)) as SiteView;
      return options.json ? printJson(view) : printLines(`Site ${name} is left with the keys ${keyText(view)}`);
    },
  );
}

/** Only what was said. */
function changesOf({ prefix, within, allowSha1, legacyReplay, maxEids }: SetOptions): Record<string, unknown> {
  return {
    ...(prefix === undefined && within === undefined ? {} : { prefixes: prefixesOf({ prefix, within }) }),
    ...(allowSha1 === undefined ? {} : { allowSha1 }),
    ...(legacyReplay === undefined ? {} : { legacyReplay }),
    ...(maxEids === undefined ? {} : { maxEids: wholeNumber('--max-eids', maxEids, 0, MAX_EIDS) }),
  };
}

function prefixesOf({ prefix = [], within = [] }: Pick<SetOptions, 'prefix' | 'within'>): unknown[] {
  return [
    ...prefixes('--prefix', prefix).map((each) => ({ prefix: each })),
    ...prefixes('--within', within).map((each) => ({ prefix: each, moreSpecifics: true })),
  ];
}

function withKey(command: Command): Command {
  return command
    .option('--secret-file <file>', 'file with the shared secret, one line ("-": standard input)')
    .option('--key-id <id>', 'key ID of the secret, 0 to 255', '0')
    .addOption(new Option('--algorithm <name>', 'how it is used').choices(ALGORITHMS.slice(1)).default('sha256'));
}

function keyOf(options: KeyOptions, file: string): { keyId: number; algorithm: number; secret: string } {
  let text: string;
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    throw new UsageError(`--secret-file: ${file} cannot be read (${(cause as Error).message})`, { cause });
  }
  const secret = Buffer.from(text.replace(/\r?\n$/, ''));
  return {
    keyId: wholeNumber('--key-id', options.keyId, 0, 255),
    algorithm: ALGORITHMS.indexOf(options.algorithm),
    secret: secret.toString('base64'),
  };
}

function prefixText({ prefixes: list }: SiteView): string {
  return list.map(({ prefix, moreSpecifics }) => `${prefix}${moreSpecifics ? ' and inside' : ''}`).join(', ');
}

function keyText({ keys }: SiteView): string {
  return keys.map(({ keyId, algorithm }) => `${keyId} (${ALGORITHMS[algorithm]})`).join(', ') || 'none';
}

/** By algorithm ID. */
const ALGORITHMS = ['none', 'sha1', 'sha256', 'hkdf-sha256'];
const MAX_EIDS = 1_000_000_000;

interface KeyOptions extends ListOptions {
  readonly secretFile?: string;
  readonly keyId: string;
  readonly algorithm: string;
}

interface SetOptions extends ListOptions {
  readonly prefix?: string[] | undefined;
  readonly within?: string[] | undefined;
  readonly allowSha1?: boolean;
  readonly legacyReplay?: boolean;
  readonly maxEids?: string;
}

interface AddOptions extends KeyOptions, SetOptions {
  readonly instance?: string;
}

interface SiteView {
  readonly name: string;
  readonly instance: number;
  readonly prefixes: readonly { readonly prefix: string; readonly moreSpecifics: boolean }[];
  readonly keys: readonly { readonly keyId: number; readonly algorithm: number }[];
  readonly allowSha1: boolean;
  readonly legacyReplay: boolean;
  readonly maxEids?: number;
}

interface SiteDetails extends SiteView {
  readonly registered: readonly {
    readonly eid: string;
    readonly state: string;
    readonly generation: number;
    readonly locators: readonly { readonly address: string }[];
  }[];
}
