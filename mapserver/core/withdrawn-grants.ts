/**
 * Which agents were granted EIDs that they are not granted any more.
 *
 * Owners believe a target until they hear that it is none. Who has no session when a grant is taken away, or loses it
 * with this server before it was told, hears of it when it registers the EID in its next session. So the prefixes that
 * were taken away are kept with the agent, until it is granted them again.
 */
import type { IpPrefix } from '../../proto/address.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import type { AgentRecord } from './records.ts';

export class WithdrawnGrants {
  private readonly agents = new PrefixTrie<Set<XtrId>>();

  follow(before: AgentRecord | undefined, after: AgentRecord | undefined): void {
    const [was, is] = [prefixesOf(before), prefixesOf(after)];
    for (const prefix of was) if (before !== undefined && !is.includes(prefix)) this.remove(prefix, before.xtrId);
    for (const prefix of is) {
      if (after === undefined || was.includes(prefix)) continue;
      const agents = this.agents.get(prefix) ?? new Set();
      this.agents.set(prefix, agents.add(after.xtrId));
    }
  }

  /** Those to whom it was granted once, the latest of many; of some another grant may cover it. */
  of(prefix: IpPrefix): readonly XtrId[] {
    return this.agents.covering(prefix).flatMap(({ value }) => [...value].slice(-MAX_OF_PREFIX));
  }

  private remove(prefix: IpPrefix, xtrId: XtrId): void {
    const agents = this.agents.get(prefix);
    agents?.delete(xtrId);
    if (agents?.size === 0) this.agents.delete(prefix);
  }
}

/** Of a revoked agent everybody is told anyway. */
function prefixesOf(agent: AgentRecord | undefined): readonly IpPrefix[] {
  return agent === undefined || agent.revokedAt !== undefined ? [] : (agent.withdrawn ?? []);
}

/** Who registers can have this many looked at for each EID and session. */
const MAX_OF_PREFIX = 256;
