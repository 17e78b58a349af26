/** What the agent's core wants done; the shell carries the outputs out in order. */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import type { DataplaneCommand } from '../../proto/dataplane/messages.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { Generation, MapAction, Mapping, TunnelKey } from '../../proto/mapping.ts';
import type { PolicyAction } from '../../proto/policy.ts';
import type { Millis } from '../../proto/time.ts';
import type { LispOutcome, LispPeer } from './lisp-responder.ts';
import type { Ticket } from './map-requests.ts';
import type { EidState } from './registrar.ts';
import type { Reachability } from './rloc-probes.ts';

export type AgentOutput =
  | { readonly to: 'dataplane'; readonly command: DataplaneCommand }
  | { readonly to: 'map-server'; readonly message: LispMessage }
  | { readonly to: 'caller'; readonly ticket: Ticket; readonly answer: Answer }
  /** A LISP message to a router, over UDP. */
  | { readonly to: 'lisp-router'; readonly peer: LispPeer; readonly bytes: Uint8Array }
  /** State that changed and must outlive the process. The shell writes it before it carries out what follows. */
  | { readonly to: 'disk'; readonly what: Persistent }
  /** This host's addresses changed: the connection to the map server may be dead. */
  | { readonly to: 'link'; readonly addresses: readonly IpAddress[] }
  | { readonly to: 'operator'; readonly note: Note };

export type Persistent = 'eids' | 'map-cache' | 'dataplane' | 'overlay' | 'policy';

export type Resolution =
  | {
      readonly kind: 'found';
      readonly mapping: Mapping;
      /** Owned by this agent. */
      readonly own: boolean;
      /** From the map-cache while the map server is away, or past its TTL. */
      readonly stale: boolean;
      readonly ageMs: Millis;
    }
  | { readonly kind: 'absent'; readonly action: MapAction }
  | { readonly kind: 'unavailable' };

export type Answer =
  | { readonly kind: 'resolution'; readonly resolution: Resolution }
  | {
      readonly kind: 'attachment';
      readonly state: EidState;
      readonly generation: Generation;
      readonly problem: string | null;
    }
  | { readonly kind: 'probe'; readonly rttUs: number | null };

/** What agents say to one another, see peer-moves.ts. */
export type PeerMessageKind = 'claim' | 'notice' | 'prepare' | 'handover' | 'give-back' | 'solicit';

/** For logs and metrics. */
export type Note =
  | {
      readonly type: 'registration';
      readonly result: 'accepted' | 'lost' | 'denied' | 'forgotten';
      readonly eid: string;
    }
  | { readonly type: 'eid-state'; readonly eid: string; readonly state: EidState; readonly generation: Generation }
  | { readonly type: 'resolution'; readonly result: Resolution['kind'] }
  | { readonly type: 'push'; readonly records: number }
  | { readonly type: 'locators'; readonly count: number }
  /** How long it took until each of so many peers was heard after a change of this host's locators. */
  | { readonly type: 'handovers'; readonly micros: readonly number[] }
  | { readonly type: 'peer-refused'; readonly publicKey: TunnelKey }
  | { readonly type: 'peer-revoked'; readonly publicKey: TunnelKey }
  | { readonly type: 'mapping-refused'; readonly reason: string }
  /** An administrator of the map server wants it. */
  | { readonly type: 'order'; readonly what: 'attach' | 'detach'; readonly eid: string }
  /** An EID that came (`new-owner`) or went (`old-owner`), and who decided: the other agent, or the map server. */
  | {
      readonly type: 'move';
      readonly role: 'new-owner' | 'old-owner';
      readonly result: 'live' | 'denied' | 'yielded' | 'lost' | 'given-back' | 'abandoned';
    }
  | {
      readonly type: 'peer-message';
      readonly kind: PeerMessageKind;
      readonly result: 'sent' | 'unanswered' | 'accepted' | 'refused' | 'ignored' | 'malformed';
    }
  /** Told where an EID went, and introduced to its new owner. */
  | { readonly type: 'correspondents'; readonly count: number }
  | { readonly type: 'overlay'; readonly overlay: readonly IpPrefix[] }
  /** Another policy is enforced from now on. */
  | { readonly type: 'policy'; readonly version: number; readonly default: PolicyAction; readonly rules: number }
  /** The map server's policy is not understood or out of order; the one before stays. */
  | { readonly type: 'policy-refused'; readonly reason: string }
  /** What became of a message of a LISP router. */
  | { readonly type: 'lisp'; readonly result: LispOutcome }
  /** Own EIDs at a Map-Server of others: registered, not answered to, or also registered by somebody else. */
  | {
      readonly type: 'lisp-registration';
      readonly result: 'accepted' | 'unanswered' | 'taken';
      /** HOST:PORT */
      readonly server: string;
      readonly eids: number;
    }
  /** A probe of a site's RLOC, after all its tries; and what is known of the RLOC from then on. */
  | { readonly type: 'rloc-probe'; readonly result: 'answered' | 'unanswered' }
  | { readonly type: 'rloc'; readonly rloc: IpAddress; readonly state: Reachability }
  | { readonly type: 'dataplane-superseded' }
  | {
      readonly type: 'limit';
      readonly what:
        | 'eids'
        | 'introductions'
        | 'map-requests'
        | 'registrations'
        | 'rloc-probes'
        | 'unknown-peers'
        | 'withdrawals';
    };
