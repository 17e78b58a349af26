/** What an Info-Request is answered with: the address and port that it came from. */
import type { IpAddress } from '../../../proto/address.ts';
import { ipLispAddress, type LispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import { NO_AUTHENTICATION } from '../../../proto/lisp/authentication-data.ts';
import { LISP_CONTROL_PORT } from '../../../proto/lisp/header.ts';
import type { InfoReply, InfoRequest } from '../../../proto/lisp/info-request.ts';
import type { UdpPeer } from './udp-peer.ts';

/** `ms`: at which address the map server is; `rtrs`: that relay for those behind NATs. Not signed. */
export function infoReplyTo(
  { nonce, ttl, eid, maskLength }: InfoRequest,
  from: UdpPeer,
  { ms = NO_ADDRESS, rtrs = [] }: { readonly ms?: LispAddress; readonly rtrs?: readonly IpAddress[] } = {},
): InfoReply {
  return {
    type: 'info-reply',
    nonce,
    authentication: NO_AUTHENTICATION,
    ttl: ttl === 0 ? TTL_MINUTES : ttl,
    eid,
    maskLength,
    nat: {
      kind: 'nat',
      msPort: LISP_CONTROL_PORT,
      etrPort: from.port,
      globalEtr: ipLispAddress(from.address),
      ms,
      privateEtr: NO_ADDRESS,
      rtrs: rtrs.map(ipLispAddress),
    },
  };
}

const TTL_MINUTES = 1440;
