/**
 * The state that the data plane should have: peers, mappings, local EIDs, watched interfaces.
 *
 * Every change is noted here first and becomes a command while the data plane is attached. When it attaches, the whole
 * state is sent between `sync-begin` and `sync-end`, so a restarted data plane gets everything and a running one loses
 * nothing that is in use. Peers are referenced by the mappings that use them, and kept for a while after a redirect.
 * Sites without a tunnel key are spoken to plainly if the operator says so and the data plane knows how; else not at all.
 */
import type { IpPrefix } from '../../proto/address.ts';
import type { DataplaneCommand, PlainRules } from '../../proto/dataplane/messages.ts';
import type { Generation, Locator, TunnelKey } from '../../proto/mapping.ts';
import type { AgentPolicy } from '../../proto/policy.ts';
import type { Instant } from '../../proto/time.ts';
import { seconds } from '../../proto/time.ts';

type Of<T extends DataplaneCommand['type']> = Extract<DataplaneCommand, { readonly type: T }>;
type MappingCommand = Of<'mapping-set'>;
type LocalCommand = Of<'local-eid-set'>;

/** Which RLOCs of sites are reachable. */
export interface PlainReachability {
  /** A mapping has these locators from now on; none when it has ended. */
  follow(prefix: IpPrefix, locators: readonly Locator[]): void;
  /** The same, those that are not to be sent to now with NEVER_USE: packets from them are still taken. */
  prioritised(locators: readonly Locator[]): readonly Locator[];
}

interface Workload {
  readonly prefix: IpPrefix;
  readonly interface: string;
}

interface Peer {
  locators: readonly Locator[];
  readonly usedBy: Set<IpPrefix>;
  pinnedUntil: Instant;
}

export class DataplaneTable {
  private readonly emit: (command: DataplaneCommand) => void;
  private readonly peers = new Map<TunnelKey, Peer>();
  private readonly mappings = new Map<IpPrefix, MappingCommand>();
  private readonly locals = new Map<IpPrefix, LocalCommand>();
  private readonly redirects = new Map<
    IpPrefix,
    { readonly command: Of<'local-eid-remove'>; readonly until: Instant }
  >();
  private readonly watches = new Set<string>();
  private workloads: ReadonlyMap<string, Workload> = new Map();
  private policy: AgentPolicy | null = null;
  private readonly rules: PlainRules | null;
  private readonly reachability: PlainReachability | null;
  private enforces = false;
  private knowsPlain = false;
  private attached = false;

  /** `rules`: with whom plain packets are exchanged; null for nobody. `reachability`: null if nobody finds it out. */
  constructor(
    emit: (command: DataplaneCommand) => void,
    rules: PlainRules | null = null,
    reachability: PlainReachability | null = null,
  ) {
    this.emit = emit;
    this.rules = rules;
    this.reachability = reachability;
  }

  get isAttached(): boolean {
    return this.attached;
  }

  get peerCount(): number {
    return this.peers.size;
  }

  peerKeys(): readonly TunnelKey[] {
    return [...this.peers.keys()];
  }

  peerLocators(key: TunnelKey): readonly Locator[] | undefined {
    return this.peers.get(key)?.locators;
  }

  /** `enforces`: it knows policies; `knowsPlain`: it knows plain sites. */
  attach({ enforces, knowsPlain }: { enforces: boolean; knowsPlain: boolean }, now: Instant): void {
    this.attached = true;
    this.enforces = enforces;
    this.knowsPlain = knowsPlain;
    this.emit({ type: 'sync-begin' });
    // Before anything that could be forwarded.
    if (this.policy !== null) this.sendPolicy(this.policy);
    if (this.rules !== null && knowsPlain) this.emit({ type: 'plain-set', ...this.rules });
    for (const [publicKey, { locators }] of this.peers) this.emit({ type: 'peer-set', publicKey, locators });
    for (const mapping of this.mappings.values()) this.sendMapping(mapping);
    for (const local of this.locals.values()) this.emit(local);
    for (const { command, until } of this.redirects.values()) if (until > now) this.emit(command);
    for (const name of this.watches) this.emit({ type: 'interface-watch', name });
    for (const workload of this.workloads.values()) this.emit({ type: 'workload-watch', ...workload });
    this.emit({ type: 'sync-end' });
  }

