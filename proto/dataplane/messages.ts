/**
 * The channel between the agent and the data plane: a Unix stream socket, each message a 32-bit big-endian
 * length (of what follows, at most MAX_FRAME) and a JSON object in UTF-8.
 *
 * The agent sends requests with an `id`; the data plane answers each, in order, with one `reply` of that id and
 * sends events at any time. One agent controls a data plane: the newest connection wins, an older one gets the
 * event `superseded` and is closed. Losing the agent changes nothing in forwarding. The Rust side is
 * `dataplane/src/channel.rs`; both sides are held together by the golden lines in `test/vectors/dataplane-channel.jsonl`.
 */
import type { IpAddress, IpPrefix } from '../address.ts';
import type { InstanceId } from '../eid.ts';
import type { Generation, Locator, TunnelKey } from '../mapping.ts';
import type { AgentPolicy } from '../policy.ts';
import { seconds } from '../time.ts';

export const MAX_FRAME = 4 * 1024 * 1024;
/** Octets of a message from agent to agent. */
export const MAX_PEER_MESSAGE = 1200;

export type DataplaneCommand =
  /** First message of every connection. Reply: HelloReply. */
  | { readonly type: 'hello'; readonly capability: number; readonly software: string }
  /** Idempotent. The same key keeps all sessions; another key drops them. Reply: ConfigureReply. */
  | {
      readonly type: 'configure';
      /** X25519 private key, 32 octets in base64. */
      readonly privateKey: string;
      /** PSK of Noise_IKpsk2 for the whole overlay, 32 octets in base64. */
      readonly presharedKey: string;
      /** Larger for each new data plane process and never smaller than before: replay protection of initiations. */
      readonly epoch: number;
      readonly instance: InstanceId;
      /** Put on the TUN as /128; always local. */
      readonly agentAddress: IpAddress;
      readonly listenPort: number;
      /** MTU of the TUN: 576 to 65,455, which an IPv6 packet holds beside what the tunnel adds. */
      readonly mtu: number;
      /** EID space: routed into the TUN. Packets for it without a mapping raise `miss`. */
      readonly overlay: readonly IpPrefix[];
    }
  /** All state set from here to `sync-end` is the whole truth; what is not mentioned is removed at `sync-end`. */
  | { readonly type: 'sync-begin' }
  | { readonly type: 'sync-end' }
  | { readonly type: 'peer-set'; readonly publicKey: TunnelKey; readonly locators: readonly Locator[] }
  | { readonly type: 'peer-remove'; readonly publicKey: TunnelKey }
  /** An older generation than the one known is ignored. Releases packets that wait for it. */
  | {
      readonly type: 'mapping-set';
      readonly prefix: IpPrefix;
      readonly generation: Generation;
      readonly action: 'forward' | 'plain' | 'drop';
      /** With `forward`. */
      readonly publicKey?: TunnelKey;
      /** With `plain`: of a site without a tunnel key, in plain RFC 9300 encapsulation, as far as `plain-set` allows. */
      readonly locators?: readonly Locator[];
    }
  | { readonly type: 'mapping-remove'; readonly prefix: IpPrefix }
  /**
   * An EID that this host owns. Without `interface` its address is put on the TUN; with it the workload is behind
   * that interface (host route, proxy ARP/ND, forwarding), followed through its appearing and going.
   * Packets that arrive while the interface is away are held (bounded) and delivered when it comes.
   */
  | {
      readonly type: 'local-eid-set';
      readonly prefix: IpPrefix;
      readonly generation: Generation;
      readonly interface: string | null;
      /** Previous owner of a move in progress: what it forwards for this EID is taken without the source check. */
      readonly redirectFrom: TunnelKey | null;
    }
  /** The EID is no longer here. With `redirectTo`, held and late packets go on to that peer for a drain time. */
  | {
      readonly type: 'local-eid-remove';
      readonly prefix: IpPrefix;
      readonly generation: Generation;
      readonly redirectTo: TunnelKey | null;
    }
  /** Watch an interface by name without owning an EID behind it (target state of a move). */
  | { readonly type: 'interface-watch'; readonly name: string }
  | { readonly type: 'interface-unwatch'; readonly name: string }
  /** One authenticated round trip to a peer. The answer is the event `probe-result` with the same token. */
  | { readonly type: 'probe'; readonly publicKey: TunnelKey; readonly token: number }
  /**
   * Look for signs of life of an EID's workload behind an interface, now or when it appears: ARP or neighbour
   * discovery of it, or any packet from it. Reported by `workload-seen`. Refused without CAP_NET_RAW.
   */
  | { readonly type: 'workload-watch'; readonly prefix: IpPrefix; readonly interface: string }
  | { readonly type: 'workload-unwatch'; readonly prefix: IpPrefix; readonly interface: string }
  /**
   * To the peer's agent, inside the tunnel: UDP 4342 between agent addresses. 1 to MAX_PEER_MESSAGE octets, base64.
   * Held bounded while the session comes up; may be lost. A peer that is not set is refused.
   */
  | { readonly type: 'peer-send'; readonly publicKey: TunnelKey; readonly payload: string }
  /**
   * Peers that exchanged packets with this local EID lately (120 s), newest first, at most MAX_CORRESPONDENTS. Also
   * answered for an EID that just left. Reply: CorrespondentsReply.
   */
  | { readonly type: 'correspondents'; readonly prefix: IpPrefix }
  /**
   * The whole policy, in place of the one before; part of the full state, and none without it. Enforced for packets
   * between EIDs as docs/policy-enforcement.md says. A data plane of capability 1 does not know it.
   */
  | ({ readonly type: 'policy-set' } & AgentPolicy)
  | ({ readonly type: 'plain-set' } & PlainRules)
  /** Reply: StatsReply. */
  | { readonly type: 'stats' }
  /** Reply: PeersReply. */
  | { readonly type: 'peers' }
  /**
   * What it forwards now, also before `configure`: an agent goes on from what it did not live to write down. Reply:
   * ForwardingReply.
   */
  | { readonly type: 'forwarding' }
  /**
   * The machine is about to sleep: all session keys are forgotten, and none are made until `wake`, or the data plane
   * notices by itself that the machine has slept, or MAX_ASLEEP. What is to be sent meanwhile is held (bounded). Reply:
   * SleepReply.
   */
  | { readonly type: 'sleep' }
  /**
   * The machine is awake, whether it has slept or not: active peers are spoken to at once, and the event `resumed` says
   * so; not once more if the data plane has noticed by itself. Reply: WakeReply.
   */
  | { readonly type: 'wake' };

