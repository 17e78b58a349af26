/** A shell script in place of the data plane's program, which is ready for raw sockets when it is told to be. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { waitFor } from '../lab/wait.ts';

export class RawProgram {
  readonly path: string;
  private readonly started: FileHandle;
  private readonly orders: FileHandle;

  private constructor(path: string, started: FileHandle, orders: FileHandle) {
    this.path = path;
    this.started = started;
    this.orders = orders;
  }

  /** `lines`: what it says together with that it is ready. */
  static async make(t: TestContext, ...lines: readonly string[]): Promise<RawProgram> {
    const folder = mkdtempSync(join(tmpdir(), 'stayput-raw-program-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const [path, started, orders] = ['program', 'started', 'orders'].map((name) => join(folder, name)) as Paths;
    execFileSync('mkfifo', [started, orders]);
    const said = ['ready', ...lines].map((line) => `'${line}'`).join(' ');
    const steps = ['#!/bin/sh', `echo $$ >${started}`, `read order <${orders}`, `printf '%s\\n' ${said}`, 'exec cat'];
    writeFileSync(path, `${steps.join('\n')}\n`, { mode: 0o700 });
    const pipe = async (name: string): Promise<FileHandle> => {
      // For both, so that neither side waits for the other one to open it.
      const handle = await open(name, 'r+');
      t.after(() => handle.close());
      return handle;
    };
    return new RawProgram(path, await pipe(started), await pipe(orders));
  }

  /** Its process, once it runs. */
  async pid(): Promise<number> {
    const { buffer, bytesRead } = await this.started.read();
    return Number(buffer.toString('latin1', 0, bytesRead));
  }

  async becomeReady(): Promise<void> {
    await this.orders.write('now\n');
  }
}

export async function ended(pid: number): Promise<void> {
  await waitFor(`the end of process ${pid}`, () => !existsSync(`/proc/${pid}`));
}

type Paths = [string, string, string];
