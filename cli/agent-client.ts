/** Calls to the running agent's socket. */
import type { Command } from 'commander';
import { StayputError, UsageError } from '../proto/errors.ts';
import { ApiError, callApi } from '../runtime/http-api.ts';

const DEFAULT_SOCKET = '/run/stayput/agent.sock';

/** Options that every command to the agent has. */
export interface ClientOptions {
  readonly socket?: string;
  readonly json?: boolean;
}

export function withClientOptions(command: Command): Command {
  return command
    .option('--json', 'print JSON')
    .option('--socket <path>', `socket of the agent (default: $STAYPUT_SOCKET or ${DEFAULT_SOCKET})`);
}

/** @throws StayputError in words for the person at the terminal */
export async function callAgent(
  options: ClientOptions,
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  timeoutMs?: number,
): Promise<unknown> {
  const socketPath = options.socket ?? process.env.STAYPUT_SOCKET ?? DEFAULT_SOCKET;
  try {
    return await callApi({ socketPath }, method, path, {
      ...(body === undefined ? {} : { body }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  } catch (cause) {
    if (cause instanceof ApiError && cause.status === 400) throw new UsageError(cause.message, { cause });
    if (!(cause instanceof ApiError) || cause.status !== 0) throw cause;
    const denied = /EACCES|EPERM/.test(cause.message);
    const hint = denied ? 'permission denied: run as root or join the group stayput' : 'is the agent running?';
    throw new StayputError('STAYPUT_AGENT_AWAY', `no answer from the agent at ${socketPath}: ${hint}`, { cause });
  }
}

/** For what changes the files of an agent: one at work would write its state over them. @throws UsageError */
export async function demandIdle(socketPath: string, stateDir: string): Promise<void> {
  let status: unknown;
  try {
    status = await callApi({ socketPath }, 'GET', '/v1/status');
  } catch {
    return;
  }
  if ((status as { fenced?: boolean }).fenced === true) return;
  throw new UsageError(
    `the agent is running with the identity in ${stateDir}: stop it (sudo systemctl stop stayput-agent), run this again, and start it`,
  );
}
