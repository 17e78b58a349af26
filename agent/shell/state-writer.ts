/**
 * Writes to the state folder what must outlive the process: most at once, EIDs and the map-cache not for each of many
 * changes. What cannot be written is tried again until it can, and the status says so meanwhile.
 */
import type { Log } from '../../runtime/log.ts';
import type { Agent } from '../core/agent.ts';
import type { Persistent } from '../core/output.ts';
import type { Identity, StateFolder } from './identity.ts';

type State = ReturnType<Agent['save']> & { readonly identity: Identity };

export class StateWriter {
  private readonly folder: StateFolder;
  private readonly state: () => State;
  private readonly log: Log;
  private readonly problems = new Map<Persistent, string>();
  private cacheTimer: NodeJS.Timeout | null = null;
  private eidsTimer: NodeJS.Timeout | null = null;
  private retryTimer: NodeJS.Timeout | null = null;
  private eidsChanged = false;
  /** What waits for the EIDs of now to be on disk. */
  private readonly unconfirmed: (() => void)[] = [];
  private closed = false;

  constructor(folder: StateFolder, state: () => State, log: Log) {
    this.folder = folder;
    this.state = state;
    this.log = log;
  }

  /** Why state is not on disk, a line per file. */
  get unwritten(): readonly string[] {
    return [...this.problems.values()];
  }

  handleChanged(what: Persistent): void {
    switch (what) {
      case 'eids':
        this.eidsChanged = true;
        if (this.eidsTimer === null) this.writeEids();
        return;
      case 'dataplane':
      case 'policy':
      case 'overlay':
        this.write(what);
        return;
      case 'map-cache':
        this.cacheTimer ??= setTimeout(() => {
          this.cacheTimer = null;
          this.write(what);
        }, CACHE_WRITE_MS);
        return;
      default:
        what satisfies never;
        return;
    }
  }

  /** Now, or when the EIDs that have changed are on disk. */
  afterEids(act: () => void): void {
    if (this.eidsChanged) this.unconfirmed.push(act);
    else act();
  }

  /** Without waiting for more of them. */
  writeChangedEids(): void {
    if (this.eidsChanged) this.writeEids();
  }

  /** Said once when it fails, and to the operator as long as it does; tried again until it succeeds. */
  write(what: Persistent): boolean {
    const { folder } = this;
    const { cache, dataplane, policy, identity, ...eids } = this.state();
    try {
      if (what === 'eids') folder.writeEids(eids);
      else if (what === 'map-cache') folder.writeCache(cache, Date.now());
      else if (what === 'dataplane') folder.writeDataplane(dataplane);
      else if (what === 'policy') folder.writePolicy(policy);
      else folder.writeIdentity(identity);
      this.problems.delete(what);
      return true;
    } catch (err) {
      if (!this.problems.has(what)) this.log.error({ err }, 'state cannot be written');
      this.problems.set(what, (err as Error).message);
      if (!this.closed) this.retryTimer ??= setTimeout(() => this.retryWrites(), RETRY_WRITE_MS);
      return false;
    }
  }

  /** Nothing more is written by itself. */
  stop(): void {
    for (const timer of [this.cacheTimer, this.eidsTimer, this.retryTimer]) {
      if (timer !== null) clearTimeout(timer);
    }
  }

  /** For the last time. */
  close(): void {
    this.closed = true;
    this.stop();
    this.writeRest();
  }

  /** What may not be on disk yet. */
  writeRest(): void {
    for (const what of new Set<Persistent>(['eids', 'map-cache', ...this.problems.keys()])) this.write(what);
  }

  /** At once, but when many EIDs change one after the other, not for each. */
  private writeEids(): void {
    if (this.eidsTimer !== null) clearTimeout(this.eidsTimer);
    this.eidsChanged = !this.write('eids');
    // If it cannot be written, the status says so.
    for (const act of this.unconfirmed.splice(0)) act();
    const pause = this.eidsChanged ? RETRY_WRITE_MS : EIDS_WRITE_MS;
    this.eidsTimer = setTimeout(() => {
      this.eidsTimer = null;
      if (this.eidsChanged) this.writeEids();
    }, pause);
  }

  private retryWrites(): void {
    this.retryTimer = null;
    for (const what of [...this.problems.keys()]) {
      // Answers wait for EIDs, so these have a timer of their own.
      if (what !== 'eids') this.write(what);
    }
  }
}

const CACHE_WRITE_MS = 1000;
const EIDS_WRITE_MS = 100;
const RETRY_WRITE_MS = 5000;
