/**
 * The audit log: JSON lines in the data folder, one for each thing that was done to the overlay or tried in vain.
 *
 * A line is in the file before the process does anything else that can wait (with the next turn of the event loop). A
 * disk that is full or broken stops nothing: lines are lost then, which is counted, said once, and noted in the log
 * itself when it can be written again. What strangers can cause at will is written at a bounded rate, with the number of
 * those that were left out. Files are rotated by size and bounded in number.
 */
import {
  closeSync,
  existsSync,
  fchmodSync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { Log } from '../../runtime/log.ts';
import { RateTable } from '../core/rate-table.ts';
import { TokenBucket } from './token-bucket.ts';

export const AUDIT_EVENTS = [
  'map-server-started',
  'map-server-stopped',
  'audit-lines-lost',
  'token-created',
  'token-revoked',
  'token-used-up',
  'agent-enrolled',
  'agent-revoked',
  'certificate-renewed',
  'authentication-failed',
  'grant-added',
  'grant-removed',
  'policy-changed',
  'zone-updated',
  'name-set',
  'name-removed',
  'site-added',
  'site-changed',
  'site-removed',
  'site-key-added',
  'site-key-removed',
  'eid-taken',
  'eid-moved',
  'eid-released',
  'eid-withdrawn',
  'eid-recovered',
  'registration-refused',
  'message-rejected',
  'eid-attach-ordered',
  'eid-move-ordered',
  'eid-detach-ordered',
  'authority-rotated',
  'authority-retired',
  'server-certificate-renewed',
  'configuration-reloaded',
  'log-level-set',
  'other-change',
] as const;

export type AuditEvent = (typeof AUDIT_EVENTS)[number];

export interface AuditEntry {
  readonly event: AuditEvent;
  /** `admin` (who can open the admin socket), `agent XTRID`, `map server`, or `unknown`. */
  readonly who: string;
  /** An address, or `admin socket`; missing where there is none. */
  readonly from?: string;
  readonly what: Readonly<Record<string, unknown>>;
  /** `ok`, or the code of why not. */
  readonly result: string;
}

export interface AuditLine extends AuditEntry {
  /** ISO 8601, UTC. */
  readonly time: string;
  /** Lines of the same event that were left out before this one. */
  readonly suppressed?: number;
}

export type AuditCount = 'written' | 'lost' | 'suppressed';

export interface AuditLogOptions {
  readonly dataDir: string;
  readonly maxOctets: number;
  /** Older files beside the present one. */
  readonly olderFiles: number;
  readonly log: Log;
  readonly count: (what: AuditCount, lines: number) => void;
}

export class AuditLog {
  private readonly options: AuditLogOptions;
  private readonly path: string;
  private readonly rate = new TokenBucket(STRANGERS_PER_SECOND, performance.now());
  private readonly suppressed = new Map<string, AuditEntry & { readonly times: number }>();
  private readonly agents = new RateTable(AGENT_LINES_PER_SECOND, AGENT_LINES_AT_ONCE, MAX_AGENTS);
  private readonly summary: NodeJS.Timeout;
  private waiting: string[] = [];
  private scheduled: NodeJS.Immediate | undefined;
  private file: number | undefined;
  private size = 0;
  private lost = 0;
  /** The last line may have been written in part. */
  private torn = false;

  constructor(options: AuditLogOptions) {
    this.options = options;
    this.path = join(options.dataDir, FILE);
    this.summary = setInterval(() => this.summarise(), SUMMARY_MS).unref();
  }

  /** Lines that could not be written since the last one that could. */
  get lostLines(): number {
    return this.lost;
  }

  write(entry: AuditEntry): void {
    this.put(entry, 0);
  }

  /** For what others can cause as often as they like. */
  writeLimited(entry: AuditEntry): void {
    this.putOrCount(entry, entry.event, this.rate.tryTake(performance.now()));
  }

  /** For what an agent may do as often as it likes, so that it cannot push all else out of the files. */
  writeOfAgent(entry: AuditEntry): void {
    this.putOrCount(entry, `${entry.event} ${entry.who}`, this.agents.tryTake(entry.who, performance.now()));
  }

  close(): void {
    clearInterval(this.summary);
    this.summarise();
    this.flush();
    if (this.file !== undefined) closeSync(this.file);
    this.file = undefined;
  }

  private putOrCount(entry: AuditEntry, kind: string, mayWrite: boolean): void {
    const before = this.suppressed.get(kind)?.times ?? 0;
    if (mayWrite) {
      this.suppressed.delete(kind);
      this.put(entry, before);
      return;
    }
    this.suppressed.set(kind, { ...entry, times: before + 1 });
    this.options.count('suppressed', 1);
  }

  /** Of what was left out, the last of each kind with the number of the others. */
  private summarise(): void {
    for (const { times, ...entry } of this.suppressed.values()) this.put(entry, times - 1);
    this.suppressed.clear();
  }

  private put({ event, who, from, what, result }: AuditEntry, suppressed: number): void {
    const time = new Date().toISOString();
    const line: AuditLine = {
      ...{ time, event, who },
      ...(from === undefined ? {} : { from }),
      ...{ what: bounded(what), result: result.slice(0, LONGEST_TEXT) },
      ...(suppressed > 0 ? { suppressed } : {}),
    };
    if (this.waiting.length >= MAX_WAITING) {
      this.lose(1, new Error('too many lines at once'));
      return;
    }
    this.waiting.push(JSON.stringify(line));
    this.scheduled ??= setImmediate(() => this.flush());
  }

  private flush(): void {
    clearImmediate(this.scheduled);
    this.scheduled = undefined;
    const lines = this.waiting;
    if (lines.length === 0) return;
    this.waiting = [];
    try {
      const notice = this.lost === 0 ? [] : [this.lossNotice()];
      const text = `${this.torn ? '\n' : ''}${[...notice, ...lines].join('\n')}\n`;
      this.append(Buffer.from(text));
      if (this.lost > 0) this.options.log.info({ count: this.lost }, 'the audit log is written again');
      this.lost = 0;
      this.torn = false;
      this.options.count('written', lines.length);
    } catch (error) {
      this.lose(lines.length, error);
    }
  }

  private append(bytes: Buffer): void {
    this.file ??= this.open();
    if (this.size > 0 && this.size + bytes.length > this.options.maxOctets) {
      this.rotate();
      this.file = this.open();
    }
    for (let written = 0; written < bytes.length; ) {
      const octets = writeSync(this.file, bytes, written);
      this.torn = written + octets < bytes.length;
      written += octets;
      this.size += octets;
    }
  }

  private open(): number {
    const file = openSync(this.path, 'a', 0o600);
    fchmodSync(file, 0o600);
    this.size = fstatSync(file).size;
    return file;
  }

  private rotate(): void {
    const { olderFiles } = this.options;
    if (this.file !== undefined) closeSync(this.file);
    this.file = undefined;
    rmSync(`${this.path}.${olderFiles}`, { force: true });
    for (let i = olderFiles - 1; i >= 1; i--) {
      if (existsSync(`${this.path}.${i}`)) renameSync(`${this.path}.${i}`, `${this.path}.${i + 1}`);
    }
    if (olderFiles > 0) renameSync(this.path, `${this.path}.1`);
    else rmSync(this.path);
  }

  private lossNotice(): string {
    const time = new Date().toISOString();
    return JSON.stringify({
      time,
      event: 'audit-lines-lost',
      who: 'map server',
      what: { lines: this.lost },
      result: 'ok',
    });
  }

  private lose(lines: number, err: unknown): void {
    if (this.lost === 0) this.options.log.error({ err, path: this.path }, 'the audit log cannot be written, going on');
    this.lost += lines;
    this.options.count('lost', lines);
    // Opened anew the next time: the folder may have been replaced.
    if (this.file === undefined) return;
    try {
      closeSync(this.file);
    } catch {
      // Nothing more can be done with it.
    }
    this.file = undefined;
  }
}

/** Every line that is there, the oldest first; what cannot be read as one is left out. */
export function* readAuditLog(dataDir: string): IterableIterator<AuditLine> {
  const path = join(dataDir, FILE);
  const older: string[] = [];
  for (let i = 1; existsSync(`${path}.${i}`); i++) older.unshift(`${path}.${i}`);
  for (const file of existsSync(path) ? [...older, path] : older) {
    for (const text of readFileSync(file, 'utf8').split('\n')) {
      const line = parseLine(text);
      if (line !== undefined) yield line;
    }
  }
}

function parseLine(text: string): AuditLine | undefined {
  try {
    return LINE.parse(JSON.parse(text)) as AuditLine;
  } catch {
    return undefined;
  }
}

/** What others sent is kept, but not at any length. */
function bounded(what: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(what).flatMap(([key, value]) => {
      if (value === undefined) return [];
      const text = JSON.stringify(value) ?? '';
      return [[key, text.length <= LONGEST_TEXT ? value : `${text.slice(0, LONGEST_TEXT)}…`]];
    }),
  );
}

const LINE = z.object({
  time: z.string(),
  event: z.string(),
  who: z.string(),
  from: z.string().optional(),
  what: z.record(z.string(), z.unknown()),
  result: z.string(),
  suppressed: z.number().optional(),
});

const FILE = 'audit.log';
const STRANGERS_PER_SECOND = 20;
const AGENT_LINES_PER_SECOND = 1;
const AGENT_LINES_AT_ONCE = 5_000;
const MAX_AGENTS = 10_000;
const SUMMARY_MS = 10_000;
const MAX_WAITING = 50_000;
const LONGEST_TEXT = 1_000;
