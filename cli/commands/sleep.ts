import type { Command } from 'commander';
import { MAX_ASLEEP, type SleepReply, type WakeReply } from '../../proto/dataplane/messages.ts';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { formatDuration, printJson, printLines } from '../output.ts';

export function registerSleepCommands(agent: Command): void {
  withClientOptions(
    agent.command('sleep').description('This machine is about to sleep: forget all session keys until it is awake'),
  ).action(async (options: ClientOptions) => {
    const reply = (await callAgent(options, 'POST', '/v1/sleep', undefined, PATIENCE_MS)) as SleepReply;
    if (options.json === true) return printJson(reply);
    const { sessions } = reply;
    const forgotten = `the keys of ${sessions} session${sessions === 1 ? '' : 's'} are forgotten`;
    return printLines(
      `Ready to sleep: ${forgotten}; no others are made for ${formatDuration(MAX_ASLEEP)} or until this machine is awake.`,
    );
  });
  withClientOptions(
    agent.command('wake').description('This machine is awake again: speak to all peers and register at once'),
  ).action(async (options: ClientOptions) => {
    const reply = (await callAgent(options, 'POST', '/v1/wake', undefined, PATIENCE_MS)) as WakeReply;
    if (options.json === true) return printJson(reply);
    return printLines(
      reply.resumed ? 'Awake: active peers are spoken to.' : 'Awake: that was known, and peers have been spoken to.',
    );
  });
}

/** Nobody wants to wait for a machine that does not sleep. */
const PATIENCE_MS = 3000;
