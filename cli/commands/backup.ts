import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { dataDirOf, dataDirOption } from '../map-server-client.ts';
import { printJson, printLines } from '../output.ts';

interface BackupOptions {
  readonly dataDir?: string;
  readonly config?: string;
  readonly passphraseFile?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function registerBackupCommands(mapserver: Command): void {
  mapserver
    .command('backup <file>')
    .description('Write everything that makes this map server what it is into one file, while it runs or not')
    .addOption(dataDirOption())
    .option('--config <file>', 'its configuration, which is in the backup too (default: /etc/stayput/mapserver.json)')
    .option('--passphrase-file <file>', 'encrypt the backup with the first line of this file')
    .option('--force', 'replace a file that is there')
    .option('--json', 'print JSON')
    .action(backup);
  mapserver
    .command('restore <file>')
    .description('Put a backup back, while the map server does not run')
    .addOption(dataDirOption())
    .option(
      '--config <file>',
      'its configuration; in whose folder files are put back (default: /etc/stayput/mapserver.json)',
    )
    .option('--passphrase-file <file>', 'of an encrypted backup')
    .option('--force', 'put aside what is in the data folder')
    .option('--json', 'print JSON')
    .action(restore);
}

async function backup(file: string, options: BackupOptions): Promise<void> {
  const [{ writeBackup }, { CONFIG, CONFIG_PATH }, { loadConfig }] = await Promise.all([
    import('../../mapserver/shell/backup.ts'),
    import('../../mapserver/config.ts'),
    import('../../runtime/config-file.ts'),
  ]);
  if (existsSync(file) && options.force !== true) throw new UsageError(`${file} is there already; --force replaces it`);
  const config = options.config ?? CONFIG_PATH;
  const settings = loadConfig(CONFIG, config, { required: options.config !== undefined });
  const manifest = writeBackup({
    dataDir: dataDirOf(options),
    paths: existsSync(config) ? [config, ...settings.zone.keyFiles] : [],
    passphrase: passphraseOf(options),
    target: file,
    now: Date.now(),
  });
  const { size } = statSync(file);
  const encrypted = options.passphraseFile !== undefined;
  if (options.json) return printJson({ file, octets: size, encrypted, ...manifest });
  return printLines(
    `Wrote ${file}: ${Math.ceil(size / 1024)} KiB, ${encrypted ? 'encrypted' : 'NOT encrypted'}`,
    ...manifest.files.map(({ name, path }) => `  ${path ?? name}`),
    encrypted ? 'Keep the passphrase elsewhere.' : 'Who has this file has the overlay: keep it as a root password.',
  );
}

async function restore(file: string, options: BackupOptions): Promise<void> {
  const [{ readBackup }, { restoreBackup }, { CONFIG_PATH }] = await Promise.all([
    import('../../mapserver/shell/backup.ts'),
    import('../../mapserver/shell/restore.ts'),
    import('../../mapserver/config.ts'),
  ]);
  const dataDir = dataDirOf(options);
  const read = readBackup(file, passphraseOf(options));
  const restored = await restoreBackup(read, {
    dataDir,
    configDir: dirname(options.config ?? CONFIG_PATH),
    user: USER,
    force: options.force === true,
    now: Date.now(),
  });
  if (options.json) return printJson({ dataDir, ...restored });
  const { linesSince, joined, replaced, written, left, elsewhere, backedUpAt } = restored;
  const revoked = [
    ...restored.agentsRevoked.map((id) => `  agent ${id}`),
    ...restored.tokensRevoked.map((id) => `  token ${id}`),
    ...restored.sitesRemoved.map((name) => `  site ${name}`),
    ...restored.siteKeysRemoved.map(({ site, keyId }) => `  key ${keyId} of site ${site}`),
  ];
  const moment = new Date(backedUpAt).toISOString();
  return printLines(
    `Restored ${dataDir} as it was at ${moment}`,
    ...(replaced === null ? [] : [`  what was there is in ${replaced}`]),
    ...written.map((path) => `  written   ${path}`),
    ...left.map((path) => `  left      ${path}, since it is there`),
    ...elsewhere.map(
      (path) => `  MISSING   ${path} is not in the configuration's folder (--config): put it there by hand`,
    ),
    'Start the map server. EIDs that moved since come back by themselves, with their agents.',
    ...(linesSince === 0
      ? [
          'The audit log has nothing from after the backup. What was revoked or granted since is forgotten: do it again.',
        ]
      : [`The audit log has ${linesSince} lines from after it: stayput mapserver audit --since ${moment}`]),
    ...(joined.length === 0
      ? []
      : ['Joined since, and have to join again (--force):', ...joined.map((id) => `  ${id}`)]),
    ...(revoked.length === 0 ? [] : ['Revoked, used up or removed since, and so they stay:', ...revoked]),
  );
}

function passphraseOf({ passphraseFile }: BackupOptions): string | undefined {
  if (passphraseFile === undefined) return undefined;
  let text: string;
  try {
    text = readFileSync(passphraseFile, 'utf8');
  } catch (cause) {
    throw new UsageError(`--passphrase-file: ${passphraseFile} cannot be read (${(cause as Error).message})`, {
      cause,
    });
  }
  const passphrase = text.split('\n', 1)[0]?.trim() ?? '';
  if (passphrase.length < SHORTEST_PASSPHRASE) {
    throw new UsageError(`--passphrase-file: a passphrase has at least ${SHORTEST_PASSPHRASE} characters`);
  }
  return passphrase;
}

/** Of the unit `stayput-mapserver.service`. */
const USER = 'stayput-mapserver';
const SHORTEST_PASSPHRASE = 12;
