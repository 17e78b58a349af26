/** Real programs that talk to a workload while something happens to it: curl, a TCP heartbeat, numbered datagrams. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { Exit, LabProcess } from './lab-process.ts';
import { sha256OfBytes } from './traffic/bytes.ts';
import type { DatagramsReport } from './traffic/datagrams.ts';
import type { HeartbeatReport } from './traffic/heartbeat.ts';
import { waitFor } from './wait.ts';

const SCRIPTS = fileURLToPath(new URL('./traffic/', import.meta.url));

export interface TrafficOptions {
  /** Where TCP heartbeat and datagrams go. */
  readonly address: string;
  /** What curl is given; a name or an address. */
  readonly url: string;
  readonly downloadBytes: number;
  readonly downloadRate: number;
  readonly datagramsPerSecond: number;
}

export interface TrafficResult {
  readonly tcpLongestGapMs: number;
  /** Since the beginning of the heartbeat. */
  readonly tcpLongestGapAtMs: number;
  readonly tcpResets: number;
  readonly tcpAlive: boolean;
  readonly heartbeats: number;
  readonly udpSent: number;
  readonly udpLost: number;
  readonly udpDuplicated: number;
  readonly sha256Match: boolean;
  readonly downloadSeconds: number;
}

/** Starts HTTP, TCP echo and UDP echo on `address` and waits until they listen. */
export async function startServer(host: Host, address: string): Promise<LabProcess> {
  const server = host.spawn('server', [process.execPath, join(SCRIPTS, 'server.js'), address]);
  await server.waitUntil('listening', () => server.lastReport('listening') !== undefined);
  return server;
}

/** A connection to TCP echo on `address` with a message every 10 ms; ready when the first has come back. */
export async function startHeartbeat(client: Host, address: string): Promise<LabProcess> {
  const heartbeat = client.spawn('heartbeat', [process.execPath, join(SCRIPTS, 'heartbeat.js'), address, '7']);
  const report = (): HeartbeatReport | undefined => heartbeat.lastReport<HeartbeatReport>('heartbeat');
  await heartbeat.waitUntil('first echo', () => (report()?.received ?? 0) > 0);
  return heartbeat;
}

export class Traffic {
  readonly heartbeat: LabProcess;
  readonly datagrams: LabProcess;
  readonly download: LabProcess;
  private readonly options: TrafficOptions;
  private readonly file: string;
  private readonly started = performance.now();
  private downloadEnd: { readonly exit: Exit; readonly at: number } | undefined;

  private constructor(client: Host, options: TrafficOptions) {
    this.options = options;
    this.file = join(client.dir, `download-${Math.round(performance.now())}`);
    this.heartbeat = client.spawn('heartbeat', [process.execPath, join(SCRIPTS, 'heartbeat.js'), options.address, '7']);
    this.datagrams = client.spawn('datagrams', [
      ...[process.execPath, join(SCRIPTS, 'datagrams.js'), options.address, '7'],
      String(options.datagramsPerSecond),
    ]);
    const url = `${options.url}/bytes?size=${options.downloadBytes}&rate=${options.downloadRate}`;
    this.download = client.spawn('curl', ['curl', '-sS', '--connect-timeout', '10', '-o', this.file, url]);
    void this.download.exited.then((exit) => {
      this.downloadEnd = { exit, at: performance.now() };
    });
  }

  /** Starts all three and waits until each has had an answer. */
  static async start(client: Host, options: TrafficOptions): Promise<Traffic> {
    const traffic = new Traffic(client, options);
    await traffic.heartbeat.waitUntil('first echo', () => (traffic.beats?.received ?? 0) > 0);
    await traffic.datagrams.waitUntil('first echo', () => (traffic.numbers?.received ?? 0) > 0);
    await traffic.waitForBytes(1);
    return traffic;
  }

  get beats(): HeartbeatReport | undefined {
    return this.heartbeat.lastReport<HeartbeatReport>('heartbeat');
  }

  get numbers(): DatagramsReport | undefined {
    return this.datagrams.lastReport<DatagramsReport>('datagrams');
  }

  get downloadedBytes(): number {
    try {
      return statSync(this.file).size;
    } catch {
      return 0;
    }
  }

  get downloading(): boolean {
    return this.download.running;
  }

  /** @throws LabError if the download does not get that far */
  async waitForBytes(bytes: number): Promise<void> {
    await waitFor(`${bytes} bytes downloaded`, () => this.downloadedBytes >= bytes, {
      unless: () => (this.download.running ? undefined : `curl has ended: ${this.download.output().trim()}`),
    });
  }

  /** Waits for the end of the download, then for the last echoes, and sums up. */
  async finish(timeoutMs = 60_000): Promise<TrafficResult> {
    const limit = setTimeout(() => this.download.signal('SIGKILL'), timeoutMs);
    const exit = await this.download.exited;
    clearTimeout(limit);
    await Promise.all([this.heartbeat.stop(), this.datagrams.stop()]);
    const [beats, numbers] = [this.beats, this.numbers];
    if (beats === undefined || numbers === undefined) throw new LabError('the traffic programs reported nothing');
    return {
      tcpLongestGapMs: Math.max(beats.longestGapMs, beats.silentMs),
      tcpLongestGapAtMs: beats.longestGapAtMs,
      tcpResets: beats.resets + (exit.code === 0 ? 0 : 1),
      tcpAlive: beats.open && exit.code === 0,
      heartbeats: beats.received,
      udpSent: numbers.sent,
      udpLost: numbers.lost,
      udpDuplicated: numbers.duplicated,
      sha256Match: exit.code === 0 && sha256OfFile(this.file) === sha256OfBytes(this.options.downloadBytes),
      downloadSeconds: Math.round(((this.downloadEnd?.at ?? performance.now()) - this.started) / 100) / 10,
    };
  }
}

export function sha256OfFile(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
