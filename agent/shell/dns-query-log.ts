/**
 * The query log: a JSON line for each question and its answer, for those who switch it on. Written in portions and never
 * waited for: what a slow or full disk cannot take is left out and counted. At 16 MiB the file becomes FILE.1, in place
 * of the one before.
 */
import { appendFile, rename, stat } from 'node:fs/promises';
import type { Log } from '../../runtime/log.ts';

export interface QueryLogLine {
  /** ISO 8601, UTC. */
  readonly time: string;
  readonly client: string;
  readonly name: string;
  readonly type: string;
  readonly rcode: string;
  readonly zone: string;
  readonly cache?: string;
  readonly ms: number;
}

export class DnsQueryLog {
  readonly #path: string;
  readonly #log: Log;
  readonly #lost: (lines: number) => void;
  #waiting: string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #broken = false;

  constructor(path: string, log: Log, lost: (lines: number) => void) {
    this.#path = path;
    this.#log = log;
    this.#lost = lost;
  }

  write(line: QueryLogLine): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#lost(1);
      return;
    }
    this.#waiting.push(JSON.stringify(line));
    this.#timer ??= setTimeout(() => this.#flush(), PORTION_MS).unref();
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#writing;
    this.#flush();
    await this.#writing;
  }

  #flush(): void {
    this.#writing = this.#writing.then(() => this.#append());
  }

  async #append(): Promise<void> {
    const lines = this.#waiting;
    this.#waiting = [];
    this.#timer = undefined;
    if (lines.length === 0) return;
    try {
      await appendFile(this.#path, `${lines.join('\n')}\n`, { mode: 0o640 });
      this.#broken = false;
      if ((await stat(this.#path)).size >= MAX_OCTETS) await rename(this.#path, `${this.#path}.1`);
    } catch (err) {
      this.#lost(lines.length);
      if (!this.#broken) this.#log.warn({ err }, 'dns query log cannot be written');
      this.#broken = true;
    }
  }
}

const MAX_WAITING = 10_000;
const MAX_OCTETS = 16 * 1024 * 1024;
const PORTION_MS = 200;