export const MAX_ASLEEP = seconds(30);

export interface SleepReply {
  /** That were up. */
  readonly sessions: number;
}

export interface WakeReply {
  /** It was news. */
  readonly resumed: boolean;
}

/**
 * With whom plain packets are exchanged, in place of what was said before; part of the full state, and nobody without
 * it. Never for an EID whose owner has a tunnel key. Only for a data plane whose hello says `plain`.
 */
export interface PlainRules {
  /** Of these packets; 0 is sent without an instance ID. */
  readonly instance: InstanceId;
  /** Packets are passed on between plain sites and tunnels. */
  readonly gateway: boolean;
  readonly sites: readonly PlainSite[];
}

export interface PlainSite {
  /** Who may be sent to, and may send. */
  readonly rlocs: readonly IpPrefix[];
  /**
   * What may come from these RLOCs without a mapping that says so, and is EID space of this host besides the overlay;
   * of length 4 or more.
   */
  readonly eids: readonly IpPrefix[];
}

export const MAX_PLAIN_SITES = 256;
/** Of RLOCs and EIDs, in all sites. */
export const MAX_PLAIN_PREFIXES = 4096;

export interface HelloReply {
  readonly capability: number;
  readonly software: string;
  /** Random hex, new for each process: tells a restarted data plane from a re-attached one. */
  readonly process: string;
  readonly configured: boolean;
  readonly cipher: 'aes-256-gcm' | 'chacha20-poly1305';
  /** Names of the kernel offloads in use: `vnet-hdr`, `tso`, `uso`, `udp-gso`, `udp-gro`. */
  readonly offloads: readonly string[];
  /** What confines the process: `landlock`, `seccomp`, as far as the kernel has them. Older data planes do not say. */
  readonly sandbox?: readonly string[] | undefined;
  /** It knows plain peers. Older data planes do not say. */
  readonly plain?: boolean | undefined;
}

export interface ConfigureReply {
  readonly publicKey: TunnelKey;
  readonly interface: string;
  readonly listenPort: number;
}

export interface StatsReply {
  /** Monotonic counters by name, see docs/metrics.md. Drops are `drop.<reason>`. */
  readonly counters: Readonly<Record<string, number>>;
  /**
   * Present values: `peers`, `sessions`, `mappings`, `local_eids`, `held_packets`, `held_bytes`, `policy_version`,
   * `policy_rules`, `rss_bytes`.
   */
  readonly gauges: Readonly<Record<string, number>>;
}

