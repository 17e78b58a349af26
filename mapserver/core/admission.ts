/**
 * Which agents may have a session: those that are enrolled and not revoked, and of those that share an identity the
 * newest start (`incarnations.ts`). The newest run is kept durably, so that a restart of this server lets no older
 * start in.
 */
import type { Incarnation } from '../../proto/incarnation.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import { Incarnations } from './incarnations.ts';
import { type AgentRecord, agentKey } from './records.ts';
import type { Replica } from './replica.ts';
import type { Transactions } from './transactions.ts';

/** `fenced`: another start of the same identity is the one that counts. */
export type Verdict = 'yes' | 'unknown' | 'revoked' | 'fenced';

export class Admission {
  private readonly replica: Replica;
  private readonly transactions: Transactions;
  private readonly incarnations = new Incarnations();

  constructor(replica: Replica, transactions: Transactions) {
    this.replica = replica;
    this.transactions = transactions;
  }

  /** `incarnation`: null when the agent does not say. */
  judge(xtrId: XtrId, incarnation: Incarnation | null): Verdict {
    const agent = this.agent(xtrId);
    if (agent === undefined) return 'unknown';
    if (agent.revokedAt !== undefined) return 'revoked';
    const verdict = this.incarnations.judge(xtrId, agent.incarnation, incarnation);
    return verdict === 'older' || verdict === 'copy' ? 'fenced' : 'yes';
  }

  accept(xtrId: XtrId, incarnation: Incarnation, now: Instant): void {
    const { run, process } = incarnation;
    this.incarnations.accepted(xtrId, incarnation);
    this.transactions.add(
      {
        sender: xtrId,
        evaluate: (transaction) => {
          const agent = transaction.get(agentKey(xtrId));
          if (agent?.kind !== 'agent' || (agent.incarnation?.run ?? -1) >= run) return;
          transaction.put({ ...agent, incarnation: { run, process } });
        },
        complete: () => undefined,
        // Still known in memory, and written at the next start of the agent.
        fail: () => undefined,
      },
      now,
    );
  }

  /** The newest run of the agent that was heard of; 0 when none was. */
  newestRun(xtrId: XtrId): number {
    return this.incarnations.newestOf(xtrId, this.agent(xtrId)?.incarnation)?.run ?? 0;
  }

  private agent(xtrId: XtrId): AgentRecord | undefined {
    const record = this.replica.get(agentKey(xtrId));
    return record?.kind === 'agent' ? record : undefined;
  }
}
