/** A program running in the background of a lab, its output in a file, ended by its own process id. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { LabError } from './lab-error.ts';
import { PATIENCE_MS, waitFor } from './wait.ts';

const STOP_GRACE_MS = 3_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class LabProcess {
  readonly name: string;
  readonly logFile: string;
  readonly exited: Promise<Exit>;
  exit: Exit | undefined;
  private readonly child: ChildProcess;

  /** `argv[0]` must become the program itself by exec alone, so that its process id is the child's. */
  constructor(name: string, argv: readonly string[], logFile: string, env: NodeJS.ProcessEnv) {
    this.name = name;
    this.logFile = logFile;
    const log = openSync(logFile, 'a');
    const [program = '', ...args] = argv;
    this.child = spawn(program, args, { stdio: ['ignore', log, log], env });
    closeSync(log);
    this.exited = new Promise((resolve) => {
      const ended = (exit: Exit): void => {
        this.exit ??= exit;
        resolve(this.exit);
      };
      this.child.once('exit', (code, signal) => ended({ code, signal }));
      this.child.once('error', () => ended({ code: 127, signal: null }));
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new LabError(`${this.name} did not start`);
    return this.child.pid;
  }

  get running(): boolean {
    return this.exit === undefined && this.child.pid !== undefined;
  }

  /** Everything it has written so far. */
  output(): string {
    return readFileSync(this.logFile, 'utf8');
  }

  /** The last JSON line it has written that has this `type`. */
  lastReport<T>(type: string): T | undefined {
    const lines = tail(this.logFile, 64 * 1024).split('\n');
    for (const line of lines.reverse()) {
      if (!line.startsWith('{')) continue;
      try {
        const value = JSON.parse(line) as { type?: string };
        if (value.type === type) return value as T;
      } catch {
        // A line that is still being written.
      }
    }
    return undefined;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.child.kill(signal);
  }

  /** Ends it with `signal`, and with SIGKILL if it does not follow within 3 s. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    this.signal(signal);
    const limit = setTimeout(() => this.signal('SIGKILL'), STOP_GRACE_MS);
    const exit = await this.exited;
    clearTimeout(limit);
    return exit;
  }

  kill9(): Promise<Exit> {
    return this.stop('SIGKILL');
  }

  /** Waits until `condition` holds; fails at once, with the end of its log, if the process ends first. */
  waitUntil<T>(
    what: string,
    condition: () => T | undefined | false | Promise<T | undefined | false>,
    timeoutMs = PATIENCE_MS,
  ): Promise<T> {
    return waitFor(`${this.name}: ${what}`, condition, {
      timeoutMs,
      unless: () =>
        this.exit === undefined
          ? undefined
          : `it ended (${this.exit.signal ?? `exit code ${this.exit.code}`})\n${tail(this.logFile, 2000)}`,
    });
  }

  /** Resident memory in MB, from the kernel. */
  rssMb(): number {
    const kb = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1];
    return Math.round(Number(kb ?? 0) / 102.4) / 10;
  }
}

export function tail(file: string, bytes: number): string {
  const { size } = statSync(file);
  const buffer = Buffer.alloc(Math.min(size, bytes));
  const descriptor = openSync(file, 'r');
  try {
    const length = readSync(descriptor, buffer, 0, buffer.length, size - buffer.length);
    return buffer.subarray(0, length).toString('utf8');
  } finally {
    closeSync(descriptor);
  }
}
