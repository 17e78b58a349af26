/** Records of a map server for tests of policy: agents with grants, who own EIDs and names. */
import { createHash } from 'node:crypto';
import { MappingDatabase } from '../../mapserver/core/mapping-database.ts';
import type { PolicyRecords, Selection } from '../../mapserver/core/policy/selection.ts';
import type { AgentRecord, OwnershipRecord } from '../../mapserver/core/records.ts';
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, type EidKey, eidKey, parseEid } from '../../proto/eid.ts';
import { parseTunnelKey, xtrIdOf } from '../../proto/identity.ts';
import type { Generation, XtrId } from '../../proto/mapping.ts';

export class TestRecords implements PolicyRecords {
  readonly instance = DEFAULT_INSTANCE;
  private readonly agents = new Map<XtrId, AgentRecord>();
  private readonly eids = new Map<EidKey, OwnershipRecord>();
  private readonly database = new MappingDatabase();
  /** Told of each change. */
  selection: Pick<Selection, 'follow'> | undefined;

  agent(xtrId: XtrId): AgentRecord | undefined {
    return this.agents.get(xtrId);
  }

  ownedBy(xtrId: XtrId): Iterable<OwnershipRecord> {
    return this.database.ownedBy(xtrId);
  }

  owners(): Iterable<XtrId> {
    return this.database.owners();
  }

  /** Makes the agent, or changes its grant. */
  grant(name: string, eids: readonly string[], groups: readonly string[] = []): XtrId {
    const tunnelKey = parseTunnelKey(createHash('sha256').update(name).digest('base64'));
    const xtrId = xtrIdOf(tunnelKey);
    const before = this.agents.get(xtrId);
    const after: AgentRecord = {
      kind: 'agent',
      xtrId,
      tunnelKey,
      certificateKey: name,
      tokenId: '',
      software: '',
      enrolledAt: 0,
      eids: eids as readonly IpPrefix[],
      names: ['*'],
      groups,
    };
    this.agents.set(xtrId, after);
    this.selection?.follow(before, after);
    return xtrId;
  }

  /** Has the agent own a name of `targets`, or an EID that carries `names`. */
  own(owner: XtrId, text: string, targets: readonly string[] = [], names: readonly string[] = []): void {
    this.put(text, { owner, state: 'live', targets: targets as readonly IpAddress[], names });
  }

  release(text: string): void {
    const known = this.eids.get(eidKey(parseEid(text)));
    if (known !== undefined) this.put(text, { owner: known.owner, state: 'released', targets: [], names: [] });
  }

  private put(text: string, fields: Pick<OwnershipRecord, 'owner' | 'state' | 'targets' | 'names'>): void {
    const eid = eidKey(parseEid(text));
    const before = this.eids.get(eid);
    const agent = this.agents.get(fields.owner);
    if (agent === undefined) throw new Error('the owner is an agent');
    const after: OwnershipRecord = {
      kind: 'eid',
      eid,
      generation: ((before?.generation ?? 0) + 1) as Generation,
      tunnelKey: agent.tunnelKey,
      ownerSince: 0,
      ttl: 180_000,
      locators: [],
      ...fields,
    };
    this.eids.set(eid, after);
    this.database.update(before, after);
    this.selection?.follow(before, after);
  }
}
