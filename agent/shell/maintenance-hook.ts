/**
 * The operator's program for announced maintenance of this host. It runs once when something is announced or the
 * announcement changes, and once when all is over. It never runs twice at a time; changes during a run are joined, and
 * only the latest is passed on. Nothing that a platform says is part of a command line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
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
    this.endAll();
  }

  /** The program, and what it has started. */
  private endAll(): void {
    const pid = this.child?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, KILL);
    } catch {
      // They have ended by themselves.
    }
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
    let child: ChildProcess;
    try {
      // A process group of its own, so that what the program starts ends with it.
      child = spawn(this.program, [], { env, detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
    } catch (error) {
      this.running = false;
      this.log.error({ reason: (error as Error).message }, FAILED);
      return;
    }
    this.child = child;
    let output = '';
    // Without a descriptor left there is none, and the error comes later.
    child.stderr?.setEncoding('utf8').on('data', (part: string) => {
      output = `${output}${part}`.slice(0, MAX_LOGGED);
    });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.endAll();
    }, this.patience);
    const ended = (reason: string | null): void => {
      if (this.child !== child) return;
      clearTimeout(timer);
      // Not waited for: what it left running may hold this open.
      child.stderr?.destroy();
      this.child = null;
      this.running = false;
      if (this.closed) return;
      if (reason !== null) this.log.error({ reason, output }, FAILED);
      this.run();
    };
    child.once('error', (error) => ended(error.message));
    child.once('exit', (code, signal) => {
      if (late) ended(`not done after ${this.patience} ms`);
      else ended(code === 0 ? null : `ended with ${signal ?? code}`);
    });
  }
}

/** One that takes no notice of a milder signal would keep all that comes after it waiting for ever. */
const KILL = 'SIGKILL';
const PATIENCE_MS = 30_000;
const FAILED = 'the program for maintenance failed';
const MAX_LOGGED = 500;
