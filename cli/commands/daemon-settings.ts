/** What both daemons have: their configuration checked and read again, and the level of their log. */
import { type Command, Option } from 'commander';
import type { z } from 'zod';
import { StayputError } from '../../proto/errors.ts';
import { configProblems } from '../../runtime/config-file.ts';
import { LOG_LEVELS } from '../../runtime/log.ts';
import type { LogLevelView } from '../../runtime/log-level.ts';
import type { Reloaded } from '../../runtime/reload.ts';
import { duration } from '../option-values.ts';
import { printJson, printLines } from '../output.ts';

/** A daemon, as its commands reach it. */
export interface DaemonCommands<O extends { readonly json?: boolean }> {
  /** Adds the options that say where it is. */
  readonly command: (name: string, description: string) => Command;
  readonly call: (options: O, method: 'GET' | 'POST', path: string, body?: unknown) => Promise<unknown>;
  readonly schema: () => Promise<z.ZodObject>;
  readonly configPath: string;
}

/** A daemon that was not restarted since an upgrade may know no modules. */
type AnyLogLevelView = Omit<LogLevelView, 'modules'> & Partial<Pick<LogLevelView, 'modules'>>;

/** `parent`: `stayput agent` or `stayput mapserver`. */
export function registerDaemonSettings<O extends { readonly json?: boolean }>(
  parent: Command,
  daemon: DaemonCommands<O>,
): void {
  const config = parent.command('config').description('The configuration file');
  config
    .command('check')
    .description('Say everything that is wrong with a configuration file, and change nothing')
    .argument('[file]', `instead of ${daemon.configPath}`)
    .option('--json', 'print JSON')
    .action(async (file: string | undefined, { json }: { readonly json?: boolean }) => {
      const path = file ?? daemon.configPath;
      const problems = configProblems(await daemon.schema(), path);
      if (problems.length > 0) process.exitCode = 2;
      if (json === true) return printJson({ file: path, ok: problems.length === 0, problems });
      if (problems.length === 0) return printLines(`${path} is right`);
      return printLines(
        ...problems.map(({ line, key, problem }) => {
          const told = key === '' || problem.includes(`"${key}"`) ? problem : `${key}: ${problem}`;
          return `${path}${line === null ? '' : `:${line}`}: ${told}`;
        }),
      );
    });
  daemon
    .command('reload', 'Have it read its configuration again, without losing anything; says what needs a restart')
    .action(async (options: O) => {
      const reloaded = (await daemon.call(options, 'POST', '/v1/reload')) as Reloaded;
      if (options.json === true) return printJson(reloaded);
      const { applied, needRestart } = reloaded;
      if (applied.length + needRestart.length === 0) return printLines('Nothing has changed.');
      return printLines(
        ...applied.map((key) => `applied  ${key}`),
        ...needRestart.map((key) => `restart  ${key}: holds after a restart`),
      );
    });
  daemon
    .command('log-level', 'Show the level of its log, or set it while it runs')
    .argument('[level]', `${LOG_LEVELS.join(', ')}, or configured`)
    .addOption(new Option('--for <duration>', 'after that, the level of before again'))
    .option('--module <name>', 'of one part only, e.g. dns; without a level, shows all parts')
    .action(async (level: string | undefined, options: O & { readonly for?: string; readonly module?: string }) => {
      const body = {
        level: level === 'configured' ? null : level,
        ...(options.module === undefined ? {} : { module: options.module }),
        forMs: options.for === undefined ? null : duration('--for', options.for),
      };
      const view = (await (level === undefined
        ? daemon.call(options, 'GET', '/v1/log-level')
        : daemon.call(options, 'POST', '/v1/log-level', body))) as AnyLogLevelView;
      if (options.json === true) return printJson(view);
      const { level: now, configured, until, modules = [] } = view;
      if (options.module !== undefined && view.modules === undefined) {
        throw new StayputError(
          'STAYPUT_LOG_MODULE',
          'the daemon is older than this command and has no modules: restart it',
        );
      }
      const back = until === null ? `, ${configured} is configured` : ` until ${until}, then ${configured}`;
      return printLines(
        now === configured && until === null ? now : `${now}${back}`,
        ...modules
          .filter(({ module, own }) => own || options.module === module)
          .map(
            (each) =>
              `  ${each.module}  ${each.level}${each.until === null ? '' : ` until ${each.until}, then ${now}`}`,
          ),
      );
    });
}