export interface PeerStatus {
  readonly publicKey: TunnelKey;
  /** Where packets for this peer go now; null before anything is known. */
  readonly endpoint: { readonly address: IpAddress; readonly port: number } | null;
  readonly session: 'none' | 'handshake' | 'up';
  readonly sessionAgeMs: number | null;
  /** Since the last authentic packet from it; null if never. */
  readonly lastReceivedMs: number | null;
  readonly rttUs: number | null;
  readonly pathMtu: number;
  readonly txBytes: number;
  readonly rxBytes: number;
}

export interface PeersReply {
  readonly peers: readonly PeerStatus[];
}

export const MAX_FORWARDING = 8192;

/** At most MAX_FORWARDING of each. */
export interface ForwardingReply {
  readonly peers: readonly { readonly publicKey: TunnelKey; readonly locators: readonly Locator[] }[];
  /** Those to peers. */
  readonly mappings: readonly {
    readonly prefix: IpPrefix;
    readonly generation: Generation;
    readonly publicKey: TunnelKey;
  }[];
}

export const MAX_CORRESPONDENTS = 4096;
export const MAX_HANDOVERS = 4096;

export interface CorrespondentsReply {
  readonly peers: readonly TunnelKey[];
  /** Who exchanged plain packets with it within a minute, newest first. Older data planes do not say. */
  readonly rlocs?: readonly IpAddress[] | undefined;
}

export type DataplaneReply =
  | { readonly type: 'reply'; readonly id: number; readonly ok: true; readonly result?: unknown }
  | {
      readonly type: 'reply';
      readonly id: number;
      readonly ok: false;
      readonly code: string;
      readonly message: string;
    };

export interface LocalAddress {
  readonly address: IpAddress;
  readonly interface: string;
  /** The routing table has a default route of this family out of this interface. */
  readonly defaultRoute: boolean;
  /** Nobody answers through this interface, although its link is up. Older data planes leave such addresses out. */
  readonly silent?: boolean | undefined;
}

export type DataplaneEvent =
  /** Global unicast underlay addresses of this host: once after `configure`, then at every change. */
  | { readonly type: 'locators'; readonly addresses: readonly LocalAddress[] }
  /** State of a watched interface: at the watch, then at every change. */
  | { readonly type: 'interface'; readonly name: string; readonly up: boolean }
  /** Packets wait for a mapping of this EID. At most one per EID and second. */
  | { readonly type: 'miss'; readonly eid: IpAddress; readonly reason: 'destination' | 'source' }
  /** A peer sent from an EID that the table gives to another peer: the mapping may be old. One per EID and second. */
  | { readonly type: 'conflict'; readonly eid: IpAddress; readonly publicKey: TunnelKey }
  /** A valid initiation from an unknown key waits (bounded) for `peer-set`. */
  | { readonly type: 'unknown-peer'; readonly publicKey: TunnelKey }
  /** An authentic packet came from a new address, which is used from now on. */
  | { readonly type: 'peer-moved'; readonly publicKey: TunnelKey; readonly address: IpAddress; readonly port: number }
  /**
   * After a change of this host's locators: for each peer the time until it was heard through the new one. Some time
   * later, and at most MAX_HANDOVERS together, as nothing is to be done.
   */
  | { readonly type: 'handovers'; readonly micros: readonly number[] }
  | { readonly type: 'probe-result'; readonly token: number; readonly rttUs: number | null }
  /** From the peer's agent, authenticated by its tunnel key; base64. Bounded rate per peer. */
  | { readonly type: 'peer-message'; readonly publicKey: TunnelKey; readonly payload: string }
  /** While it is watched, at most once a second. */
  | {
      readonly type: 'workload-seen';
      readonly prefix: IpPrefix;
      readonly interface: string;
      readonly by: 'arp' | 'nd' | 'packet';
    }
  /**
   * This machine slept, or `wake` says so, or its wall clock was put ahead, or it is a copy that runs on from a snapshot
   * (its VM generation changed). The data plane has spoken to its peers; after a snapshot it has dropped all session
   * keys first. `epoch`: that of its handshakes from now on; older data planes do not say.
   */
  | { readonly type: 'resumed'; readonly from: 'suspend' | 'snapshot'; readonly epoch?: number | undefined }
  | { readonly type: 'superseded' };
