/** `stayput conform`: tests any implementation from outside, and reports. */
import { readFileSync, writeFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { Report } from '../../conform/report/report.ts';
import { ROLES, type Role } from '../../conform/role.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { prefixes, wholeNumber } from '../option-values.ts';
import { printJson, printLines } from '../output.ts';

interface RunCommandOptions {
  readonly role: Role;
  readonly siteKey?: string;
  readonly keyId: string;
  readonly algorithm: string;
  readonly eidPrefix?: readonly string[];
  readonly outsidePrefix?: readonly string[];
  readonly local?: string;
  readonly zone?: string;
  readonly name?: string;
  readonly eid?: string;
  readonly data?: string;
  readonly instance: string;
  readonly mapServerHere?: true;
  readonly rate: string;
  readonly parallel: string;
  readonly answerTime: string;
  readonly only?: readonly string[];
  readonly json?: true;
  readonly junit?: true;
  readonly html?: true;
  readonly output?: string;
  readonly badge?: string;
  readonly signKey?: string;
}

export function registerConformCommands(program: Command): void {
  const conform = program.command('conform').description('Test any LISP implementation from outside, by its RFCs.');
  registerRun(conform);
  conform
    .command('list')
    .description('Print every check of a role, without a target.')
    .addOption(roleOption())
    .option('--json', 'print JSON')
    .action(async (options: Pick<RunCommandOptions, 'role' | 'json'>) => {
      const { checksOf } = await import('../../conform/roles.ts');
      const checks = checksOf(options.role).map(({ run: _, ...check }) => check);
      if (options.json === true) printJson(checks);
      else printLines(...checks.map(({ id, level, source, title }) => `${id}  ${level}  ${source}  ${title}`));
    });
  conform
    .command('keygen')
    .argument('<file>', 'where the private key goes (mode 0600)')
    .description('Make a key to sign reports with, and print the public one.')
    .action(async (file: string) => {
      const { generateSigningKey } = await import('../../conform/report/signature.ts');
      const { privateKey, publicKey } = generateSigningKey();
      try {
        writeFileSync(file, privateKey, { mode: 0o600, flag: 'wx' });
      } catch (cause) {
        throw new UsageError(`cannot write ${file} (${(cause as NodeJS.ErrnoException).code})`, { cause });
      }
      printLines(publicKey);
    });
  conform
    .command('verify')
    .argument('<file>', 'a report, as JSON or HTML')
    .description('Say whether a report is as it was signed, and by which key.')
    .option('--public-key <key>', 'the key that has to have signed it, as keygen prints it')
    .action(async (file: string, options: { readonly publicKey?: string }) => {
      const { ReportError, verifyReport } = await import('../../conform/report/signature.ts');
      const { summaryLine } = await import('../../conform/report/report.ts');
      const { report, signedBy } = verifyReport(read(file));
      if (signedBy === undefined) throw new ReportError('nobody signed this report');
      if (options.publicKey !== undefined && options.publicKey !== signedBy) {
        throw new ReportError(`it was signed with another key: ${signedBy}`);
      }
      printLines(`signed with ${signedBy}`, `${report.endedAt} ${report.tool}`, summaryLine(report));
    });
}

function registerRun(conform: Command): void {
  conform
    .command('run', { isDefault: true })
    .argument('<target>', 'HOST or HOST:PORT')
    .description('Carry out the checks of a role against a target.')
    .addOption(roleOption())
    .option('--site-key <file>', 'a file that holds the secret of the site (map-server)')
    .addOption(new Option('--key-id <n>', 'of the site key').default('1'))
    .addOption(new Option('--algorithm <n>', 'of the site key: 1, 2 or 3').default('2'))
    .option('--eid-prefix <prefix...>', 'what the site may register: one of IPv4 and one of IPv6')
    .option('--outside-prefix <prefix...>', 'EIDs that no site of the target has: one of IPv4 and one of IPv6')
    .option('--zone <name>', 'a zone that the target knows (dns)')
    .option('--name <name>', 'a name in it that has addresses (dns)')
    .option('--eid <address>', 'an EID behind the target that answers pings (xtr)')
    .option('--data <address>', 'an EID whose packets the target sends to this machine (xtr)')
    .addOption(new Option('--instance <iid>', 'of both (xtr)').default('0'))
    .option('--map-server-here', 'the target asks this machine for mappings (xtr)')
    .option('--local <address>', 'own address; otherwise the one that the route to the target says')
    .addOption(new Option('--rate <n>', 'datagrams per second at most, 1 to 100000').default('50'))
    .addOption(new Option('--parallel <n>', 'checks at a time, 1 to 32').default('8'))
    .addOption(new Option('--answer-time <ms>', 'how long an answer is waited for, 50 to 10000').default('1000'))
    .option('--only <id...>', 'only the checks whose ID begins so')
    .addOption(new Option('--json', 'print the report as JSON').conflicts(['junit', 'html']))
    .addOption(new Option('--junit', 'print the report as JUnit XML').conflicts(['html']))
    .option('--html', 'print the report as one HTML page')
    .option('--output <file>', 'where the report goes instead of stdout')
    .option('--badge <file>', 'also write a badge (SVG)')
    .option('--sign-key <file>', 'sign the report with this key, made by keygen')
    .action(async (target: string, options: RunCommandOptions) => {
      await run(target, options);
    });
}

function roleOption(): Option {
  return new Option('--role <role>', 'what the target is tested as').choices(ROLES).default('map-server');
}

async function run(targetText: string, options: RunCommandOptions): Promise<void> {
  const { DEFAULT_PORTS, runRole } = await import('../../conform/roles.ts');
  const { Pacer } = await import('../../conform/pacer.ts');
  const { resolveTarget, localAddressFor } = await import('../../conform/run.ts');
  const target = await resolveTarget(targetText, DEFAULT_PORTS[options.role]);
  const interruption = new AbortController();
  const interrupt = (): void => interruption.abort();
  const settings = {
    local: options.local ?? (await localAddressFor(target)),
    answerMs: wholeNumber('--answer-time', options.answerTime, 50, 10_000),
    siteKey: siteKeyOf(options),
    eidPrefixes: prefixes('--eid-prefix', options.eidPrefix ?? []),
    outsidePrefixes: prefixes('--outside-prefix', options.outsidePrefix ?? []),
    zone: options.zone,
    name: options.name,
    eid: options.eid === undefined ? undefined : parseIpAddress(options.eid),
    ownEid: options.data === undefined ? undefined : parseIpAddress(options.data),
    instance: wholeNumber('--instance', options.instance, 0, 0xff_ffff),
    isMapServer: options.mapServerHere === true,
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  const report = await runRole(options.role, settings, {
    target,
    pacer: new Pacer(wholeNumber('--rate', options.rate, 1, 100_000)),
    parallel: wholeNumber('--parallel', options.parallel, 1, 32),
    only: options.only ?? [],
    signal: interruption.signal,
    onVerdict: progress,
  });
  process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  await deliver(report, options);
}

function siteKeyOf(options: RunCommandOptions) {
  if (options.siteKey === undefined) return undefined;
  const secret = read(options.siteKey).replace(/\r?\n$/, '');
  if (secret === '') throw new UsageError(`${options.siteKey} is empty`);
  return {
    keyId: wholeNumber('--key-id', options.keyId, 0, 255),
    algorithm: wholeNumber('--algorithm', options.algorithm, 1, 3),
    secret: Buffer.from(secret, 'utf8'),
  };
}

function progress({ id, outcome }: { id: string; outcome: string }, done: number, all: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${done}/${all} ${id} ${outcome}${done === all ? '\n' : ''}`);
}

async function deliver(report: Report, options: RunCommandOptions): Promise<void> {
  const { signReport } = await import('../../conform/report/signature.ts');
  const { textReport } = await import('../../conform/report/text.ts');
  const { junitReport } = await import('../../conform/report/junit.ts');
  const { htmlReport } = await import('../../conform/report/html.ts');
  const { badge } = await import('../../conform/report/badge.ts');
  const { passedGrade } = await import('../../conform/report/report.ts');
  const signed = options.signKey === undefined ? report : signReport(report, read(options.signKey));
  let text = `${textReport(report).join('\n')}\n`;
  if (options.json === true) text = `${JSON.stringify(signed, null, 2)}\n`;
  if (options.junit === true) text = junitReport(report);
  if (options.html === true) text = htmlReport(signed);
  if (options.output === undefined) process.stdout.write(text);
  else writeFileSync(options.output, text);
  if (options.badge !== undefined) writeFileSync(options.badge, badge(report));
  if (!passedGrade(report.grade)) process.exitCode = 1;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new UsageError(`cannot read ${file} (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}
