/** What one agent may send, also over several connections one after the other. */
import type { XtrId } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import type { MapServerSettings } from '../config.ts';
import { TokenBucket } from './token-bucket.ts';

export interface AgentBudget {
  readonly messages: TokenBucket;
  readonly registrations: TokenBucket;
  readonly octets: TokenBucket;
  readonly controlFrames: TokenBucket;
}

export class AgentBudgets {
  private readonly limits: MapServerSettings['limits'];
  /** The least recently connected first. */
  private readonly budgets = new Map<XtrId, AgentBudget>();

  constructor(limits: MapServerSettings['limits']) {
    this.limits = limits;
  }

  of(xtrId: XtrId, now: Instant): AgentBudget {
    const { limits, budgets } = this;
    const budget = budgets.get(xtrId) ?? {
      messages: new TokenBucket(limits.messagesPerSecond, now),
      registrations: new TokenBucket(limits.registrationsPerSecond, now),
      octets: new TokenBucket(limits.octetsPerSecond, now),
      controlFrames: new TokenBucket(limits.controlFramesPerSecond, now),
    };
    budgets.delete(xtrId);
    budgets.set(xtrId, budget);
    for (const oldest of budgets.keys()) {
      if (budgets.size <= limits.agents) break;
      budgets.delete(oldest);
    }
    return budget;
  }
}
