/** The policy of the overlay: checked, applied, shown and explained. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { CheckView } from '../../mapserver/shell/policy-api.ts';
import { StayputError, UsageError } from '../../proto/errors.ts';
import { ApiError } from '../../runtime/http-api.ts';
import { diffLines } from '../line-diff.ts';
import { admin, type ListOptions, mapServerCommand } from '../map-server-client.ts';
import { printJson, printLines } from '../output.ts';

export function registerPolicyCommands(program: Command): void {
  const policy = program.command('policy').description('Who may talk to whom in the overlay');
  registerCheck(policy);
  registerApply(policy);
  registerShow(policy);
  registerExplain(policy);
  registerRollback(policy);
}

function registerCheck(policy: Command): void {
  mapServerCommand(policy, 'check <file>', 'Whether a policy is right, and does what it expects of itself')
    .option('--offline', 'ask no map server; names and groups by grant have no addresses then')
    .action(async (file: string, options: CheckOptions) => {
      const text = read(file);
      const { view, online } = await check(text, options);
      if (options.json) {
        printJson({ online, ...view });
        if (!view.ok) process.exitCode = exitCodeOf(view);
        return;
      }
      if (!online) warn('not checked against a map server: nobody is registered, names have no addresses');
      reportCheck(file, view);
      if (view.ok) printLines(`${file}: right; ${summary(view)}`);
    });
}

function registerApply(policy: Command): void {
  mapServerCommand(policy, 'apply <file>', 'Make a policy hold, if all that it expects is so')
    .option('--dry-run', 'only say what would change')
    .option('--if-version <n>', 'only if this is still the version that holds; 0 for none')
    .action(async (file: string, options: ApplyOptions) => {
      const text = read(file);
      const current = (await admin(options, 'GET', '/v1/policy')) as PolicyView;
      const expected = options.ifVersion === undefined ? current.version : versionOf(options.ifVersion);
      if (expected !== current.version) {
        throw new StayputError(
          'STAYPUT_POLICY_CHANGED',
          `the policy is at version ${current.version}, not ${expected}`,
        );
      }
      const view = (await admin(options, 'POST', '/v1/policy/check', { text })) as CheckView;
      const changes = diffLines(current.text, text);
      if (!options.json) {
        for (const { sign, line, text: content } of changes)
          printLines(`${sign}${String(line).padStart(5)}  ${content}`);
        reportCheck(file, view);
      } else if (!view.ok) {
        printJson({ applied: false, version: current.version, changes, check: view });
      }
      if (!view.ok) {
        process.exitCode = exitCodeOf(view);
        return;
      }
      const same = changes.length === 0 && current.version > 0;
      const applied = !same && options.dryRun !== true;
      const after = applied
        ? ((await admin(options, 'POST', '/v1/policy', { text, ifVersion: expected })) as PolicyView)
        : current;
      if (options.json) return printJson({ applied, version: after.version, changes, check: view });
      if (same) return printLines(`Nothing to change: this is version ${after.version}`);
      if (!applied) return printLines(`Would become version ${current.version + 1}; ${summary(view)}`);
      return printLines(`Policy ${after.version} holds; ${summary(view)}`);
    });
}

function registerShow(policy: Command): void {
  mapServerCommand(policy, 'show', 'The policy that holds, as it was written').action(async (options: ListOptions) => {
    const view = (await admin(options, 'GET', '/v1/policy')) as PolicyView;
    if (options.json) return printJson(view);
    if (view.version === 0) return warn('there is no policy: everything is allowed');
    warn(`version ${view.version}, applied ${new Date(view.appliedAt ?? 0).toISOString()}`);
    process.stdout.write(view.text);
  });
}

function registerExplain(policy: Command): void {
  mapServerCommand(policy, 'explain <from> <to>', 'Whether one may talk to the other, and which rule says so')
    .option('--protocol <protocol>', 'tcp, udp, sctp, icmp or a number; without it all')
    .option('--port <port>', 'destination port; without it all')
    .addHelpText('after', '\nFROM and TO are addresses or names. Exit code 1 unless it is allowed.')
    .action(async (from: string, to: string, options: ExplainOptions) => {
      const { protocol, port } = options;
      const query = new URLSearchParams({
        from,
        to,
        ...(protocol === undefined ? {} : { protocol }),
        ...(port === undefined ? {} : { port }),
      });
      const view = (await admin(options, 'GET', `/v1/policy/explain?${query}`)) as ExplanationView;
      if (view.version === 0 && options.json !== true) return printLines('=> allowed (there is no policy)');
      if (view.action !== 'allow') process.exitCode = 1;
      if (options.json) return printJson(view);
      printLines(`from  ${partyLine(view.from)}`, `to    ${partyLine(view.to)}`);
      for (const way of view.ways) {
        if (view.ways.length > 1) printLines(`${way.from} -> ${way.to}`);
        for (const { action, rule } of way.decisions) {
          printLines(`  ${action.padEnd(5)}  ${rule === null ? 'by default' : `line ${rule.line}: ${rule.text}`}`);
        }
      }
      return printLines(`=> ${OUTCOMES[view.action]} (policy ${view.version})`);
    });
}

function registerRollback(policy: Command): void {
  mapServerCommand(policy, 'rollback', 'Make the policy before this one hold again, as a new version')
    .option('--if-version <n>', 'only if this is still the version that holds')
    .action(async (options: ListOptions & { readonly ifVersion?: string }) => {
      const ifVersion = options.ifVersion === undefined ? null : versionOf(options.ifVersion);
      const view = (await admin(options, 'POST', '/v1/policy/rollback', { ifVersion })) as PolicyView;
      return options.json
        ? printJson(view)
        : printLines(`Policy ${view.version} holds, the same as ${view.version - 2}`);
    });
}

/** The map server's word, or what can be said without one. */
async function check(text: string, options: CheckOptions): Promise<{ view: CheckView; online: boolean }> {
  if (options.offline !== true) {
    try {
      return { view: (await admin(options, 'POST', '/v1/policy/check', { text })) as CheckView, online: true };
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'STAYPUT_UNREACHABLE') throw error;
    }
  }
  const { checkOffline } = await import('../../mapserver/shell/policy-api.ts');
  return { view: checkOffline(text), online: false };
}

