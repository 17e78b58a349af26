/** The drafts of policies that are being prepared, one after the other, and those that are prepared and about to be judged. */
import type { Instant } from '../../../proto/time.ts';
import type { StoreRecord } from '../records.ts';
import { type CompiledPolicy, PolicyDraft } from './draft.ts';
import type { PolicySurroundings } from './inspection.ts';

export class PolicyDrafts {
  private readonly surroundings: PolicySurroundings;
  private readonly queue: Ordered[] = [];
  private readonly prepared = new Set<PolicyDraft>();

  constructor(surroundings: PolicySurroundings) {
    this.surroundings = surroundings;
  }

  /** `then`: to be called once it is prepared; who takes the draft gives it back with `drop`. False: too many wait. */
  begin(text: string, then: (draft: PolicyDraft, now: Instant) => void): boolean {
    if (this.queue.length >= MAX_WAITING) return false;
    this.queue.push({ draft: new PolicyDraft(text, this.surroundings), then });
    return true;
  }

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    this.queue[0]?.draft.follow(before, after);
    for (const draft of this.prepared) draft.follow(before, after);
  }

  /** After each input: does some milliseconds of work at most. */
  settle(now: Instant): void {
    const [first] = this.queue;
    if (first === undefined) return;
    first.draft.advance(BUDGET);
    if (!first.draft.isPrepared) return;
    this.queue.shift();
    this.prepared.add(first.draft);
    first.then(first.draft, now);
  }

  pollTimeout(): Instant | undefined {
    return this.queue.length > 0 ? 0 : undefined;
  }

  /** Of a policy that has just come into force, if it was prepared here. */
  take(text: string): CompiledPolicy | undefined {
    for (const draft of this.prepared) {
      const compiled = draft.text === text ? draft.take() : undefined;
      if (compiled !== undefined) return compiled;
    }
    return undefined;
  }

  drop(draft: PolicyDraft): void {
    this.prepared.delete(draft);
  }
}

interface Ordered {
  readonly draft: PolicyDraft;
  readonly then: (draft: PolicyDraft, now: Instant) => void;
}

/** Records, more or less. */
const BUDGET = 200;
const MAX_WAITING = 16;
