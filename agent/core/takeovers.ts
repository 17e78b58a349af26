/**
 * EIDs that this host took over as the target of a move: what its new side tells the agent that had them.
 *
 * The claim goes to the map server, and at the same time to the owner before, inside the tunnel: that one yields at once,
 * so the move neither waits for the map server nor needs it. Until the map server has confirmed us, the claim is said
 * again to the owner before, which may have been restarted. It answers with those who talk to the EID, and we speak first
 * to each of them: our session with them is up, and they know to ask, when their packets change direction. LISTENS after
 * the map server has confirmed us, the takeover is over.
 */
import { type Eid, type EidKey, eidKey } from '../../proto/eid.ts';
import type { Generation, Mapping, TunnelKey } from '../../proto/mapping.ts';
import { type Instant, seconds } from '../../proto/time.ts';
import type { Locators } from './locators.ts';
import type { PeerChannel } from './peer-channel.ts';
import type { AgentIdentity } from './registrar.ts';
import { agentEid, bare } from './remote-mappings.ts';

interface Takeover {
  readonly eid: Eid;
  /** Who had it, at which generation. */
  from: TunnelKey;
  readonly generation: Generation;
  /** When the map server confirmed us; null if it has not. */
  settledAt: Instant | null;
  repeatAt: Instant;
  /** Correspondents that we spoke to. */
  readonly greeted: Set<TunnelKey>;
  /** Those that have a session with us already, and that the owner before speaks to as well. */
  readonly later: Set<TunnelKey>;
  greetAt: Instant;
}

export class Takeovers {
  private readonly identity: AgentIdentity;
  private readonly locators: Locators;
  private readonly channel: PeerChannel;
  private readonly takeovers = new Map<EidKey, Takeover>();

  constructor(identity: AgentIdentity, locators: Locators, channel: PeerChannel) {
    this.identity = identity;
    this.locators = locators;
    this.channel = channel;
  }

  /** `before`: the mapping of the EID until now. */
  begin({ eid, tunnelKey, owner, generation }: Mapping, now: Instant): void {
    if (tunnelKey === undefined || owner === undefined || owner === this.identity.xtrId) return;
    const takeover = {
      eid,
      from: tunnelKey,
      generation,
      settledAt: null,
      repeatAt: now,
      greeted: new Set<TunnelKey>(),
      later: new Set<TunnelKey>(),
      greetAt: now,
    };
    this.takeovers.set(eidKey(eid), takeover);
    this.claim(takeover, now);
  }

  predecessor(key: EidKey): { readonly key: TunnelKey; readonly generation: Generation } | undefined {
    const takeover = this.takeovers.get(key);
    return takeover === undefined ? undefined : { key: takeover.from, generation: takeover.generation };
  }

  /** The owner before says that it had passed the EID on: the claim is for that one then. */
  handlePassedOn(key: EidKey, to: TunnelKey, now: Instant): void {
    const takeover = this.takeovers.get(key);
    if (takeover === undefined || takeover.settledAt !== null || takeover.from === to) return;
    takeover.from = to;
    this.claim(takeover, now);
  }

  /** Those who talk to the EID are known as peers now. */
  greet(key: EidKey, correspondents: readonly TunnelKey[]): void {
    const takeover = this.takeovers.get(key);
    if (takeover === undefined) return;
    this.speakTo(takeover, correspondents);
  }

  /**
   * The same, a few at a time: so much at once would be in the way of what the owner before tells them, and of their
   * first packets.
   */
  greetLater(key: EidKey, correspondents: readonly TunnelKey[]): void {
    const takeover = this.takeovers.get(key);
    for (const peer of correspondents) takeover?.later.add(peer);
  }

  private speakTo(takeover: Takeover, correspondents: readonly TunnelKey[]): void {
    const room = MAX_GREETED - takeover.greeted.size;
    const fresh = correspondents.filter((peer) => !takeover.greeted.has(peer)).slice(0, room);
    for (const peer of fresh) takeover.greeted.add(peer);
    if (fresh.length > 0) this.channel.solicit(fresh, takeover.eid);
  }

  /** The map server has us as the owner. */
  settle(key: EidKey, now: Instant): void {
    const takeover = this.takeovers.get(key);
    if (takeover !== undefined) takeover.settledAt ??= now;
  }

  /** Whoever had it still has something to say of it. */
  listensTo(key: EidKey, from: TunnelKey, now: Instant): boolean {
    const takeover = this.takeovers.get(key);
    if (takeover?.from !== from) return false;
    return takeover.settledAt === null || now - takeover.settledAt < LISTENS;
  }

  /** Taken over, and the map server does not know yet. */
  isUnsettled(key: EidKey): boolean {
    return this.takeovers.get(key)?.settledAt === null;
  }

  /** The map server refused us: whoever yielded still is the owner. */
  giveBack(key: EidKey, owner: Mapping['owner'], now: Instant): void {
    const takeover = this.takeovers.get(key);
    if (takeover === undefined || takeover.settledAt !== null || owner === undefined) return;
    const { eid, from, generation } = takeover;
    this.takeovers.delete(key);
    this.channel.notify(from, 'give-back', bare({ eid, generation, owner, tunnelKey: from }), [], now);
  }

  /** The EIDs that came from this agent. */
  from(key: TunnelKey): readonly EidKey[] {
    return [...this.takeovers].filter(([, { from }]) => from === key).map(([eid]) => eid);
  }

  forget(key: EidKey): void {
    this.takeovers.delete(key);
  }

  handleTimeout(now: Instant): void {
    for (const [key, takeover] of this.takeovers) {
      if (endOf(takeover) <= now) this.takeovers.delete(key);
      if (takeover.settledAt === null && takeover.repeatAt <= now) this.claim(takeover, now);
      if (takeover.later.size === 0 || takeover.greetAt > now) continue;
      takeover.greetAt = now + TURN;
      const some = [...takeover.later].slice(0, GREETED_IN_A_TURN);
      for (const peer of some) takeover.later.delete(peer);
      this.speakTo(takeover, some);
    }
  }

  pollTimeout(): Instant {
    let at = Number.POSITIVE_INFINITY;
    for (const takeover of this.takeovers.values()) {
      const { settledAt, repeatAt, later, greetAt } = takeover;
      if (settledAt === null) at = Math.min(at, repeatAt);
      if (later.size > 0) at = Math.min(at, greetAt);
      at = Math.min(at, endOf(takeover));
    }
    return at;
  }

  private claim(takeover: Takeover, now: Instant): void {
    takeover.repeatAt = now + REPEAT;
    const { eid, from, generation } = takeover;
    const { xtrId: owner, tunnelKey, instance } = this.identity;
    const self = bare({ eid: agentEid(instance, tunnelKey), generation, owner, tunnelKey });
    const agent = { ...self, locators: this.locators.list().slice(0, MAX_LOCATORS) };
    this.channel.notify(from, 'claim', bare({ eid, generation, owner, tunnelKey }), [agent], now);
  }
}

/** When nothing more is to be said or heard. */
function endOf({ settledAt, later }: Takeover): Instant {
  return settledAt === null || later.size > 0 ? Number.POSITIVE_INFINITY : settledAt + LISTENS;
}

const REPEAT = seconds(10);
/** As long as late packets are redirected, and then some. */
const LISTENS = seconds(90);
const MAX_GREETED = 16_384;
const TURN = 50;
const GREETED_IN_A_TURN = 32;
const MAX_LOCATORS = 4;