function reportCheck(file: string, view: CheckView): void {
  for (const { line, message } of view.problems) warn(`${file}:${line}: ${message}`);
  for (const { line, message } of view.warnings) warn(`${file}:${line}: warning: ${message}`);
  for (const { problem } of view.expectations) if (problem !== null) warn(`${file}: ${problem}`);
  if (!view.ok) process.exitCode = exitCodeOf(view);
}

/** A text that is wrong, or one that does not do what it expects. */
function exitCodeOf({ problems }: CheckView): number {
  return problems.length > 0 ? 2 : 1;
}

function summary({ rules, groups, expectations, default: standard }: CheckView): string {
  const met = expectations.length === 0 ? 'no expectations' : `${expectations.length} expectations met`;
  return `default ${standard}, ${rules} rules, ${groups} groups, ${met}`;
}

function partyLine({ asked, addresses, groups }: ExplanationView['from']): string {
  const known = addresses.length === 0 ? ['not registered'] : addresses.filter((address) => address !== asked);
  return [asked, ...known, ...groups.map((group) => `@${group}`)].join('  ');
}

function read(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    throw new UsageError(`${file}: cannot be read (${(cause as Error).message})`, { cause });
  }
}

function versionOf(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`--if-version: "${text}" is not a version`);
  return Number(text);
}

function warn(line: string): void {
  process.stderr.write(`${line}\n`);
}

interface CheckOptions extends ListOptions {
  readonly offline?: boolean;
}

interface ApplyOptions extends ListOptions {
  readonly dryRun?: boolean;
  readonly ifVersion?: string;
}

interface ExplainOptions extends ListOptions {
  readonly protocol?: string;
  readonly port?: string;
}

interface PolicyView {
  readonly version: number;
  readonly appliedAt: number | null;
  readonly text: string;
}

interface ExplanationView {
  readonly version: number;
  readonly action: keyof typeof OUTCOMES;
  readonly from: { readonly asked: string; readonly addresses: readonly string[]; readonly groups: readonly string[] };
  readonly to: ExplanationView['from'];
  readonly ways: readonly {
    readonly from: string;
    readonly to: string;
    readonly decisions: readonly { readonly action: string; readonly rule: { line: number; text: string } | null }[];
  }[];
}

const OUTCOMES = {
  allow: 'allowed',
  deny: 'denied',
  depends: 'it depends on protocol and port, see above',
  none: 'they have no addresses of one family',
} as const;
