/** Stands for systemd as far as daemons notify it: a socket that keeps what it is told (sd_notify(3)). */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { waitFor } from './wait.ts';

export class Notified {
  /** For NOTIFY_SOCKET. */
  readonly socket: string;
  readonly #reader: ChildProcess;
  #told = '';

  private constructor(socket: string, reader: ChildProcess) {
    this.socket = socket;
    this.#reader = reader;
    reader.stdout?.on('data', (bytes: Buffer) => {
      this.#told += bytes.toString('latin1');
    });
  }

  static async listen(socket: string): Promise<Notified> {
    const reader = ['sh', '-c', 'exec cat <&3'];
    const command = ['--pdeathsig', 'KILL', 'systemd-socket-activate', '--datagram', '-l', socket, ...reader];
    const child = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'ignore'] });
    const notified = new Notified(socket, child);
    try {
      await waitFor(`${socket} is there`, () => existsSync(socket));
      return notified;
    } catch (error) {
      notified.close();
      throw error;
    }
  }

  get ready(): boolean {
    return this.#told.includes('READY=1');
  }

  /** How often the daemon has said that it is alive. */
  get beats(): number {
    return this.#told.split('WATCHDOG=1').length - 1;
  }

  close(): void {
    this.#reader.kill('SIGKILL');
  }
}
