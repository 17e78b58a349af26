import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { writePrivateFile } from '../../runtime/private-file.ts';
import { makeReport } from '../bugreport.ts';
import { dataDirOf, dataDirOption, MAP_SERVER_CONFIG } from '../map-server-client.ts';
import { printJson, printLines } from '../output.ts';

interface BugreportOptions {
  readonly config: string;
  readonly mapserverConfig: string;
  readonly dataDir?: string;
  readonly socket?: string;
  readonly json?: boolean;
}

export function registerBugreportCommand(program: Command): void {
  program
    .command('bugreport')
    .description('Put what is needed to find a mistake into one archive, without keys, tokens and other secrets')
    .argument('[file]', 'the archive (.tar.gz)')
    .option('--config <file>', "the agent's configuration file", '/etc/stayput/agent.json')
    .option('--mapserver-config <file>', "the map server's configuration file", MAP_SERVER_CONFIG)
    .addOption(dataDirOption())
    .option('--socket <path>', 'socket of the agent')
    .option('--json', 'print what is in it as JSON')
    .action(async (file: string | undefined, options: BugreportOptions) => {
      const [{ AGENT_CONFIG, loadAgentConfig }, { CHECK_NAMES, examine }] = await Promise.all([
        import('../../agent/config.ts'),
        import('../../agent/doctor/checkup.ts'),
      ]);
      const overrides = { socket: options.socket ?? process.env.STAYPUT_SOCKET };
      const config = readConfig(
        AGENT_CONFIG,
        () => loadAgentConfig(options.config, overrides),
        options.config,
        overrides,
      );
      const now = Date.now();
      const target = file ?? `stayput-bugreport-${hostname()}-${new Date(now).toISOString().slice(0, 19)}Z.tar.gz`;
      const { archive, parts, redacted } = await makeReport(
        {
          agentConfig: options.config,
          mapServerConfig: options.mapserverConfig,
          agentSocket: config.socket,
          stateDir: config.stateDir,
          dataDir: dataDirOf({ ...options, config: options.mapserverConfig }),
          metrics: [...(config.metricsListen === null ? [] : [config.metricsListen]), '127.0.0.1:9342'],
          more: { 'doctor.json': () => examine(config, CHECK_NAMES, undefined) },
        },
        now,
      );
      writePrivateFile(target, archive);
      if (options.json === true) {
        printJson({ file: target, octets: archive.length, redacted, parts });
        return;
      }
      const present = parts.filter(({ octets }) => octets > 0);
      printLines(
        `Wrote ${target}: ${Math.ceil(archive.length / 1024)} KiB, ${present.length} parts, ${redacted} secrets taken out`,
        ...parts.flatMap(({ name, problem }) => (problem === null ? [] : [`  ${name}: ${problem}`])),
        'It has addresses and names of hosts. Look through it before you hand it on.',
      );
    });
}

/** A configuration that is wrong is one of the things to report; what it says of places may be right all the same. */
function readConfig<T>(
  schema: { parse(value: unknown): T; safeParse(value: unknown): { readonly data?: T } },
  read: () => T,
  path: string,
  overrides: Readonly<Record<string, unknown>>,
): T {
  try {
    return read();
  } catch {
    const { stateDir, socket } = placesIn(path);
    const places = { ...(stateDir === undefined ? {} : { stateDir }), ...(socket === undefined ? {} : { socket }) };
    const given = Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
    return schema.safeParse({ ...places, ...given }).data ?? schema.parse({});
  }
}

function placesIn(path: string): { readonly stateDir?: unknown; readonly socket?: unknown } {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as { stateDir?: unknown; socket?: unknown };
  } catch {
    return {};
  }
}