  detach(): void {
    this.attached = false;
  }

  /** Null: there never was one, so that nothing has to be said. */
  setPolicy(policy: AgentPolicy | null): void {
    this.policy = policy;
    if (policy !== null && this.attached) this.sendPolicy(policy);
  }

  /** Keeps the known locators when the new ones are none: the data plane may have heard the peer by itself. */
  setPeer(publicKey: TunnelKey, locators: readonly Locator[]): void {
    const peer = this.peer(publicKey);
    const next = locators.length > 0 ? locators : peer.known ? peer.value.locators : [];
    if (peer.known && JSON.stringify(next) === JSON.stringify(peer.value.locators)) return;
    peer.value.locators = next;
    this.send({ type: 'peer-set', publicKey, locators: next });
  }

  /** Says it again although nothing changed: the data plane asked. */
  repeatPeer(publicKey: TunnelKey): void {
    const peer = this.peers.get(publicKey);
    if (peer !== undefined) this.send({ type: 'peer-set', publicKey, locators: peer.locators });
  }

  /** Nothing goes to this key and nothing comes from it any more, whatever names it. */
  revokePeer(publicKey: TunnelKey, now: Instant): void {
    for (const [prefix, { command }] of this.redirects) {
      if (command.redirectTo !== publicKey) continue;
      this.redirects.delete(prefix);
      this.send({ ...command, redirectTo: null });
    }
    for (const local of this.locals.values()) {
      if (local.redirectFrom === publicKey) this.setLocal({ ...local, redirectFrom: null });
    }
    for (const mapping of [...this.mappings.values()]) {
      if (mapping.publicKey === publicKey) this.removeMapping(mapping.prefix, now);
    }
    if (this.peers.delete(publicKey)) this.send({ type: 'peer-remove', publicKey });
  }

  /** Keeps a peer that takes part in a move, whatever its mappings do. */
  pinPeer(publicKey: TunnelKey, now: Instant): void {
    const peer = this.peers.get(publicKey);
    if (peer !== undefined) peer.pinnedUntil = now + PIN;
  }

  /** It takes part in no move. Peers that are used stay. */
  unpinPeer(publicKey: TunnelKey, now: Instant): void {
    const peer = this.peers.get(publicKey);
    if (peer === undefined) return;
    peer.pinnedUntil = 0;
    this.dropUnused(publicKey, now);
  }

  forward(prefix: IpPrefix, generation: Generation, publicKey: TunnelKey): void {
    this.setMapping({ type: 'mapping-set', prefix, generation, action: 'forward', publicKey });
  }

  /** To a site that has no tunnel key. */
  forwardPlainly(prefix: IpPrefix, generation: Generation, locators: readonly Locator[]): void {
    if (this.rules === null) this.drop(prefix, generation);
    else this.setMapping({ type: 'mapping-set', prefix, generation, action: 'plain', locators });
  }

  drop(prefix: IpPrefix, generation: Generation): void {
    this.setMapping({ type: 'mapping-set', prefix, generation, action: 'drop' });
  }

  repeatMapping(prefix: IpPrefix): void {
    const mapping = this.mappings.get(prefix);
    if (mapping !== undefined && this.attached) this.sendMapping(mapping);
  }

  removeMapping(prefix: IpPrefix, now: Instant): void {
    const mapping = this.mappings.get(prefix);
    if (mapping === undefined) return;
    this.mappings.delete(prefix);
    if (mapping.action === 'plain') this.reachability?.follow(prefix, []);
    this.send({ type: 'mapping-remove', prefix });
    this.release(mapping.publicKey, prefix, now);
  }

  setLocal(local: Omit<LocalCommand, 'type'>): void {
    const command: LocalCommand = { type: 'local-eid-set', ...local };
    this.redirects.delete(local.prefix);
    if (JSON.stringify(this.locals.get(local.prefix)) === JSON.stringify(command)) return;
    this.locals.set(local.prefix, command);
    this.send(command);
  }

  removeLocal(prefix: IpPrefix, generation: Generation, redirectTo: TunnelKey | null, now: Instant): void {
    if (!this.locals.delete(prefix)) return;
    const command = { type: 'local-eid-remove', prefix, generation, redirectTo } as const;
    if (redirectTo !== null) this.redirects.set(prefix, { command, until: now + DRAIN });
    this.send(command);
  }

