/**
 * A new policy, or the one before once more: judged in a transaction, like every other change.
 *
 * It becomes the policy only if all that it expects is so, among those who are registered at this moment.
 */
import type { WallClock } from '../../../proto/time.ts';
import { OperationError } from '../operation-error.ts';
import { POLICY_KEY, type PolicyRecord, type StoreRecord } from '../records.ts';
import type { Transaction } from '../transactions.ts';
import type { PolicyDraft } from './draft.ts';
import type { ExpectationResult } from './evaluation.ts';
import type { PolicyCheck } from './inspection.ts';

/** `ifVersion`: the version that the author has seen, 0 for none; null: whatever there is. */
export type PolicyChange =
  | { readonly kind: 'set-policy'; readonly text: string; readonly ifVersion: number | null }
  | { readonly kind: 'roll-back-policy'; readonly ifVersion: number | null };

/** The text that would be the policy; undefined: there is none to go back to. */
export function wantedText(change: PolicyChange, current: StoreRecord | undefined): string | undefined {
  if (change.kind === 'set-policy') return change.text;
  return current?.kind === 'policy' ? current.previous?.text : undefined;
}

/** `draft`: of the wanted text, prepared. @throws OperationError */
export function changePolicy(
  transaction: Transaction,
  change: PolicyChange,
  { draft, wallClock }: { readonly draft: PolicyDraft | undefined; readonly wallClock: WallClock },
): PolicyRecord {
  const stored = transaction.get(POLICY_KEY);
  const current = stored?.kind === 'policy' ? stored : undefined;
  const version = current?.version ?? 0;
  if (change.ifVersion !== null && change.ifVersion !== version) {
    throw changedMeanwhile(`the policy is at version ${version}, not ${change.ifVersion}`);
  }
  const text = wantedText(change, current);
  if (text === undefined) throw new OperationError('STAYPUT_NO_POLICY', 'there is no policy to go back to');
  if (draft?.text !== text) throw changedMeanwhile('the policy to go back to is another one by now');
  demandSound(draft.check());
  const record: PolicyRecord = {
    kind: 'policy',
    version: version + 1,
    text,
    appliedAt: wallClock,
    previous:
      current === undefined ? null : { version: current.version, text: current.text, appliedAt: current.appliedAt },
  };
  transaction.put(record);
  return record;
}

/** `line 9: expected allow, but it is denied by line 4 "deny from any to db"` */
export function describeFailure({ expectation, actual, decision }: ExpectationResult): string {
  const head = `line ${expectation.line}: "${expectation.text}"`;
  if (actual === 'none') return `${head}: they have no addresses of one family`;
  const by = decision?.rule == null ? 'by default' : `by line ${decision.rule.line} "${decision.rule.text}"`;
  const verb = expectation.expected === 'allow' ? 'denied' : 'allowed';
  return `${head}: it is ${actual === 'depends' ? 'in part ' : ''}${verb} ${by}`;
}

function changedMeanwhile(how: string): OperationError {
  const advice = 'somebody else has changed it; look at it with "stayput policy show"';
  return new OperationError('STAYPUT_POLICY_CHANGED', `${how}: ${advice}`);
}

function demandSound({ document, problems, expectations }: PolicyCheck): void {
  const [problem] = problems;
  if (problem !== undefined) {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more; "stayput policy check" shows all)` : '';
    throw new OperationError(
      document === undefined ? 'STAYPUT_POLICY_TEXT' : 'STAYPUT_POLICY_TOO_LARGE',
      `line ${problem.line}: ${problem.message}${more}`,
    );
  }
  const failed = expectations.filter(({ passed }) => !passed);
  const [first] = failed;
  if (first === undefined) return;
  const more = failed.length > 1 ? ` (and ${failed.length - 1} more; "stayput policy check" shows all)` : '';
  throw new OperationError('STAYPUT_POLICY_TEST', `${describeFailure(first)}${more}`);
}
