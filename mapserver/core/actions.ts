/** What the map server's core wants done and told, in the order in which it is to happen. */

import type { IpAddress } from '../../proto/address.ts';
import type { EidKey } from '../../proto/eid.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { AgentPolicy } from '../../proto/policy.ts';
import type { LispMessageKind, LispResult } from './lisp/lisp-server.ts';
import type { NotifyOutcome } from './lisp/site-notifier.ts';
import type { UdpPeer } from './lisp/udp-peer.ts';
import type { ChangedNames } from './name-changes.ts';
import type { OperationError } from './operation-error.ts';
import type { Operation } from './operations.ts';
import type { EidOrder, OrderId, OrderResult } from './orders.ts';
import type { PolicyCheck } from './policy/inspection.ts';
import type { SessionId } from './presence.ts';
import type { AgentRecord, PolicyRecord, SiteRecord, TokenRecord } from './records.ts';
import type { DenialReason } from './registration.ts';
import type { Commit } from './transactions.ts';

export type OperationId = number & { readonly __brand: 'OperationId' };

export type PolicyQuestionId = number & { readonly __brand: 'PolicyQuestionId' };

export type OperationResult =
  | { readonly ok: true; readonly record: TokenRecord | AgentRecord | PolicyRecord | SiteRecord | ChangedNames }
  | { readonly ok: false; readonly error: OperationError };

export type Action =
  | { readonly kind: 'send'; readonly session: SessionId; readonly message: LispMessage }
  /** All of what it enforces. */
  | { readonly kind: 'policy'; readonly session: SessionId; readonly policy: AgentPolicy }
  | { readonly kind: 'close'; readonly session: SessionId; readonly code: number; readonly reason: string }
  /** To a peer that speaks LISP over UDP. */
  | { readonly kind: 'datagram'; readonly to: UdpPeer; readonly bytes: Uint8Array }
  | { readonly kind: 'commit'; readonly commit: Commit }
  | { readonly kind: 'outcome'; readonly id: OperationId; readonly result: OperationResult }
  /** Undefined: too many were asked at once. */
  | { readonly kind: 'policy-checked'; readonly id: PolicyQuestionId; readonly check: PolicyCheck | undefined }
  | { readonly kind: 'order-outcome'; readonly id: OrderId; readonly result: OrderResult }
  | { readonly kind: 'event'; readonly event: ServerEvent };

/** What the log and the metrics tell. */
export type ServerEvent =
  | {
      readonly kind: 'registration';
      readonly result: RegistrationResult;
      readonly xtrId: XtrId;
      readonly eid: EidKey;
      /** From whom it was taken. */
      readonly previous?: XtrId;
    }
  | { readonly kind: 'request'; readonly result: RequestResult }
  | { readonly kind: 'notify'; readonly why: 'registration' | 'resolution' | 'publication' }
  | {
      readonly kind: 'moved';
      readonly eid: EidKey;
      readonly from: XtrId;
      readonly to: XtrId;
      readonly generation: number;
    }
  | { readonly kind: 'withdrawn'; readonly xtrId: XtrId; readonly count: number }
  | {
      readonly kind: 'operation';
      readonly operation: Operation['kind'];
      readonly result: string;
      readonly subject?: string;
    }
  | {
      readonly kind: 'order';
      readonly order: EidOrder['kind'];
      readonly result: string;
      readonly eid: EidKey;
    }
  | { readonly kind: 'policy-sent' }
  /** These names of the zone, and all at or below those of `below`, may be answered otherwise than before. */
  | { readonly kind: 'names-changed'; readonly names: ReadonlySet<string>; readonly below: ReadonlySet<string> }
  /** What the policy is for these agents is more than they can enforce: they keep what they have. */
  | { readonly kind: 'policy-too-large'; readonly agents: number; readonly problem: string }
  /** Something was not done, or was ended, because of it. `source`: an xTR-ID, or what asked for it. */
  | { readonly kind: 'limit'; readonly limit: LimitName; readonly source: string }
  | {
      readonly kind: 'lisp-received';
      readonly message: LispMessageKind;
      readonly result: LispResult;
      readonly from: IpAddress;
    }
  /** A Map-Notify to a peer over UDP that nobody asked for. */
  | { readonly kind: 'lisp-notify'; readonly result: NotifyOutcome }
  | { readonly kind: 'lisp-sent'; readonly message: LispMessage['type'] }
  | { readonly kind: 'rejected'; readonly reason: RejectionReason; readonly xtrId: XtrId };

export type LimitName =
  | 'agents'
  | 'tokens'
  | 'names'
  | 'sites'
  | 'mappingsPerSite'
  | 'mappings'
  | 'mappingsPerAgent'
  | 'releasedPerAgent'
  | 'subscriptions'
  | 'subscriptionsPerAgent'
  | 'pending';
export type RequestResult = 'subscribed' | 'answered' | 'negative' | 'revoked' | 'denied' | 'unsubscribed';
export type RegistrationResult = 'taken' | 'recovered' | 'refreshed' | 'released' | 'target' | 'stale' | DenialReason;
export type RejectionReason = 'foreign-xtr-id' | 'nonce' | 'message-type' | 'malformed' | 'overload' | 'fenced';

/** WebSocket close codes; 4000 and up are ours. */
export const CLOSE = { superseded: 4001, foreignXtrId: 4002, revoked: 4003, fenced: 4004, overload: 1013 } as const;
