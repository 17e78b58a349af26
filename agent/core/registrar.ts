/**
 * What this agent owns or is going to own, what it registers of that, and what it believes of the answers (RFC 9301
 * section 5.6). How Map-Registers are sent and repeated is in `MapRegisters`.
 *
 * Three kinds of EIDs are owned: address EIDs (attached by the operator), names (derived: a name's targets are the
 * address EIDs that carry it), and the agent address (always). An address EID goes through these states:
 *
 * - `base`: attached, but the map server has not granted it (yet);
 * - `target`: prepared for a move, waits for its interface to come up. The map server and the owner know of it;
 * - `live`: ours, at the generation that the map server gave;
 * - `drain`: another agent took it over; late packets are redirected for a while;
 * - `lost`: it is another agent's. Kept only to tell the operator; attaching it again takes it back.
 *
 * Generation 0 in a Map-Register says "I take it over", any other "I still own it at this generation". A stale owner
 * learns from the answer, or from a push, that a newer generation belongs to someone else, and stops. So the registrar
 * never claims with 0 what it was not told to claim. Every claim goes in a message of its own: then the agent address
 * mapping that comes with the answer belongs to the previous owner of that claim.
 */
import {
  hostPrefix,
  type IpAddress,
  type IpPrefix,
  isHostPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import { type Eid, type EidKey, eidKey, type InstanceId, nameEid, parseEidKey, prefixEid } from '../../proto/eid.ts';
import {
  asTarget,
  type Generation,
  isWithdrawal,
  type Locator,
  type Mapping,
  type TunnelKey,
  type XtrId,
} from '../../proto/mapping.ts';
import { type Instant, type Millis, minutes } from '../../proto/time.ts';

export type EidState = 'base' | 'target' | 'live' | 'drain' | 'lost';

/** When an EID is claimed: at once, when its interface is up, or when its workload is seen behind that. */
export type Arrival = 'now' | 'up' | 'seen';

export interface AgentIdentity {
  readonly xtrId: XtrId;
  readonly tunnelKey: TunnelKey;
  readonly agentAddress: IpAddress;
  readonly instance: InstanceId;
}

export interface OwnedEid {
  readonly key: EidKey;
  readonly eid: Eid;
  readonly kind: 'agent' | 'address' | 'name';
  state: EidState;
  generation: Generation;
  /** Of an address EID: where the workload is; null is this host itself. */
  interface: string | null;
  /** Of a target: what it waits for. */
  when: Arrival;
  names: readonly string[];
  since: Instant;
  /** When the map server last confirmed it in this session; null if it has not. */
  confirmedAt: Instant | null;
  /** Why it is not granted, in a line. */
  problem: string | null;
  /** Previous owner while packets may still come from there, and since when it is. */
  redirect: { readonly from: TunnelKey; readonly since: Instant } | null;
  /** In `drain`: the new owner told us, and the map server does not know yet. Until then we answer for the EID there. */
  yielded: boolean;
  /** To be claimed although we believe to own it: attached again, and somebody may have taken it unheard. */
  claiming: boolean;
  /** In `base`: packets for it are not taken before the map server's answer. */
  awaitsGrant: boolean;
}

/** A workload's EID is meant to go; one of the host itself goes only when somebody else is given the same one. */
export function isTakenOver({ kind, state, interface: via }: Pick<OwnedEid, 'kind' | 'state' | 'interface'>): boolean {
  return kind === 'address' && via === null && (state === 'drain' || state === 'lost');
}

/** What is written to disk. */
export interface SavedEid {
  readonly eid: EidKey;
  readonly kind: OwnedEid['kind'];
  readonly state: EidState;
  readonly generation: Generation;
  readonly interface: string | null;
  readonly when: Arrival;
  readonly names: readonly string[];
  readonly problem: string | null;
  readonly yielded: boolean;
  readonly awaitsGrant: boolean;
}

/** What a record of a Map-Notify did to an owned EID. */
export type RecordOutcome =
  | { readonly kind: 'not-ours' }
  | { readonly kind: 'unchanged' }
  /** The map server has us as the owner of what is not attached here: the claim was on its way when it was detached. */
  | { readonly kind: 'unwanted' }
  | { readonly kind: 'accepted'; readonly owned: OwnedEid; readonly took: boolean; readonly entered: boolean }
  | { readonly kind: 'lost'; readonly owned: OwnedEid; readonly to: Mapping }
  | { readonly kind: 'denied'; readonly owned: OwnedEid }
  /** The map server does not have it: register again, a little later. */
  | { readonly kind: 'forgotten'; readonly owned: OwnedEid };

export class Registrar {
  private readonly identity: AgentIdentity;
  private readonly owned = new Map<EidKey, OwnedEid>();
  private changes = 0;

  constructor(identity: AgentIdentity, saved: readonly SavedEid[], now: Instant) {
    this.identity = identity;
    for (const { eid: key, ...rest } of saved) {
      // What the map server knows of needs nobody to redirect for it.
      const state = rest.state === 'drain' && !rest.yielded ? 'lost' : rest.state;
      this.owned.set(key, { key, eid: parseEidKey(key), ...FRESH, ...rest, state, since: now });
    }
    const agent = prefixEid(identity.instance, hostPrefix(identity.agentAddress));
    if (!this.owned.has(eidKey(agent))) this.add(agent, 'agent', 'base', now);
  }

  /** Another one after each change of what is owned, or of a state. */
  get revision(): number {
    return this.changes;
  }

  find(eid: Eid): OwnedEid | undefined {
    return this.owned.get(eidKey(eid));
  }

  addresses(): readonly OwnedEid[] {
    return [...this.owned.values()].filter(({ kind }) => kind === 'address');
  }

  /** Of each kind and in each state, also those that are lost. */
  values(): IterableIterator<OwnedEid> {
    return this.owned.values();
  }

  /** True when packets for this EID are taken by this host. */
  isHere(owned: OwnedEid): boolean {
    return owned.state === 'live' || (owned.state === 'base' && owned.problem === null && !owned.awaitsGrant);
  }

  /** The most specific EID of ours that contains this address. */
  covering(address: IpAddress): OwnedEid | undefined {
    const exact = this.owned.get(eidKey(prefixEid(this.identity.instance, hostPrefix(address))));
    if (exact !== undefined && this.isHere(exact)) return exact;
    const length = ({ eid }: OwnedEid): number => (eid.kind === 'prefix' ? prefixLength(eid.prefix) : 0);
    return this.addresses()
      .filter((owned) => this.isHere(owned) && owned.eid.kind === 'prefix' && prefixContains(owned.eid.prefix, address))
      .sort((a, b) => length(b) - length(a))[0];
  }

  /** False if with this EID and these names (null: those that it has) there would be too many. */
  hasRoomFor(prefix: IpPrefix, names: readonly string[] | null): boolean {
    const key = eidKey(prefixEid(this.identity.instance, prefix));
    const others = this.addresses().filter((owned) => owned.key !== key);
    const carried = new Set(names ?? this.owned.get(key)?.names);
    for (const owned of others) for (const name of owned.names) carried.add(name);
    const agentAddress = 1;
    return others.length < MAX_ADDRESSES && others.length + 1 + carried.size + agentAddress <= MAX_OWNED;
  }

  /** Returns the names that it has no more, and that are to be given up. */
  attach(
    prefix: IpPrefix,
    names: readonly string[] | null,
    via: string | null,
    when: Arrival,
    up: boolean,
    now: Instant,
  ): { readonly owned: OwnedEid; readonly withdrawals: readonly Mapping[] } {
    const eid = prefixEid(this.identity.instance, prefix);
    const owned = this.owned.get(eidKey(eid)) ?? this.add(eid, 'address', 'lost', now);
    const before = owned.names;
    owned.names = names ?? owned.names;
    owned.when = when;
    owned.interface = via;
    owned.yielded = false;
    owned.problem = null;
    if (owned.state === 'live') {
      owned.claiming = true;
    } else {
      owned.generation = 0 as Generation;
      this.enter(owned, via === null || up ? 'base' : 'target', now);
    }
    const withdrawals = this.withdrawalsOf(this.updateNames(before, now));
    this.claimNames(owned, now);
    if (owned.state === 'target') this.unclaimNames(owned);
    return { owned, withdrawals };
  }

  /** The interface of a target came up: from now on it is claimed. */
  claim(owned: OwnedEid, now: Instant): void {
    owned.problem = null;
    this.enter(owned, 'base', now);
    this.claimNames(owned, now);
  }

  /** Returns the mappings that give it up; empty if it was not registered. */
  detach(
    prefix: IpPrefix,
    now: Instant,
  ): { readonly owned: OwnedEid; readonly withdrawals: readonly Mapping[] } | null {
    const key = eidKey(prefixEid(this.identity.instance, prefix));
    const owned = this.owned.get(key);
    if (owned === undefined || owned.kind !== 'address') return null;
    this.owned.delete(key);
    this.changes += 1;
    const withdrawals: Mapping[] = [];
    if (owned.state === 'live') withdrawals.push(this.withdrawal(owned));
    if (owned.state === 'target') withdrawals.push({ ...asTarget(this.mapping(owned, [])), ttl: 0 });
    withdrawals.push(...this.withdrawalsOf(this.updateNames(owned.names, now)));
    return { owned, withdrawals };
  }

  /** Another agent has it from now on. The map server does not know yet. */
  yieldTo(owned: OwnedEid, now: Instant): void {
    owned.yielded = true;
    owned.confirmedAt = null;
    owned.redirect = null;
    owned.claiming = false;
    this.enter(owned, 'drain', now);
  }

  /** The map server has named the new owner. */
  settle(owned: OwnedEid): void {
    owned.yielded = false;
  }

  /** The new owner gave it back. */
  takeBack(owned: OwnedEid, now: Instant): void {
    owned.yielded = false;
    this.enter(owned, 'live', now);
  }

  /** The successor has vanished, and nobody else answers for it. */
  abandon(owned: OwnedEid, now: Instant): void {
    owned.problem = ABANDONED;
    this.forget(owned, now);
  }

  /** Drain ended. */
  forget(owned: OwnedEid, now: Instant): void {
    owned.yielded = false;
    if (owned.state === 'drain') this.enter(owned, 'lost', now);
  }

  waitingFor(name: string): readonly OwnedEid[] {
    return this.addresses().filter(
      (owned) => owned.state === 'target' && owned.interface === name && owned.when !== 'seen',
    );
  }

  /** Those whose workload has to be seen first. */
  waitingForWorkload(): readonly OwnedEid[] {
    return this.addresses().filter(({ state, when }) => state === 'target' && when === 'seen');
  }

  /** Interfaces that an EID is, or will be, or may again be, behind. */
  interfaces(): ReadonlySet<string> {
    const names = this.addresses()
      .filter(({ state, yielded }) => state === 'base' || state === 'target' || state === 'live' || yielded)
      .map((owned) => owned.interface);
    return new Set(names.filter((name) => name !== null));
  }

  /** A new session: nothing is confirmed. */
  handleSession(): void {
    for (const owned of this.owned.values()) owned.confirmedAt = null;
  }

  /**
   * Everything to register, in groups that each fit one Map-Register: what is ours first, and in it the agent address,
   * which others need to make use of the claims; then the claims, an address EID with its names each.
   */
  registrations(locators: readonly Locator[]): readonly (readonly Mapping[])[] {
    const groups: Mapping[][] = [];
    const kept: Mapping[] = [];
    for (const owned of this.owned.values()) {
      if (owned.kind === 'name' || !this.isRegistered(owned)) continue;
      if (isClaim(owned) && owned.kind === 'address') groups.push(this.claimGroup(owned, locators));
      else kept.push(this.mapping(owned, locators));
    }
    const claimed = new Set(groups.flat().map(({ eid }) => eidKey(eid)));
    for (const owned of this.owned.values()) {
      if (owned.kind !== 'name' || !this.isRegistered(owned) || claimed.has(owned.key)) continue;
      const mapping = this.mapping(owned, locators);
      if (mapping.targets.length > 0) kept.push(mapping);
    }
    return [...inMessages(kept), ...groups, ...inMessages(this.targetRegistrations(locators))];
  }

  targetRegistration(owned: OwnedEid, locators: readonly Locator[]): Mapping {
    return asTarget(this.mapping(owned, locators));
  }

  private targetRegistrations(locators: readonly Locator[]): readonly Mapping[] {
    return this.addresses()
      .filter(({ state }) => state === 'target')
      .map((owned) => this.targetRegistration(owned, locators));
  }

  /** The claim of one address EID with its names, or its refresh. A name for nothing but what was denied stays where it is. */
  claimGroup(owned: OwnedEid, locators: readonly Locator[]): Mapping[] {
    const names = owned.names
      .map((name) => this.find(nameEid(this.identity.instance, name)))
      .filter((name) => name !== undefined && this.isRegistered(name));
    return [owned, ...names.filter((name) => name !== undefined)]
      .map((each) => this.mapping(each, locators))
      .filter(({ eid, targets }) => eid.kind === 'prefix' || targets.length > 0);
  }

  /** Applies one record of a Map-Notify. `solicited`: it answers our own Map-Register. */
  handleRecord(mapping: Mapping, solicited: boolean, now: Instant): RecordOutcome {
    const owned = this.owned.get(eidKey(mapping.eid));
    const said = mapping.owner === this.identity.xtrId && !isWithdrawal(mapping);
    if (owned === undefined) return { kind: said ? 'unwanted' : 'not-ours' };
    if (owned.state === 'target' && solicited && isDenial(mapping)) {
      owned.problem = NOT_GRANTED;
      return { kind: 'denied', owned };
    }
    if (owned.yielded) {
      // Our claim was on its way when we yielded: the successor has to take it from there.
      if (said && solicited && mapping.generation > owned.generation) owned.generation = mapping.generation;
      return { kind: 'not-ours' };
    }
    if (!REGISTERED.has(owned.state)) {
      // A claim that was answered after the news of the owner whom it was made against, or after it became a target, or
      // that a process before this one made and did not live to write down.
      const regained = said && mapping.generation > owned.generation;
      return regained ? this.handleRegained(owned, mapping, solicited, now) : { kind: 'not-ours' };
    }
    // One that was denied is only asked for again; until then its owner is followed as by anybody else.
    if (!solicited && !this.isHere(owned)) return { kind: 'not-ours' };
    if (solicited && isDenial(mapping)) {
      owned.problem = NOT_GRANTED;
      owned.confirmedAt = null;
      owned.generation = 0 as Generation;
      this.enter(owned, 'base', now);
      return { kind: 'denied', owned };
    }
    if (said) return this.handleConfirmed(owned, mapping, now);
    if (mapping.owner === undefined || mapping.owner === this.identity.xtrId || isWithdrawal(mapping)) {
      // Answers to what was sent before the claim, when it was a target or had not been detached yet.
      if (isClaim(owned)) return { kind: 'unchanged' };
      if (mapping.generation < owned.generation && !solicited) return { kind: 'unchanged' };
      if (solicited) owned.generation = 0 as Generation;
      owned.confirmedAt = null;
      return { kind: 'forgotten', owned };
    }
    // A claim is answered by a grant or a denial. Until then pushes, and answers to what was sent before it, still tell of
    // the owner before.
    if (isClaim(owned) || mapping.generation <= owned.generation) return { kind: 'unchanged' };
    owned.confirmedAt = null;
    owned.redirect = null;
    owned.claiming = false;
    this.enter(owned, owned.kind === 'address' ? 'drain' : 'lost', now);
    return { kind: 'lost', owned, to: mapping };
  }

  save(): readonly SavedEid[] {
    return [...this.owned.values()].map((owned) => ({
      eid: owned.key,
      kind: owned.kind,
      state: owned.state,
      generation: owned.generation,
      interface: owned.interface,
      when: owned.when,
      names: owned.names,
      problem: owned.problem,
      yielded: owned.yielded,
      awaitsGrant: owned.awaitsGrant,
    }));
  }

  private handleRegained(owned: OwnedEid, mapping: Mapping, solicited: boolean, now: Instant): RecordOutcome {
    const claimed = solicited && owned.state !== 'target';
    const outcome = this.handleConfirmed(owned, mapping, now);
    if (!claimed) {
      // Its names waited, and the map server may only have named the owner, without taking this for a registration.
      owned.confirmedAt = null;
      this.claimNames(owned, now);
    }
    return outcome;
  }

  private handleConfirmed(owned: OwnedEid, mapping: Mapping, now: Instant): RecordOutcome {
    if (mapping.generation < owned.generation) return { kind: 'unchanged' };
    const took = mapping.generation !== owned.generation;
    const entered = owned.state !== 'live';
    const news = took || entered || owned.confirmedAt === null;
    owned.generation = mapping.generation;
    owned.confirmedAt = now;
    owned.problem = null;
    owned.claiming = false;
    owned.awaitsGrant = false;
    if (entered) this.enter(owned, 'live', now);
    return news ? { kind: 'accepted', owned, took, entered } : { kind: 'unchanged' };
  }

  private isRegistered(owned: OwnedEid): boolean {
    return REGISTERED.has(owned.state) || (owned.yielded && owned.generation !== CLAIM);
  }

  /** As it is registered. */
  mapping(owned: OwnedEid, locators: readonly Locator[]): Mapping {
    const name = owned.eid.kind === 'name' ? owned.eid.name : null;
    return {
      eid: owned.eid,
      ttl: REGISTRATION_TTL,
      action: 'no-action',
      generation: isClaim(owned) ? CLAIM : owned.generation,
      owner: this.identity.xtrId,
      tunnelKey: this.identity.tunnelKey,
      locators: name === null ? locators : [],
      names: owned.names,
      targets: name === null ? [] : this.targets(name),
    };
  }

  private withdrawalsOf(owned: readonly OwnedEid[]): Mapping[] {
    return owned.filter(({ state }) => state === 'live').map((each) => this.withdrawal(each));
  }

  withdrawal(owned: OwnedEid): Mapping {
    return { ...this.mapping(owned, []), generation: owned.generation, ttl: 0 };
  }

  /**
   * An EID that another agent took over still is what the name means, until the name is taken over too; also while it is
   * to come back here.
   */
  private targets(name: string): readonly IpAddress[] {
    const carriers = this.addresses().filter(({ problem, names }) => problem === null && names.includes(name));
    const here = carriers.filter(({ state }) => state !== 'target');
    const live = this.find(nameEid(this.identity.instance, name))?.state === 'live';
    return (here.length === 0 && live ? carriers : here).flatMap(({ eid }) =>
      eid.kind === 'prefix' && isHostPrefix(eid.prefix) ? [prefixAddress(eid.prefix)] : [],
    );
  }

  /** Names that no EID here carries any more are removed and returned. */
  private updateNames(candidates: readonly string[], now: Instant): readonly OwnedEid[] {
    const removed: OwnedEid[] = [];
    for (const name of candidates) {
      const owned = this.find(nameEid(this.identity.instance, name));
      if (owned === undefined || this.addresses().some(({ names }) => names.includes(name))) continue;
      this.owned.delete(owned.key);
      owned.since = now;
      removed.push(owned);
    }
    return removed;
  }

  private claimNames(owned: OwnedEid, now: Instant): void {
    if (!this.isRegistered(owned)) return;
    for (const name of owned.names) {
      const eid = nameEid(this.identity.instance, name);
      const known = this.find(eid);
      if (known?.state === 'live') {
        known.claiming ||= owned.claiming;
        continue;
      }
      const claim = known ?? this.add(eid, 'name', 'base', now);
      claim.generation = 0 as Generation;
      claim.problem = null;
      this.enter(claim, 'base', now);
    }
  }

  /** Names that were claimed for it alone wait with it. */
  private unclaimNames(owned: OwnedEid): void {
    for (const name of owned.names) {
      const known = this.find(nameEid(this.identity.instance, name));
      if (known?.state === 'base' && this.targets(name).length === 0) this.owned.delete(known.key);
    }
  }

  private add(eid: Eid, kind: OwnedEid['kind'], state: EidState, now: Instant): OwnedEid {
    const key = eidKey(eid);
    const generation = 0 as Generation;
    const owned: OwnedEid = {
      key,
      eid,
      kind,
      state,
      generation,
      interface: null,
      when: 'up',
      names: [],
      ...FRESH,
      since: now,
    };
    this.owned.set(key, owned);
    return owned;
  }

  private enter(owned: OwnedEid, state: EidState, now: Instant): void {
    if (owned.state === state) return;
    this.changes += 1;
    owned.state = state;
    owned.since = now;
  }
}

function isDenial({ action, locators }: Mapping): boolean {
  return action === 'policy-denied' && locators.length === 0;
}

function isClaim({ generation, claiming }: OwnedEid): boolean {
  return generation === CLAIM || claiming;
}

/** Groups that stay well below the largest message (64 KiB) and record count (255). */
function inMessages(mappings: readonly Mapping[]): readonly (readonly Mapping[])[] {
  const groups: Mapping[][] = [];
  let room = 0;
  for (const mapping of mappings) {
    const { locators, names, targets } = mapping;
    const size = names.reduce((sum, name) => sum + name.length + 20, 128 + locators.length * 100 + targets.length * 32);
    if (room < size) {
      groups.push([]);
      room = MESSAGE_SIZE;
    }
    groups.at(-1)?.push(mapping);
    room -= Math.max(size, MESSAGE_SIZE / MESSAGE_RECORDS);
  }
  return groups;
}

/** Address EIDs, names and the agent address. A name that waits with its EID counts. */
export const MAX_OWNED = 8192;
const MAX_ADDRESSES = 1024;
const REGISTERED: ReadonlySet<EidState> = new Set(['base', 'live']);
const ABANDONED =
  'the agent that took it over has vanished without a word to the map server; attach it where its workload is';
const NOT_GRANTED = 'not granted to this agent by the map server';
const FRESH = {
  confirmedAt: null,
  problem: null,
  redirect: null,
  yielded: false,
  claiming: false,
  awaitsGrant: false,
} as const;
/** "I take it over". */
const CLAIM = 0 as Generation;
const REGISTRATION_TTL: Millis = minutes(10);
const MESSAGE_SIZE = 32 * 1024;
const MESSAGE_RECORDS = 64;
