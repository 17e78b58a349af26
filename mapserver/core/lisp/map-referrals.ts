/**
 * What a node of the DDT tree is told beside the answer to its Map-Request: that it was right to ask here, or not
 * (LISP-DDT, RFC 8111 section 7.3). The map server is a leaf of the tree: it refers to itself only.
 */
import type { IpAddress } from '../../../proto/address.ts';
import { ipLispAddress } from '../../../proto/lisp/afi.ts';
import type { Nonce } from '../../../proto/lisp/header.ts';
import { type MapReferral, REFERRAL_ACTIONS, type ReferralRecord } from '../../../proto/lisp/map-referral.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import { NEVER_USE } from '../../../proto/mapping.ts';
import type { MapAnswer } from './map-replies.ts';

/** `own`: addresses of the map server, if they are known. */
export function mapReferral(nonce: Nonce, answers: readonly MapAnswer[], own: readonly IpAddress[]): MapReferral {
  return { type: 'map-referral', nonce, records: answers.map((answer) => recordOf(answer, own)) };
}

function recordOf(answer: MapAnswer, own: readonly IpAddress[]): ReferralRecord {
  const state = stateOf(answer);
  const ours = state !== 'not-authoritative';
  return {
    ...eidToRecordKey(answer.told),
    ttl: TTL[state],
    action: REFERRAL_ACTIONS.indexOf(state),
    authoritative: ours,
    incomplete: !ours || own.length === 0,
    mapVersion: 0,
    referrals: ours ? own.map(referral) : [],
    signatures: [],
  };
}

function stateOf(answer: MapAnswer): 'ms-ack' | 'ms-not-registered' | 'not-authoritative' {
  if (answer.kind === 'forward' || answer.positive) return 'ms-ack';
  return answer.ours ? 'ms-not-registered' : 'not-authoritative';
}

function referral(address: IpAddress): ReferralRecord['referrals'][number] {
  return {
    priority: 0,
    weight: 0,
    multicastPriority: NEVER_USE,
    multicastWeight: 0,
    local: false,
    probed: false,
    reachable: true,
    locator: ipLispAddress(address),
  };
}

/** Minutes (RFC 8111 section 6.4.1). */
const TTL = { 'ms-ack': 1440, 'ms-not-registered': 1, 'not-authoritative': 0 } as const;
