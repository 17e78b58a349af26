import type { Command } from 'commander';
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

export function registerDoctorCommands(program: Command): void {
  const doctor = program.command('doctor').description('Look for what is wrong on this host, and say what to do');
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
      const healthy = diagnoses.every(({ level }) => level !== 'fail');
      if (json === true) printJson({ healthy, diagnoses });
      else {
        for (const { level, check, found, advice } of diagnoses) {
          printLines(`${level.padEnd(5)} ${check.padEnd(13)} ${found}`);
          if (advice !== null) printLines(`${' '.repeat(20)}-> ${advice}`);
        }
      }
      if (!healthy) process.exitCode = 1;
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
