/**
 * Info-Requests: a router asks how it is seen from here (draft-ermagan-lisp-nat-traversal).
 *
 * The answer names the address and port that the datagram came from, so the router knows whether there is a NAT on the
 * way, and the RTRs that relay for those behind one. Deployed routers ask before they use a key, so a request without
 * authentication is answered; one that has it is answered only if it is right, and with the same key. The answer is
 * longer than the request and goes to a source that may be forged, so there are few of them for each source.
 */
import { type IpAddress, ipFamily } from '../../../proto/address.ts';
import { DecodeError } from '../../../proto/errors.ts';
import { ipLispAddress } from '../../../proto/lisp/afi.ts';
import { signMessage, verifyAuthentication } from '../../../proto/lisp/authentication.ts';
import type { InfoReply, InfoRequest } from '../../../proto/lisp/info-request.ts';
import { recordKeyToEid } from '../../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../../proto/lisp/message.ts';
import type { Instant } from '../../../proto/time.ts';
import { RateTable } from '../rate-table.ts';
import { infoReplyTo } from './info-reply.ts';
import type { Site, Sites } from './sites.ts';
import { chargedTo, type Received, type UdpPeer } from './udp-peer.ts';

export interface InfoRequestsParts {
  readonly sites: Sites;
  /** That relay for routers behind NATs. */
  readonly rtrs: readonly IpAddress[];
  /** Addresses at which the map server is known to be. */
  readonly addresses: readonly IpAddress[];
  readonly send: (to: UdpPeer, bytes: Uint8Array) => void;
}

export class InfoRequests {
  private readonly parts: InfoRequestsParts;
  private readonly rates = new RateTable(PER_SECOND, BURST, MAX_SOURCES);
  private readonly total = new RateTable(PER_SECOND_OF_ALL, PER_SECOND_OF_ALL, 1);

  constructor(parts: InfoRequestsParts) {
    this.parts = parts;
  }

  handleRequest(received: Received<InfoRequest>, now: Instant): 'accepted' | 'limited' | 'authentication' {
    const { message, bytes, from } = received;
    if (!this.rates.tryTake(chargedTo(from), now) || !this.total.tryTake('all', now)) return 'limited';
    const { keyId, algorithm, data } = message.authentication;
    const reply = this.replyTo(message, from);
    if (algorithm === 0) {
      this.parts.send(from, encodeLispMessage(reply));
      return 'accepted';
    }
    const keys = this.candidates(message).flatMap((site) => site.keys);
    const key = keys.find((each) => {
      return each.keyId === keyId && each.algorithm === algorithm && verifyAuthentication(bytes, each.secret).ok;
    });
    if (key === undefined) return 'authentication';
    const length = data.length > LONGEST_TRUNCATED ? 'full' : 'rfc';
    this.parts.send(from, signMessage(reply, { keyId, algorithm, psk: key.secret, length }));
    return 'accepted';
  }

  private replyTo(request: InfoRequest, from: UdpPeer): InfoReply {
    const own = this.parts.addresses.find((address) => ipFamily(address) === ipFamily(from.address));
    const { rtrs } = this.parts;
    return infoReplyTo(request, from, own === undefined ? { rtrs } : { rtrs, ms: ipLispAddress(own) });
  }

  private candidates({ eid, maskLength }: InfoRequest): readonly Site[] {
    try {
      const read = recordKeyToEid(eid, maskLength);
      return read.kind === 'prefix' ? this.parts.sites.candidates(read) : [];
    } catch (error) {
      if (error instanceof DecodeError) return [];
      throw error;
    }
  }
}

const PER_SECOND = 1;
const BURST = 3;
const PER_SECOND_OF_ALL = 1_000;
const MAX_SOURCES = 20_000;
/** Octets of authentication data that are not the whole digest. */
const LONGEST_TRUNCATED = 16;
