import { networkInterfaces } from 'node:os';
import { type Command, Option } from 'commander';
import { StayputError } from '../../proto/errors.ts';
import { unitStates } from '../../runtime/systemd.ts';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { duration } from '../option-values.ts';
import { printJson, printLines } from '../output.ts';
import { isHealthy, type Status, statusLines } from '../status-screen.ts';
import { styleOf } from '../style.ts';

interface StatusOptions extends ClientOptions {
  readonly watch?: boolean;
  readonly interval: string;
}

export function registerStatusCommand(program: Command): void {
  withClientOptions(
    program
      .command('status')
      .description(
        'Whether this host is registered, who can reach it, over what, and what is wrong; exit code 0: healthy',
      )
      .option('--watch', 'again and again, until Ctrl-C')
      .addOption(new Option('--interval <duration>', 'with --watch: how often').default('2s')),
  ).action(async (options: StatusOptions) => {
    const interval = duration('--interval', options.interval);
    for (;;) {
      const shown = await look(options);
      if (options.watch === true && process.stdout.isTTY) process.stdout.write(CLEAR);
      if (options.json === true) printJson(shown.json);
      else printLines(...shown.lines);
      process.exitCode = shown.healthy ? 0 : 1;
      if (options.watch !== true) return;
      await new Promise((resolve) => setTimeout(resolve, interval));
    }
  });
}

interface Shown {
  readonly healthy: boolean;
  readonly json: unknown;
  readonly lines: readonly string[];
}

async function look(options: ClientOptions): Promise<Shown> {
  const style = styleOf(process.stdout);
  try {
    const status = (await callAgent(options, 'GET', '/v1/status')) as Status;
    const healthy = isHealthy(status);
    return { healthy, json: { healthy, ...status }, lines: statusLines(status, style) };
  } catch (error) {
    if (!(error instanceof StayputError) || error.code !== 'STAYPUT_AGENT_AWAY') throw error;
    const problems = [error.message, ...(await withoutAgent())];
    return {
      healthy: false,
      json: { healthy: false, registered: false, problems },
      lines: [style.bad('NOT healthy: the agent does not answer'), ...problems.map((line) => style.bad(`! ${line}`))],
    };
  }
}

/** What can be said of this host while its agent is away. */
async function withoutAgent(): Promise<string[]> {
  const units = (await unitStates(UNITS)) ?? [];
  const states = units.flatMap(({ unit, state }) =>
    state === 'active' || state === 'missing' ? [] : [`${unit} is ${state}: journalctl -u ${unit} -n 20`],
  );
  const forwards =
    networkInterfaces()[TUNNEL] === undefined
      ? `there is no interface ${TUNNEL}: nothing is forwarded`
      : `the interface ${TUNNEL} is there: if stayput-dataplane runs, it forwards to whom it knows, and learns of no move`;
  return [
    ...states,
    forwards,
    'what to do: sudo systemctl start stayput-agent; has this host joined (stayput agent join)?',
  ];
}

const UNITS = ['stayput-agent.service', 'stayput-dataplane.service'];
const TUNNEL = 'stayput0';
const CLEAR = '\u001b[H\u001b[2J\u001b[3J';
