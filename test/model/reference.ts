/**
 * The reference model: what each host may believe, given what it was told, and what therefore may happen.
 *
 * It knows nothing of how the cores work. Per host and EID it keeps the standing that follows from the operator's words,
 * the messages that reached the agent, and what was on disk when it was restarted:
 *
 * - `none`: not attached; `target`: attached, waits for its interface;
 * - `claiming`: told to take it over, not answered yet; `granted`: the map server gave it a generation;
 * - `lost`: heard of a newer generation of somebody else; `denied`: refused.
 *
 * A host is entitled to an EID while claiming or granted, and after that until its data plane has carried out what the
 * agent then said. A packet that is delivered to a host that is not entitled, or delivered twice, is a violation; so is a
 * generation with two owners, one that does not grow with the owner, or an owner that was not told to take over.
 */
import type { StoreRecord } from '../../mapserver/core/records.ts';
import { hostPrefix, type IpAddress } from '../../proto/address.ts';
import type { DataplaneCommand, DataplaneEvent } from '../../proto/dataplane/messages.ts';
import { DEFAULT_INSTANCE, type EidKey, eidKey, prefixEid } from '../../proto/eid.ts';
import { decodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import { isTarget, isWithdrawal, type Mapping, type TunnelKey } from '../../proto/mapping.ts';
import { type Instant, seconds } from '../../proto/time.ts';
import type { Packet } from '../sim/dataplane.ts';
import type { Host } from '../sim/host.ts';
import type { Observer } from '../sim/world.ts';

export class Violation extends Error {}

export interface Standing {
  readonly is: 'none' | 'target' | 'claiming' | 'granted' | 'lost' | 'denied';
  readonly generation: number;
  readonly names: readonly string[];
  readonly via: string | null;
  /** Told again to take it over while it was granted. */
  readonly again: boolean;
}

interface Knowledge {
  told: Map<IpAddress, Standing>;
  disk: Map<IpAddress, Standing>;
  /** Not entitled any more, but the data plane has not been told. */
  readonly late: Set<IpAddress>;
  /** Of `late`: nothing was said about it since. */
  readonly unsaid: Set<IpAddress>;
  /** Ever attached here. */
  readonly ever: Set<IpAddress>;
  /** Claimed from this host by another agent, and given to it before the map server said so. */
  readonly asked: Set<IpAddress>;
  /** When it last stopped claiming. */
  readonly claimed: Map<IpAddress, Instant>;
}

interface Sent {
  readonly from: Host;
  readonly packet: Packet;
  deliveredTo: Host | null;
}

export class Reference implements Observer {
  /** Packets that did arrive. */
  delivered_ = 0;
  private readonly eids: readonly IpAddress[];
  private readonly now: () => Instant;
  private readonly byKey: ReadonlyMap<EidKey, IpAddress>;
  private readonly hosts = new Map<Host, Knowledge>();
  private readonly owners = new Map<string, string>();
  private readonly durable = new Map<EidKey, { readonly generation: number; readonly owner: string }>();
  private readonly packets = new Map<number, Sent>();

  constructor(eids: readonly IpAddress[], now: () => Instant) {
    this.eids = eids;
    this.now = now;
    this.byKey = new Map(eids.map((eid) => [eidKey(prefixEid(DEFAULT_INSTANCE, hostPrefix(eid))), eid]));
  }

  standing(host: Host, eid: IpAddress): Standing {
    return this.of(host).told.get(eid) ?? NONE;
  }

  /** Where a packet was delivered. */
  destinationOf(packet: Packet): Host | null {
    return this.packets.get(packet.id)?.deliveredTo ?? null;
  }

  attached(host: Host, eid: IpAddress, names: readonly string[] | null, via: string | null): void {
    const known = this.standing(host, eid);
    const granted = known.is === 'granted';
    this.of(host).ever.add(eid);
    this.set(host, eid, {
      is: granted ? 'granted' : 'claiming',
      generation: granted ? known.generation : 0,
      names: names ?? known.names,
      via,
      again: granted,
    });
  }

  detached(host: Host, eid: IpAddress): void {
    this.set(host, eid, NONE);
  }

  told(host: Host, message: LispMessage): void {
    if (message.type !== 'map-notify' && message.type !== 'map-reply') return;
    for (const mapping of mappingsOf(message)) {
      if (isTarget(mapping)) continue;
      this.checkTold(mapping);
      const eid = this.byKey.get(eidKey(mapping.eid));
      if (eid !== undefined) this.learn(host, eid, mapping);
    }
  }

  event(host: Host, event: DataplaneEvent): void {
    if (event.type === 'peer-message') this.hear(host, event);
    if (event.type !== 'interface' || !event.up) return;
    for (const eid of this.eids) {
      const standing = this.standing(host, eid);
      if (standing.is === 'target' && standing.via === event.name) this.set(host, eid, { ...standing, is: 'claiming' });
    }
  }

  handled(host: Host): void {
    this.see(host);
    for (const { key, kind, state, generation } of host.agent?.ownEids() ?? []) {
      if (state === 'live' && kind !== 'agent') this.own(key, generation, host.xtrId);
    }
    const knowledge = this.of(host);
    for (const eid of knowledge.unsaid) {
      knowledge.unsaid.delete(eid);
      // Behind all that the agent said of it.
      host.afterCommands(() => {
        if (!this.isEntitled(host, eid)) knowledge.late.delete(eid);
      });
    }
  }

  applied(host: Host, command: DataplaneCommand): void {
    if (command.type === 'sync-end') this.of(host).late.clear();
  }

  dataplaneGone(host: Host): void {
    this.of(host).late.clear();
  }

  saved(host: Host): void {
    this.see(host);
    const knowledge = this.of(host);
    knowledge.disk = new Map(knowledge.told);
  }

  restarted(host: Host): void {
    const knowledge = this.of(host);
    const before = knowledge.told;
    for (const [eid, { is, again }] of before) {
      if (is === 'claiming' || again) knowledge.claimed.set(eid, this.now());
    }
    knowledge.told = new Map(knowledge.disk);
    for (const [eid, standing] of knowledge.told) {
      // Why it was refused is not written down: it is asked for once more.
      if (standing.is === 'denied') knowledge.told.set(eid, { ...standing, is: 'claiming', generation: 0 });
      // Nor is that it was told again what it had: whoever said so was not answered.
      if (standing.again) knowledge.told.set(eid, { ...standing, again: false });
    }
    for (const eid of before.keys()) if (!this.isEntitled(host, eid)) knowledge.late.add(eid);
  }

  committed(record: StoreRecord): void {
    if (record.kind !== 'eid') return;
    const { eid, generation, owner, state } = record;
    const known = this.durable.get(eid);
    if (known !== undefined) {
      const changed = known.owner !== owner;
      if (generation < known.generation || (changed && generation <= known.generation)) {
        throw new Violation(`the store has ${eid} at generation ${generation} after ${known.generation}`);
      }
    }
    if (known?.owner !== owner) this.checkTaken(eid, generation, owner);
    this.durable.set(eid, { generation, owner });
    if (state === 'live') this.own(eid, generation, owner);
  }

  sent(from: Host, packet: Packet): void {
    this.packets.set(packet.id, { from, packet, deliveredTo: null });
  }

  delivered(host: Host, packet: Packet): void {
    const sent = this.packets.get(packet.id);
    const what = `packet ${packet.id} from ${packet.source} to ${packet.destination}`;
    if (sent === undefined) throw new Violation(`${what} was never sent`);
    if (sent.deliveredTo !== null) {
      throw new Violation(`${what} was delivered twice: to ${sent.deliveredTo.name} and to ${host.name}`);
    }
    sent.deliveredTo = host;
    this.delivered_++;
    this.checkDestination(host, packet, what);
    this.checkSource(host, sent, what);
  }

  /** How many packets are remembered, sent and delivered. */
  get traffic(): { readonly sent: number; readonly delivered: number } {
    return { sent: this.packets.size, delivered: this.delivered_ };
  }

  private checkDestination(host: Host, { destination }: Packet, what: string): void {
    if (destination === host.agentAddress) return;
    if (this.isEntitled(host, destination) || this.of(host).late.has(destination)) return;
    const { is, generation } = this.standing(host, destination);
    throw new Violation(`${what} was delivered to ${host.name}, which may not have it (${is}@${generation})`);
  }

  private checkSource(host: Host, { from, packet }: Sent, what: string): void {
    const { source, destination } = packet;
    if (from === host || source === from.agentAddress || this.of(from).ever.has(source)) return;
    // An owner before passes on what others sent to it, and is trusted with it for a while.
    if (this.of(from).ever.has(destination)) return;
    throw new Violation(`${what} was delivered to ${host.name} although ${from.name} never had ${source}`);
  }

  private isEntitled(host: Host, eid: IpAddress): boolean {
    const { is } = this.standing(host, eid);
    return is === 'claiming' || is === 'granted';
  }

  private learn(host: Host, eid: IpAddress, mapping: Mapping): void {
    const standing = this.standing(host, eid);
    const { is, again } = standing;
    const { generation, owner } = mapping;
    if (is === 'none' || (is === 'target' && owner !== host.xtrId)) return;
    if (mapping.action === 'policy-denied') {
      if (is === 'claiming' || is === 'granted') this.set(host, eid, { ...standing, is: 'denied', generation: 0 });
    } else if (owner === undefined || isWithdrawal(mapping)) {
      // Nobody has it: it is registered again, as new.
      if (is === 'granted') this.set(host, eid, { ...standing, is: 'claiming', generation: 0 });
    } else if (owner === host.xtrId) {
      if (generation >= standing.generation && is !== 'denied') {
        this.set(host, eid, { ...standing, is: 'granted', generation, again: false });
      }
    } else if (is === 'granted' && generation > standing.generation && !again) {
      this.set(host, eid, { ...standing, is: 'lost', generation });
    }
  }

  /** The claim of an agent that was told to take an EID over. */
  private hear(host: Host, { publicKey, payload }: { readonly publicKey: TunnelKey; readonly payload: string }): void {
    const from = [...this.hosts.keys()].find(({ key }) => key === publicKey);
    const message = decodeLispMessage(Buffer.from(payload, 'base64'));
    if (from === undefined || message.type !== 'map-notify') return;
    const [subject] = mappingsOf(message);
    const eid = subject === undefined ? undefined : this.byKey.get(eidKey(subject.eid));
    if (eid !== undefined && subject?.tunnelKey === publicKey && this.of(from).ever.has(eid)) {
      this.of(host).asked.add(eid);
    }
  }

  /**
   * What is the agent's to decide: whether an interface is up (that a target claims when it comes up is checked), and
   * whether it yields to another agent's claim.
   */
  private see(host: Host): void {
    for (const { kind, eid, state } of host.agent?.ownEids() ?? []) {
      const address = kind === 'address' ? this.byKey.get(eidKey(eid)) : undefined;
      if (address === undefined) continue;
      const standing = this.standing(host, address);
      if (state === 'target' && standing.is === 'claiming' && standing.via !== null) {
        this.set(host, address, { ...standing, is: 'target' });
      }
      if (!this.of(host).asked.has(address)) continue;
      if (state === 'drain' && this.isEntitled(host, address)) this.set(host, address, { ...standing, is: 'lost' });
      if (state === 'live' && standing.is === 'lost') this.set(host, address, { ...standing, is: 'granted' });
      if (state === 'base' && standing.is === 'lost') this.set(host, address, { ...standing, is: 'claiming' });
    }
  }

  private checkTold({ eid, generation, owner }: Mapping): void {
    const key = eidKey(eid);
    if (owner === undefined || generation === 0) return;
    this.own(key, generation, owner);
    const newest = this.durable.get(key)?.generation ?? 0;
    if (generation > newest) throw new Violation(`${key}@${generation} was told before it was durable`);
  }

  /** Only who was told to take it over becomes the owner. */
  private checkTaken(key: EidKey, generation: number, owner: string): void {
    const eid = this.byKey.get(key);
    const host = [...this.hosts.keys()].find(({ xtrId }) => xtrId === owner);
    if (eid === undefined || host === undefined) return;
    const { is, again } = this.standing(host, eid);
    if (is === 'claiming' || again) return;
    const since = this.now() - (this.of(host).claimed.get(eid) ?? Number.NEGATIVE_INFINITY);
    if (since > ON_THE_WAY) throw new Violation(`${host.name} (${is}) got ${eid}@${generation} without being told to`);
  }

  private own(key: EidKey, generation: number, owner: string): void {
    const id = `${key}@${generation}`;
    const known = this.owners.get(id) ?? owner;
    if (known !== owner) throw new Violation(`${id} has two owners: ${known} and ${owner}`);
    this.owners.set(id, owner);
  }

  private set(host: Host, eid: IpAddress, standing: Standing): void {
    const knowledge = this.of(host);
    const before = this.isEntitled(host, eid);
    const { is, again } = this.standing(host, eid);
    if (is === 'claiming' || again) knowledge.claimed.set(eid, this.now());
    knowledge.told.set(eid, standing);
    if (!before) return;
    if (this.isEntitled(host, eid)) return;
    knowledge.late.add(eid);
    knowledge.unsaid.add(eid);
  }

  private of(host: Host): Knowledge {
    const known = this.hosts.get(host);
    if (known !== undefined) return known;
    const knowledge: Knowledge = {
      told: new Map(),
      disk: new Map(),
      late: new Set(),
      unsaid: new Set(),
      ever: new Set(),
      asked: new Set(),
      claimed: new Map(),
    };
    this.hosts.set(host, knowledge);
    return knowledge;
  }
}

/** How long a claim may be on its way: streams end when they stand still for longer. */
const ON_THE_WAY = seconds(5);
const NONE: Standing = { is: 'none', generation: 0, names: [], via: null, again: false };
