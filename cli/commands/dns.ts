/** What this host's programs ask for names: making it the agent, putting back, looking for what is wrong. */
import type { Command } from 'commander';
import { printLines } from '../output.ts';

export function registerDnsCommands(program: Command): void {
  const dns = program.command('dns').description("Make this host's programs ask the agent for names");
  dns
    .command('host')
    .description('In the foreground, as root: make this host ask the agent as long as the agent answers (dns.host)')
    .option('--config <file>', "the agent's configuration file")
    .option('--socket <path>', 'socket of the agent')
    .action(async ({ config, socket }: { readonly config?: string; readonly socket?: string }) => {
      const [{ loadAgentConfig }, { runDnsHost }, { createLog }] = await Promise.all([
        import('../../agent/config.ts'),
        import('../../agent/shell/dns-host.ts'),
        import('../../runtime/log.ts'),
      ]);
      const loaded = loadAgentConfig(config, { socket: socket ?? process.env.STAYPUT_SOCKET });
      await runDnsHost(loaded, createLog('dns-host', loaded.logLevel));
    });
  dns
    .command('restore')
    .description('Put back what this host asked before, after a crash or by hand')
    .action(async () => {
      const { restoreHostDns } = await import('../../agent/shell/dns-host.ts');
      const restored = await restoreHostDns();
      printLines(restored.length === 0 ? 'Nothing to put back.' : `Put back: ${restored.join(', ')}.`);
    });
}
