/** All probes at once between the mover and its peer, by the program in `bench/probe`. */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ensureCrateBuilt } from '../../runtime/crate-build.ts';
import type { Host } from '../../test/lab/lab.ts';
import type { LabProcess } from '../../test/lab/lab-process.ts';
import { waitFor } from '../../test/lab/wait.ts';
import { BenchError } from '../bench-error.ts';
import { type Item, type ProbeName, parseItems, type Samples } from './samples.ts';

const CRATE = { folder: 'bench/probe', binary: 'stayput-probe', what: 'the probe' };
const READY_MS = 15_000;
const WARM_MS = 20_000;
/** The probe itself waits 4 s at most for what is on its way. */
const END_MS = 10_000;
/** Arrivals without a silence of 100 ms for this long are steady. */
const STEADY_BEFORE_MS = 500;
const STEADY_AFTER_MS = 800;
/** A stream without an arrival for this long is not steady. */
const LATE_MS = 200;

export interface Party {
  readonly host: Host;
  readonly address: string;
}

export function ensureProbeBuilt(progress: (line: string) => void): Promise<string> {
  return ensureCrateBuilt(CRATE, progress);
}

export class Probing {
  private readonly mover: LabProcess;
  private readonly peer: LabProcess;
  private readonly folders: Readonly<Record<Side, string>>;
  private readonly probes: readonly ProbeName[];

  private constructor(
    mover: LabProcess,
    peer: LabProcess,
    folders: Readonly<Record<Side, string>>,
    probes: readonly ProbeName[],
  ) {
    this.mover = mover;
    this.peer = peer;
    this.folders = folders;
    this.probes = probes;
  }

  /** Starts both ends; steady traffic in all streams when it returns. */
  static async start(program: string, mover: Party, peer: Party, probes: readonly ProbeName[]): Promise<Probing> {
    runs += 1;
    const run = runs;
    const folders = { mover: join(mover.host.dir, `probe-${run}`), peer: join(peer.host.dir, `probe-${run}`) };
    const spawn = async (side: Side, own: Party, other: Party): Promise<LabProcess> => {
      mkdirSync(folders[side]);
      const words = [side, own.address, other.address, folders[side], String(run), probes.join(',')];
      const started = own.host.spawn('probe', [program, ...words]);
      await started.waitUntil('ready', () => started.lastReport('ready') !== undefined, READY_MS);
      return started;
    };
    const listening = await spawn('mover', mover, peer);
    const probing = new Probing(listening, await spawn('peer', peer, mover), folders, probes);
    await waitFor('steady traffic', () => probing.steadySince(0n, STEADY_BEFORE_MS), { timeoutMs: WARM_MS });
    return probing;
  }

  /** Waits until all streams bring again what was sent after `moment`, and have done so for a while. False: too late. */
  async steadyAgain(moment: bigint, timeoutMs: number): Promise<boolean> {
    try {
      await waitFor('steady traffic again', () => this.steadySince(moment, STEADY_AFTER_MS), { timeoutMs });
      return true;
    } catch {
      return false;
    }
  }

  /** Ends the sending, waits for what is on its way, and gives what was seen. */
  async finish(origin: bigint): Promise<Samples[]> {
    const both = [this.mover, this.peer] as const;
    for (const process of both) process.signal('SIGTERM');
    const sums = await Promise.all(
      both.map((process) =>
        waitFor(`${process.name}: its sums`, () => process.lastReport<Final>('final'), { timeoutMs: END_MS }),
      ),
    );
    await Promise.all(both.map((process) => process.stop()));
    const [atMover, atPeer] = sums;
    if (atMover === undefined || atPeer === undefined) throw new BenchError('a probe gave no sums');
    const samples = this.probes.map((probe) => {
      const [source, sink] = SIDES[probe];
      const ends = [atMover.streams[probe], atPeer.streams[probe]] as const;
      const hashes = ends.map((end) => (end?.complete === true ? end.sha256 : undefined));
      return {
        probe,
        sent: this.read(source, `${probe}.sent`, origin),
        received: this.read(sink, `${probe}.received`, origin),
        resets: Math.max(...ends.map((end) => end?.resets ?? 0)),
        sha256Match: probe === 'tcp-bulk' ? hashes[0] !== undefined && hashes[0] === hashes[1] : null,
      };
    });
    for (const folder of Object.values(this.folders)) rmSync(folder, { recursive: true });
    return samples;
  }

  async abort(): Promise<void> {
    await Promise.all([this.mover.stop('SIGKILL'), this.peer.stop('SIGKILL')]);
  }

  private steadySince(moment: bigint, forMs: number): boolean {
    const status = { mover: this.mover.lastReport<Status>('status'), peer: this.peer.lastReport<Status>('status') };
    return this.probes.every((probe) => {
      const { atNs, streams } = status[SIDES[probe][1]] ?? {};
      const stream = streams?.[probe];
      if (atNs === undefined || stream === undefined) return false;
      const [now, last, steady] = [BigInt(atNs), BigInt(stream.lastNs), BigInt(stream.steadyNs)];
      const since = steady > moment ? steady : moment;
      const fresh = !SAYS_WHEN_SENT.has(probe) || BigInt(stream.lastSentNs) > moment;
      return fresh && last > 0n && now - last < ms(LATE_MS) && now - since >= ms(forMs) && now > since;
    });
  }

  private read(side: Side, file: string, origin: bigint): Item[] {
    const path = join(this.folders[side], file);
    return existsSync(path) ? parseItems(readFileSync(path), origin) : [];
  }
}

type Side = 'mover' | 'peer';

/** Who sends and who writes down the arrivals. */
const SIDES: Readonly<Record<ProbeName, readonly [source: Side, sink: Side]>> = {
  'udp-echo': ['peer', 'peer'],
  'udp-in': ['peer', 'mover'],
  'udp-out': ['mover', 'peer'],
  'tcp-echo': ['peer', 'peer'],
  'tcp-bulk': ['mover', 'peer'],
};

const SAYS_WHEN_SENT: ReadonlySet<ProbeName> = new Set(['udp-echo', 'udp-in', 'udp-out', 'tcp-echo']);

let runs = 0;

/** Nanoseconds as text: more than a number holds. */
interface Status {
  readonly atNs: string;
  readonly streams: Readonly<
    Partial<Record<ProbeName, { readonly lastNs: string; readonly lastSentNs: string; readonly steadyNs: string }>>
  >;
}

interface Final {
  readonly streams: Readonly<
    Partial<Record<ProbeName, { readonly resets: number; readonly sha256: string; readonly complete: boolean }>>
  >;
}

function ms(value: number): bigint {
  return BigInt(value) * 1_000_000n;
}
