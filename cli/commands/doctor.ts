import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { concludeFindings, printFindingLines, printFindings } from '../findings.ts';
import { printJson, printLines } from '../output.ts';

interface DoctorDnsOptions {
  readonly config?: string;
  readonly socket?: string;
  readonly name?: string;
  readonly forward?: string;
  readonly json?: boolean;
}

interface DoctorPlatformOptions {
  readonly platform: string;
  readonly json?: boolean;
}

interface DoctorOptions {
  readonly mapServer?: string;
  readonly config?: string;
  readonly socket?: string;
  readonly json?: boolean;
}

export function registerDoctorCommands(program: Command): void {
  const doctor = program
    .command('doctor')
    .description('Look for what is wrong on this host, and say what to do; also before it joins')
    // Options behind a subcommand are the subcommand's.
    .enablePositionalOptions()
    .argument('[check...]', 'only these, of those that a run without names shows')
    .option('--map-server <url>', 'try to reach this one, where the host has not joined')
    .option('--config <file>', "the agent's configuration file")
    .option('--socket <path>', 'socket of the agent')
    .option('--json', 'print JSON')
    .action(examineHost);
  doctor
    .command('dns')
    .description('Who decides what this host asks for names, and whether lookups work end to end')
    .option('--name <name>', 'a name of the overlay to look up, whole (default: one of this host)')
    .option('--forward <name>', "another name to look up (default: the map server's)")
    .option('--config <file>', "the agent's configuration file")
    .option('--socket <path>', 'socket of the agent')
    .option('--json', 'print JSON')
    .action(async ({ config, socket, name, forward, json }: DoctorDnsOptions) => {
      const [{ loadAgentConfig }, { examineDns }] = await Promise.all([
        import('../../agent/config.ts'),
        import('../../agent/shell/dns-doctor.ts'),
      ]);
      const diagnoses = await examineDns({
        config: loadAgentConfig(config, { socket: socket ?? process.env.STAYPUT_SOCKET }),
        name,
        forward,
      });
      printFindings(diagnoses, 'diagnoses', json === true);
    });
  doctor
    .command('platform')
    .description('Which cloud or hypervisor this host is on, how that was found out, and what it says')
    .option('--platform <name>', 'ask this one, whatever was detected', 'auto')
    .option('--json', 'print JSON')
    .action(async ({ platform, json }: DoctorPlatformOptions) => {
      const { examinePlatform } = await import('../../agent/platform/examination.ts');
      const { platformReport, platformReportLines } = await import('../../agent/platform/report.ts');
      const report = platformReport(await examinePlatform(platform));
      if (json === true) printJson(report);
      else printLines(...platformReportLines(report));
      if (report.facts === null) process.exitCode = 1;
    });
}

async function examineHost(checks: readonly string[], options: DoctorOptions): Promise<void> {
  const [{ loadAgentConfig }, { CHECK_NAMES, examine }] = await Promise.all([
    import('../../agent/config.ts'),
    import('../../agent/doctor/checkup.ts'),
  ]);
  const unknown = checks.find((each) => !CHECK_NAMES.includes(each));
  if (unknown !== undefined) {
    throw new UsageError(`there is no check "${unknown}"; there are ${CHECK_NAMES.join(', ')}`);
  }
  const config = loadAgentConfig(options.config, { socket: options.socket ?? process.env.STAYPUT_SOCKET });
  const wanted = checks.length === 0 ? CHECK_NAMES : checks;
  const json = options.json === true;
  const findings = await examine(config, wanted, options.mapServer, json ? undefined : printFindingLines);
  concludeFindings(findings, 'findings', json);
}
