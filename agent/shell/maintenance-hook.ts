/**
 * The operator's program for announced maintenance of this host. It runs once when something is announced or the
 * announcement changes, and once when all is over: never twice at a time, and of what changes meanwhile with the latest
 * alone. Nothing that a platform says is part of a command line.
 */
import { type ChildProcess, execFile } from 'node:child_process';
import type { Millis } from '../../proto/time.ts';
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
  private readonly patience: Millis;
  private child: ChildProcess | null = null;
  private closed = false;
  private running = false;
  private next: Announcement | null = null;

  /** `socket`: of this agent, for the program's own `stayput` commands. */
  constructor(program: string, socket: string, log: Log, patience: Millis = PATIENCE_MS) {
    this.program = program;
    this.socket = socket;
    this.log = log;
    this.patience = patience;
  }

  handle(platform: PlatformName, events: readonly PlatformEvent[]): void {
    this.next = { platform, events };
    if (!this.running) this.run();
  }

  close(): void {
    this.next = null;
    this.closed = true;
    this.child?.kill(KILL);
  }

  private run(): void {
    const { next } = this;
    if (next === null || this.closed) return;
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
    const { patience } = this;
    const options = { env, timeout: patience, killSignal: KILL, maxBuffer: MAX_OUTPUT } as const;
    this.child = execFile(this.program, [], options, (error, _, stderr) => {
      this.running = false;
      this.child = null;
      if (this.closed) return;
      if (error !== null) {
        const reason = error.killed === true ? `not done after ${patience} ms` : error.message.split('\n', 1)[0];
        const output = stderr.slice(0, MAX_LOGGED);
        this.log.error({ reason, output }, 'the program for maintenance failed');
      }
      this.run();
    });
  }
}

/** One that takes no notice of a milder signal would keep all that comes after it waiting for ever. */
const KILL = 'SIGKILL';
const PATIENCE_MS = 30_000;
const MAX_OUTPUT = 64 * 1024;
const MAX_LOGGED = 500;
