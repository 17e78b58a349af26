/**
 * Many correspondents of one mover: 1,000 agents that are enrolled and registered at the map server, each with a key, a
 * UDP socket and a state machine of the data plane of its own, all in one process on one host
 * (`dataplane/src/bin/stayput-correspondents.rs`). What 1,000 hosts would have besides, 1,000 kernels and CPUs, is not
 * there: on the way back of an event they queue for one CPU.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureCrateBuilt } from '../../runtime/crate-build.ts';
import type { Attachment, Internet } from '../../test/lab/internet.ts';
import type { LabProcess } from '../../test/lab/lab-process.ts';
import type { Agent, Overlay } from '../../test/lab/overlay.ts';
import { waitFor } from '../../test/lab/wait.ts';
import { BenchError } from '../bench-error.ts';
import { type Correspondent, REQUEST_INTERVAL_MS } from './crowd-analysis.ts';
import type { Enrolled, Enrolment } from './enrol-correspondents.ts';

const CORRESPONDENTS = 1000;
/** Of which each correspondent has an address. */
const CORRESPONDENT_PREFIX = '10.77.128.0/17';
/** Of the underlay, of which each has an address: what one address may ask of an owner is limited. */
const UNDERLAY_PREFIX = '198.18.128.0/22';
/** The mover's agent asks the map server about each of them, at a limited rate. */
const FIRST_MEETING_MS = 15_000;
const MEETING_MS = 1_000;
const MEETING_LIMIT_MS = 90_000;
const PREPARATION_LIMIT_MS = 120_000;
const END_MS = 15_000;
const DATAPLANE_PORT = 4341;
const ENROL = fileURLToPath(new URL('./enrol-correspondents.js', import.meta.url));

const CRATE = {
  folder: 'dataplane',
  binary: 'stayput-correspondents',
  what: 'the correspondents',
  addedBy: 'correspondents',
};

export function ensureCorrespondentsBuilt(progress: (line: string) => void): Promise<string> {
  return ensureCrateBuilt(CRATE, progress);
}

/** Enrolled agents without a process: what `start` needs. */
export class Correspondents {
  private readonly at: Attachment;
  private readonly program: string;
  private readonly enrolled: Enrolled;
  private met = false;

  private constructor(at: Attachment, program: string, enrolled: Enrolled) {
    this.at = at;
    this.program = program;
    this.enrolled = enrolled;
  }

  static async enrol(internet: Internet, overlay: Overlay, program: string): Promise<Correspondents> {
    const at = await internet.attach('crowd', 'c');
    await internet.routeHere(at, UNDERLAY_PREFIX);
    const { host } = at;
    const file = (name: string): string => join(host.dir, name);
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file('tls.key')];
    await host.exec(['openssl', 'req', '-new', ...key, '-subj', '/CN=correspondents', '-out', file('tls.csr')]);
    const words = ['token', 'create', '--uses', String(CORRESPONDENTS), '--eid', CORRESPONDENT_PREFIX];
    const token = (await overlay.mapServer.stayput(words)).stdout.trim();
    const { hostname, port } = new URL(overlay.mapServer.url);
    const ca = (await host.exec(['curl', '-sk', `${overlay.mapServer.url}/v1/ca`])).stdout;
    const config: Enrolment = {
      mapServer: { host: hostname, port: Number(port) },
      ca: (JSON.parse(ca) as { ca: string }).ca,
      token,
      tlsKey: readFileSync(file('tls.key'), 'utf8'),
      csr: readFileSync(file('tls.csr'), 'utf8'),
      port: DATAPLANE_PORT,
      correspondents: Array.from({ length: CORRESPONDENTS }, (_, i) => {
        return { eid: `10.77.${128 + (i >> 8)}.${i & 255}`, address: `198.18.${128 + (i >> 8)}.${i & 255}` };
      }),
      out: file('correspondents.json'),
    };
    writeFileSync(file('enrolment.json'), JSON.stringify(config), { mode: 0o600 });
    const started = host.spawn('enrol', [process.execPath, ENROL, file('enrolment.json')]);
    const { code } = await started.exited;
    if (code !== 0) throw new BenchError(`the correspondents could not be enrolled: ${started.output().slice(-500)}`);
    return new Correspondents(at, program, JSON.parse(readFileSync(config.out, 'utf8')) as Enrolled);
  }

  /**
   * All of them in touch with `destination` when it returns.
   *
   * @param owners who has it, and who will
   */
  async start(destination: string, owners: readonly Agent[]): Promise<Talk> {
    const out = join(this.at.host.dir, 'correspondents-seen.json');
    const config = {
      ...this.enrolled,
      epoch: Math.floor(Date.now() / 1000),
      port: DATAPLANE_PORT,
      destination,
      out,
      intervalMs: REQUEST_INTERVAL_MS,
      meetingMs: this.met ? MEETING_MS : FIRST_MEETING_MS,
      owners: await Promise.all(
        owners.map(async (owner) => {
          const { tunnelKey } = JSON.parse((await owner.stayput(['status', '--json'])).stdout) as { tunnelKey: string };
          return { publicKey: tunnelKey, locator: `${owner.at.address4}:${DATAPLANE_PORT}` };
        }),
      ),
    };
    const file = join(this.at.host.dir, 'correspondents-run.json');
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
    const talk = new Talk(this.at.host.spawn('correspondents', [this.program, file]), out);
    await talk.steady(0n, MEETING_LIMIT_MS);
    this.met = true;
    return talk;
  }
}

export class Talk {
  private readonly process: LabProcess;
  private readonly out: string;

  /** `out`: where it writes what was seen. */
  constructor(process: LabProcess, out: string) {
    this.process = process;
    this.out = out;
  }

  /** Until each has an answer to something that it asked after `moment`. */
  async steady(moment: bigint, timeoutMs: number): Promise<void> {
    await waitFor(
      `${CORRESPONDENTS} correspondents to be answered`,
      () => {
        const status = this.process.lastReport<{ heardNs: string }>('status');
        return status !== undefined && BigInt(status.heardNs) > moment;
      },
      { timeoutMs },
    );
  }

  /** Until all of them have a session with whoever has the destination and with whoever will. */
  async prepared(): Promise<void> {
    await waitFor(
      `${CORRESPONDENTS} correspondents to have a session with each owner`,
      () => this.process.lastReport<{ met: number }>('status')?.met === CORRESPONDENTS,
      { timeoutMs: PREPARATION_LIMIT_MS },
    );
  }

  /** Ends it. What each of them has seen. */
  async finish(): Promise<readonly Correspondent[]> {
    this.process.signal('SIGTERM');
    await waitFor('the sums of the correspondents', () => this.process.lastReport('final'), { timeoutMs: END_MS });
    await this.process.stop();
    return (JSON.parse(readFileSync(this.out, 'utf8')) as { correspondents: Correspondent[] }).correspondents;
  }

  async abort(): Promise<void> {
    await this.process.stop('SIGKILL');
  }
}
