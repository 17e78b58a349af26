/**
 * What operators change, from the operation to its outcome: evaluated in a transaction of its own, and told when it is
 * durable, with a line of what was done and to what. What may not be is told like that as well, with the error.
 */
import type { Instant, WallClock } from '../../proto/time.ts';
import type { Action, OperationId, OperationResult, ServerEvent } from './actions.ts';
import type { Overlay } from './grants.ts';
import type { HeldAddresses } from './held-addresses.ts';
import type { MappingDatabase } from './mapping-database.ts';
import type { Names } from './names.ts';
import { OperationError } from './operation-error.ts';
import { evaluateOperation, limitOf, type Operation, type OperationContext, subjectOf } from './operations.ts';
import { wantedText } from './policy/change.ts';
import type { PolicyDraft } from './policy/draft.ts';
import type { PolicyDrafts } from './policy/drafts.ts';
import { type AgentRecord, POLICY_KEY } from './records.ts';
import type { Replica } from './replica.ts';
import type { Transaction, Transactions } from './transactions.ts';

export interface AdministrationParts {
  readonly overlay: Overlay;
  readonly limits: OperationContext['limits'];
  readonly wallClock: () => WallClock;
  readonly replica: Replica;
  readonly transactions: Transactions;
  readonly names: Names;
  readonly database: MappingDatabase;
  readonly held: HeldAddresses;
  readonly drafts: PolicyDrafts;
  /** An agent was revoked. */
  readonly dismiss: (agent: AgentRecord) => void;
  readonly act: (action: Action) => void;
  readonly event: (event: ServerEvent) => void;
}

export class Administration {
  private readonly parts: AdministrationParts;
  private lastOperation = 0;

  constructor(parts: AdministrationParts) {
    this.parts = parts;
  }

  /** The outcome follows as an action with the returned id. */
  begin(operation: Operation, now: Instant): OperationId {
    const id = ++this.lastOperation as OperationId;
    const isOfPolicy = operation.kind === 'set-policy' || operation.kind === 'roll-back-policy';
    const text = isOfPolicy ? wantedText(operation, this.parts.replica.get(POLICY_KEY)) : undefined;
    if (text === undefined) this.transact(id, operation, now, undefined);
    else if (!this.parts.drafts.begin(text, (draft, then) => this.transact(id, operation, then, draft)))
      this.finish(id, operation, unavailable);
    return id;
  }

  private transact(id: OperationId, operation: Operation, now: Instant, draft: PolicyDraft | undefined): void {
    let result: OperationResult = unavailable;
    const finish = (outcome: OperationResult): void => {
      if (draft !== undefined) this.parts.drafts.drop(draft);
      this.finish(id, operation, outcome);
    };
    this.parts.transactions.add(
      {
        sender: 'operations',
        evaluate: (transaction) => {
          result = this.evaluate(transaction, operation, draft);
        },
        complete: () => {
          if (result.ok && result.record.kind === 'agent' && operation.kind === 'revoke-agent')
            this.parts.dismiss(result.record);
          finish(result);
        },
        fail: () => finish(unavailable),
      },
      now,
    );
  }

  private evaluate(transaction: Transaction, operation: Operation, draft: PolicyDraft | undefined): OperationResult {
    const { overlay, limits, replica, names, database, held } = this.parts;
    try {
      const record = evaluateOperation(transaction, operation, {
        overlay,
        limits,
        wallClock: this.parts.wallClock(),
        counts: {
          tokens: replica.counts.token,
          agents: replica.counts.agent,
          names: replica.counts.name,
          sites: replica.counts.site,
        },
        isRegistered: (name) => names.isRegistered(name),
        pointingAt: (target) => names.pointingAt(target),
        database,
        held,
        draft,
      });
      return { ok: true, record };
    } catch (error) {
      if (error instanceof OperationError) return { ok: false, error };
      throw error;
    }
  }

  private finish(id: OperationId, operation: Operation, outcome: OperationResult): void {
    const { act, event } = this.parts;
    act({ kind: 'outcome', id, result: outcome });
    const subject = outcome.ok ? subjectOf(outcome.record) : undefined;
    event({
      kind: 'operation',
      operation: operation.kind,
      result: outcome.ok ? 'ok' : outcome.error.code,
      ...(subject === undefined ? {} : { subject }),
    });
    if (!outcome.ok && outcome.error.code === 'STAYPUT_TOO_MANY') {
      event({ kind: 'limit', limit: limitOf(operation), source: operation.kind });
    }
  }
}

const unavailable: OperationResult = {
  ok: false,
  error: new OperationError('STAYPUT_STORE', 'the map server cannot store changes now; try again later'),
};