  /** What comes for an EID that left goes to `to` for another while. */
  redirect(prefix: IpPrefix, generation: Generation, to: TunnelKey, now: Instant): void {
    if (this.locals.has(prefix) || !this.peers.has(to)) return;
    const command = { type: 'local-eid-remove', prefix, generation, redirectTo: to } as const;
    this.redirects.set(prefix, { command, until: now + DRAIN });
    this.send(command);
  }

  get watched(): readonly string[] {
    return [...this.watches];
  }

  watch(name: string): void {
    if (this.watches.has(name)) return;
    this.watches.add(name);
    this.send({ type: 'interface-watch', name });
  }

  unwatch(name: string): void {
    if (this.watches.delete(name)) this.send({ type: 'interface-unwatch', name });
  }

  /** What to look for behind interfaces, and nothing else. */
  watchWorkloads(wanted: readonly Workload[]): void {
    const next = new Map(wanted.map((workload) => [`${workload.prefix} ${workload.interface}`, workload]));
    for (const [key, workload] of this.workloads) {
      if (!next.has(key)) this.send({ type: 'workload-unwatch', ...workload });
    }
    for (const [key, workload] of next)
      if (!this.workloads.has(key)) this.send({ type: 'workload-watch', ...workload });
    this.workloads = next;
  }

  /** Drops peers and redirects that nothing needs any more. */
  sweep(now: Instant): void {
    for (const [prefix, { until }] of this.redirects) if (until <= now) this.redirects.delete(prefix);
    for (const key of this.peers.keys()) this.dropUnused(key, now);
  }

  private sendPolicy(policy: AgentPolicy): void {
    if (this.enforces) this.emit({ type: 'policy-set', ...policy });
  }

  private setMapping(next: MappingCommand): void {
    const previous = this.mappings.get(next.prefix);
    if (previous !== undefined && JSON.stringify(previous) === JSON.stringify(next)) return;
    // The data plane ignores older generations; when the mapping system started over, the old mapping has to go first.
    if (previous !== undefined && previous.generation > next.generation) {
      this.send({ type: 'mapping-remove', prefix: next.prefix });
    }
    this.mappings.set(next.prefix, next);
    if (previous?.action === 'plain' || next.action === 'plain') {
      this.reachability?.follow(next.prefix, next.locators ?? []);
    }
    if (next.publicKey !== undefined) this.peer(next.publicKey).value.usedBy.add(next.prefix);
    if (this.attached) this.sendMapping(next);
    if (previous?.publicKey !== next.publicKey && previous?.publicKey !== undefined) {
      this.peers.get(previous.publicKey)?.usedBy.delete(next.prefix);
    }
  }

  private sendMapping(mapping: MappingCommand): void {
    const { type, prefix, generation, action, locators = [] } = mapping;
    if (action !== 'plain') this.emit(mapping);
    else if (!this.knowsPlain) this.emit({ type, prefix, generation, action: 'drop' });
    else this.emit({ ...mapping, locators: this.reachability?.prioritised(locators) ?? locators });
  }

  private peer(key: TunnelKey): { readonly value: Peer; readonly known: boolean } {
    const found = this.peers.get(key);
    if (found !== undefined) return { value: found, known: true };
    const value: Peer = { locators: [], usedBy: new Set(), pinnedUntil: 0 };
    this.peers.set(key, value);
    return { value, known: false };
  }

  private release(key: TunnelKey | undefined, prefix: IpPrefix, now: Instant): void {
    if (key === undefined) return;
    this.peers.get(key)?.usedBy.delete(prefix);
    this.dropUnused(key, now);
  }

  private dropUnused(publicKey: TunnelKey, now: Instant): void {
    const peer = this.peers.get(publicKey);
    if (peer === undefined || peer.usedBy.size > 0 || peer.pinnedUntil > now) return;
    this.peers.delete(publicKey);
    this.send({ type: 'peer-remove', publicKey });
  }

  private send(command: DataplaneCommand): void {
    if (this.attached) this.emit(command);
  }
}

/** How long the data plane forwards late packets of an EID that moved away. */
export const DRAIN = seconds(30);
const PIN = seconds(90);
