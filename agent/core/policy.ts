/**
 * The policy that this agent has enforced: what the map server said last, for the EIDs of this host.
 *
 * It comes in parts and holds when the last one is there. Within a session it never goes back; a new session's word
 * holds whatever its version is, since the map server may have been restored. What cannot be understood changes nothing:
 * the former policy stays, on disk as well, so it also holds across restarts and while the map server is away. So it
 * does when the map server has a policy that is too large to be enforced.
 */
import { DecodeError } from '../../proto/errors.ts';
import {
  type AgentPolicy,
  decodePolicyFrame,
  NO_POLICY,
  PolicyAssembly,
  STAND_IN_VERSION,
  VERSION_STEP,
} from '../../proto/policy.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import type { Outbox } from './outbox.ts';

export class EnforcedPolicy {
  private readonly table: DataplaneTable;
  private readonly outbox: Outbox;
  private policy: AgentPolicy | null;
  private assembly = new PolicyAssembly();
  /** The newest version of this session. */
  private newest = 0;
  private refused: string | null = null;

  constructor(saved: AgentPolicy | null, table: DataplaneTable, outbox: Outbox) {
    this.policy = saved;
    this.table = table;
    this.outbox = outbox;
    table.setPolicy(saved);
  }

  get current(): AgentPolicy {
    return this.policy ?? NO_POLICY;
  }

  /** What must outlive the process. */
  save(): AgentPolicy | null {
    return this.policy;
  }

  /** Why the map server's last word is not enforced, in a line; null when it is. */
  get problem(): string | null {
    return this.refused;
  }

  handleSession(): void {
    this.assembly = new PolicyAssembly();
    this.newest = 0;
  }

  /** `value`: one frame, parsed from JSON. */
  handleFrame(value: unknown): void {
    try {
      const policy = this.assembly.add(decodePolicyFrame(value));
      if (policy !== undefined) this.take(policy);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.refuse(error.message);
    }
  }

  private take(policy: AgentPolicy): void {
    if (policy.version < this.newest) {
      this.refuse(`version ${policy.version} is older than ${this.newest} of the same session`);
      return;
    }
    this.newest = policy.version;
    if (policy.version === STAND_IN_VERSION && this.current.version >= VERSION_STEP) {
      this.refuse('the policy of the map server is too large; the one before is kept');
      return;
    }
    this.refused = null;
    if (JSON.stringify(policy) === JSON.stringify(this.policy)) return;
    this.policy = policy;
    this.outbox.persist('policy');
    this.table.setPolicy(policy);
    const { version, rules } = policy;
    this.outbox.note({ type: 'policy', version, default: policy.default, rules: rules.length });
  }

  private refuse(reason: string): void {
    // A frame that begins anew is wanted now; the others of a broken policy are not worth another word.
    if (this.refused !== reason) this.outbox.note({ type: 'policy-refused', reason });
    this.refused = reason;
  }
}
