/**
 * Whether the map server serves its purpose: `/readyz`. That its store can be written is found out by writing to it,
 * at most every few seconds however often it is asked.
 */
import type { ReadinessCheck } from '../../runtime/readiness.ts';
import type { Store } from '../store/store.ts';

export interface MapServerParts {
  readonly store: Pick<Store, 'compareAndSet'>;
  /** Addresses that agents connect to. */
  readonly listen: () => readonly string[];
  /** Lines of the audit log that could not be written. */
  readonly auditLost: () => number;
  /** When the authority's and the server's certificate end, in milliseconds since 1970. */
  readonly ends: () => { readonly authority: number; readonly server: number };
  readonly clock: () => number;
}

export class MapServerReadiness {
  private readonly parts: MapServerParts;
  private probe: { readonly at: number; readonly outcome: Promise<ReadinessCheck> } | undefined;

  constructor(parts: MapServerParts) {
    this.parts = parts;
  }

  async checks(): Promise<readonly ReadinessCheck[]> {
    const store = await this.store();
    return [store, this.listening(), this.certificates(), this.audit()];
  }

  private store(): Promise<ReadinessCheck> {
    const at = this.parts.clock();
    if (this.probe === undefined || Math.abs(at - this.probe.at) >= PROBE_AGAIN) {
      this.probe = { at, outcome: this.write(at) };
    }
    return this.probe.outcome;
  }

  private async write(at: number): Promise<ReadinessCheck> {
    const started = performance.now();
    try {
      await this.parts.store.compareAndSet([], [{ key: PROBE_KEY, value: String(at) }]);
    } catch (error) {
      return { name: 'store', status: 'failed', detail: (error as Error).message };
    }
    const took = performance.now() - started;
    if (took < SLOW) return { name: 'store', status: 'ok', detail: 'writable' };
    const detail = `writable, but a commit took ${Math.round(took)} ms: what waits for it is slow, see the disk`;
    return { name: 'store', status: 'warning', detail };
  }

  private listening(): ReadinessCheck {
    const addresses = this.parts.listen();
    return addresses.length > 0
      ? { name: 'listen', status: 'ok', detail: addresses.join(', ') }
      : { name: 'listen', status: 'failed', detail: 'agents cannot connect yet' };
  }

  private certificates(): ReadinessCheck {
    const now = this.parts.clock();
    for (const [whose, end] of Object.entries(this.parts.ends())) {
      const until = new Date(end).toISOString();
      if (end <= now) {
        const detail = `that of the ${whose} has ended (${until}): is the clock right? See security.md`;
        return { name: 'certificates', status: 'failed', detail };
      }
      if (end - now < EXPIRY_WARNING[whose as 'authority' | 'server']) {
        return { name: 'certificates', status: 'warning', detail: `that of the ${whose} ends at ${until}` };
      }
    }
    return { name: 'certificates', status: 'ok', detail: 'valid' };
  }

  private audit(): ReadinessCheck {
    const lost = this.parts.auditLost();
    if (lost === 0) return { name: 'audit-log', status: 'ok', detail: 'written' };
    return { name: 'audit-log', status: 'warning', detail: `${lost} lines could not be written: make room` };
  }
}

const PROBE_AGAIN = 5_000;
/** Of no record, so the core takes no notice of it. */
const PROBE_KEY = 'probe/readiness';
const SLOW = 1_000;
const DAY = 86_400_000;
const EXPIRY_WARNING = { authority: 30 * DAY, server: 3 * DAY } as const;
