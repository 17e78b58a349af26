/**
 * A text on its way to be the policy, or only to be judged as one.
 *
 * What it means is worked out for all agents, which takes too long to be done in one go where there are thousands. So it
 * is done in steps, with other inputs between them, and what they change is followed. When all steps are done the draft
 * is judged, and put in force if it is wanted, within one input.
 */
import { type IpPrefix, isHostPrefix } from '../../../proto/address.ts';
import type { StoreRecord } from '../records.ts';
import { PolicyCompiler, PolicyTooLargeError } from './compiler.ts';
import type { PolicyDocument } from './document.ts';
import { documentOf, judge, type PolicyCheck, type PolicySurroundings, unjudged } from './inspection.ts';
import { parsePolicy } from './language.ts';
import { type PolicyRecords, Selection } from './selection.ts';

/** A policy with what it means for the records that there are. */
export interface CompiledPolicy {
  readonly document: PolicyDocument;
  readonly selection: Selection;
  readonly compiler: PolicyCompiler;
}

/** In one go. @throws PolicyTextError */
export function compilePolicy(text: string, records: PolicyRecords): CompiledPolicy {
  const document = parsePolicy(text);
  const selection = new Selection(document, records);
  finish(selection.gather());
  const compiler = new PolicyCompiler(document, selection);
  finish(compiler.enterAll());
  return { document, selection, compiler };
}

export class PolicyDraft {
  readonly text: string;
  private readonly surroundings: PolicySurroundings;
  private readonly steps: Iterator<number, void>;
  private selection: Selection | undefined;
  private compiled: CompiledPolicy | undefined;
  /** When it is no policy, or one that cannot be enforced. */
  private refused: PolicyCheck | undefined;
  private done = false;

  constructor(text: string, surroundings: PolicySurroundings) {
    this.text = text;
    this.surroundings = surroundings;
    this.steps = this.prepare();
  }

  get isPrepared(): boolean {
    return this.done;
  }

  /** `budget`: roughly in records. */
  advance(budget: number): void {
    for (let left = budget; left > 0 && !this.done; ) {
      const step = this.steps.next();
      if (step.done === true) this.done = true;
      else left -= step.value;
    }
  }

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    this.selection?.follow(before, after);
  }

  /** Of this moment, once it is prepared. */
  check(): PolicyCheck {
    if (this.refused !== undefined) return this.refused;
    if (this.compiled === undefined) throw new Error('the draft has to be prepared first');
    return judge(this.compiled, this.surroundings.overlay);
  }

  /** To be put in force, after a check that it passed. From now on somebody else has it follow the records. */
  take(): CompiledPolicy | undefined {
    const { compiled } = this;
    this.selection = undefined;
    this.compiled = undefined;
    if (compiled !== undefined) compiled.compiler.apply(compiled.selection.takeChanges());
    return compiled;
  }

  private *prepare(): Generator<number, void> {
    const document = documentOf(this.text);
    if ('problems' in document) {
      this.refused = document;
      return;
    }
    const { records, grants } = this.surroundings;
    this.selection = new Selection(document, records);
    yield* this.selection.gather();
    const compiler = new PolicyCompiler(document, this.selection);
    yield* compiler.enterAll();
    this.compiled = { document, selection: this.selection, compiler };
    try {
      yield* demandEnforceable(compiler, grants);
    } catch (error) {
      if (!(error instanceof PolicyTooLargeError)) throw error;
      this.refused = unjudged(document, [{ line: document.rules[0]?.line ?? 1, message: error.message }]);
    }
  }
}

/** For each agent. @throws PolicyTooLargeError */
function* demandEnforceable(compiler: PolicyCompiler, grants: PolicySurroundings['grants']): Generator<number, void> {
  yield* compiler.writeOut();
  const isHosts = (grant: readonly IpPrefix[]): boolean => grant.every(isHostPrefix);
  let hosts = 0;
  for (const grant of grants()) {
    if (isHosts(grant)) hosts = Math.max(hosts, grant.length);
    yield COST_OF_LOOK;
  }
  const surelyFit = !compiler.mayBeTooLarge(hosts) ? isHosts : (): boolean => false;
  const seen = new Set<string>();
  for (const grant of grants()) {
    yield COST_OF_LOOK;
    if (surelyFit(grant)) continue;
    const key = grant.join(' ');
    if (seen.has(key)) continue;
    seen.add(key);
    compiler.demandEnforceable(grant);
    yield COST_OF_EXTRACT;
  }
}

function finish(steps: Iterator<unknown, void>): void {
  while (steps.next().done !== true);
}

const COST_OF_LOOK = 0.1;
const COST_OF_EXTRACT = 2;
