import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { printJson, printLines } from '../output.ts';

const INTERVAL_MS = 1000;
const MAX_COUNT = 100_000;

interface Pong {
  readonly eid: string;
  readonly owner: string;
  readonly rttUs: number | null;
}

export function registerPingCommand(program: Command): void {
  withClientOptions(
    program
      .command('ping')
      .description('Round trips through the tunnel to the agent that owns an EID or a name')
      .argument('<eid|name>')
      .option('-c, --count <n>', 'number of probes', '3'),
  ).action(async (text: string, options: ClientOptions & { readonly count: string }) => {
    const count = Number(options.count);
    if (!Number.isInteger(count) || count < 1 || count > MAX_COUNT) {
      throw new UsageError(`--count: "${options.count}" is not a whole number from 1 to ${MAX_COUNT}`);
    }
    const pongs: Pong[] = [];
    for (let sequence = 1; sequence <= count; sequence++) {
      if (sequence > 1) await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
      const pong = (await callAgent(options, 'POST', '/v1/ping', { target: text })) as Pong;
      pongs.push(pong);
      if (options.json !== true) printLines(line(sequence, pong));
    }
    const answered = pongs.filter(({ rttUs }) => rttUs !== null).length;
    if (options.json === true) printJson({ target: text, sent: count, answered, probes: pongs });
    else printLines(`${count} sent, ${answered} answered`);
    if (answered === 0) process.exitCode = 1;
  });
}

function line(sequence: number, { eid, owner, rttUs }: Pong): string {
  const from = `${eid} (${owner.slice(0, 8)}…) seq=${sequence}`;
  return rttUs === null ? `${from} no answer` : `${from} time=${(rttUs / 1000).toFixed(2)} ms`;
}
