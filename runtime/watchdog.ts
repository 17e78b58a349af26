/**
 * What systemd is told of a daemon (sd_notify(3)): that it serves, and again and again, for as long as its event loop
 * turns, that it is alive (`WatchdogSec=`). Without a service manager, nothing.
 *
 * Node has no datagram sockets of the kind that this takes, so systemd's own program does it. It ends only when systemd
 * has read the message, which else could not tell whose it was; there is one at a time.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Log } from './log.ts';

export interface Notifier {
  /** Ends the beats. */
  close(): void;
}

/** To be called once, when the daemon serves. Takes what concerns the watchdog out of the environment of later children. */
export function notifySystemd(log: Log, env = process.env, pid = process.pid): Notifier {
  const { NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC } = env;
  delete env.WATCHDOG_PID;
  delete env.WATCHDOG_USEC;
  if (NOTIFY_SOCKET === undefined) return { close: () => undefined };
  let running: ChildProcess | undefined;
  let warned = false;
  const warn = (error: unknown): void => {
    if (!warned) log.warn({ err: error }, 'systemd cannot be told that this daemon runs');
    warned = true;
  };
  const tell = (...what: readonly string[]): void => {
    if (running !== undefined) return;
    running = spawn(PROGRAM, [...what, `--pid=${pid}`], { env, stdio: 'ignore' });
    running.once('error', warn);
    running.once('close', (code) => {
      running = undefined;
      if (code !== 0) warn(new Error(`${PROGRAM} ended with ${code}`));
    });
  };
  tell('--ready');
  const limitMs = Number(WATCHDOG_USEC ?? 0) / 1000;
  const forUs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === pid;
  if (!forUs || !(limitMs > 0)) return { close: () => undefined };
  const timer = setInterval(() => tell('WATCHDOG=1'), limitMs / BEATS_WITHIN_LIMIT);
  return { close: () => clearInterval(timer) };
}

const PROGRAM = 'systemd-notify';

/** One that is late, on a machine without a CPU to spare, is made up for by the next. */
const BEATS_WITHIN_LIMIT = 3;
