/** This start of the agent: its run on disk, its process, its connections, and whether it is fenced. */
import { randomBytes } from 'node:crypto';
import { formatIncarnation } from '../../proto/incarnation.ts';
import type { Log } from '../../runtime/log.ts';
import {
  begin,
  describeFence,
  type Fence,
  type Machine,
  type MachineChangePolicy,
  NEVER_RUN,
} from '../core/incarnation.ts';
import type { StateFolder } from './identity.ts';

export class OwnIncarnation {
  private readonly folder: StateFolder;
  private readonly machine: () => Machine;
  private readonly policy: MachineChangePolicy;
  private readonly log: Log;
  private saved = NEVER_RUN;
  private process = '';
  private connections = 0;
  private current: Fence | null = null;
  private problem: string | null = null;

  constructor(folder: StateFolder, machine: () => Machine, policy: MachineChangePolicy, log: Log) {
    this.folder = folder;
    this.machine = machine;
    this.policy = policy;
    this.log = log;
  }

  get fence(): Fence | null {
    return this.current;
  }

  /** Why the run is not on disk, in a line. */
  get unwritten(): string | null {
    return this.problem;
  }

  /** For one more connection; null when the run is not on disk: it might be used again, and look like a copy's. */
  connection(): string | null {
    if (this.problem !== null) return null;
    return formatIncarnation({ run: this.saved.run, process: this.process, connection: ++this.connections });
  }

  /** A new run, as after a restart: at the start, and when this machine is a restored snapshot. */
  begin(): void {
    const { next, fence } = begin(this.folder.incarnation() ?? NEVER_RUN, this.machine(), this.policy);
    this.saved = next;
    this.process = randomBytes(8).toString('hex');
    this.connections = 0;
    if (fence === null) this.write();
    else this.raise(fence);
  }

  /** The map server knows another agent with this identity as the newer one. */
  refused(newestRun: number): void {
    this.saved = { ...this.saved, fencedBy: newestRun };
    this.raise({ kind: 'copy', run: this.saved.run, newestRun });
    this.write();
  }

  private raise(fence: Fence): void {
    this.current = fence;
    this.log.error({ reason: describeFence(fence) }, 'this agent is fenced');
  }

  private write(): void {
    try {
      this.folder.writeIncarnation(this.saved);
      this.problem = null;
    } catch (err) {
      this.problem = (err as Error).message;
      this.log.error({ err }, 'state cannot be written');
    }
  }
}
