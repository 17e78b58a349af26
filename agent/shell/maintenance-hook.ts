/**
 * The operator's program for announced maintenance of this host. It runs once when something is announced or the
 * announcement changes, and once when all is over: never twice at a time, and of what changes meanwhile with the latest
 * alone. Nothing that a platform says is part of a command line.
 */
import { execFile } from 'node:child_process';
import type { Log } from '../../runtime/log.ts';
import type { PlatformEvent, PlatformName } from '../platform/platform.ts';

interface Announcement {
  readonly platform: PlatformName;
  readonly events: readonly PlatformEvent[];
}

export class MaintenanceHook {
  private readonly program: string;
  private readonly socket: string;
  private readonly log: Log;
  private readonly end = new AbortController();
  private running = false;
  private next: Announcement | null = null;

  /** `socket`: of this agent, for the program's own `stayput` commands. */
  constructor(program: string, socket: string, log: Log) {
    this.program = program;
    this.socket = socket;
    this.log = log;
  }

  handle(platform: PlatformName, events: readonly PlatformEvent[]): void {
    this.next = { platform, events };
    if (!this.running) this.run();
  }

  close(): void {
    this.next = null;
    this.end.abort();
  }

  private run(): void {
    const { next } = this;
    if (next === null) return;
    this.next = null;
    this.running = true;
    const [first] = next.events;
    const env = {
      PATH: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      STAYPUT_SOCKET: this.socket,
      STAYPUT_PLATFORM: next.platform,
      STAYPUT_MAINTENANCE: first === undefined ? 'over' : 'announced',
      STAYPUT_ACTION: first?.action ?? '',
      STAYPUT_NOT_BEFORE: first?.notBefore ?? '',
    };
    const options = { env, timeout: PATIENCE_MS, maxBuffer: MAX_OUTPUT, signal: this.end.signal };
    execFile(this.program, [], options, (error, _, stderr) => {
      this.running = false;
      if (this.end.signal.aborted) return;
      if (error !== null) {
        const reason = error.killed === true ? `not done after ${PATIENCE_MS} ms` : error.message.split('\n', 1)[0];
        const output = stderr.slice(0, MAX_LOGGED);
        this.log.error({ reason, output }, 'the program for maintenance failed');
      }
      this.run();
    });
  }
}

const PATIENCE_MS = 30_000;
const MAX_OUTPUT = 64 * 1024;
const MAX_LOGGED = 500;
