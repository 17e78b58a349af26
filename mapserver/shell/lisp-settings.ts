/** What the core has to know of the configuration of LISP over UDP. */
import { isIpAddress, parseIpAddress } from '../../proto/address.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import type { MapServerSettings } from '../config.ts';
import type { LispSettings } from '../core/lisp/lisp-server.ts';

/** @throws UsageError when an address to listen on is none */
export function lispSettings(lisp: MapServerSettings['lisp']): LispSettings {
  const hosts = lisp.listen.map((listen) => parseHostPort(listen).host);
  return {
    messagesPerSecond: lisp.messagesPerSecond,
    subscriptions: {
      ttl: minutes(lisp.publicationMinutes),
      perXtr: lisp.subscriptionsPerXtr,
      total: lisp.subscriptions,
    },
    rtrs: lisp.rtrs,
    gateways: lisp.gateways as XtrId[],
    requests: {
      requesters: lisp.requesters,
      ttl: minutes(lisp.answerMinutes),
      repliesPerSecond: lisp.repliesPerSecond,
      remembered: lisp.rememberedAnswers,
      families: hosts.map((host) => (host.includes(':') ? 6 : 4)),
      addresses: hosts.filter((host) => isIpAddress(host) && !UNSPECIFIED.has(host)).map(parseIpAddress),
    },
  };
}

const UNSPECIFIED: ReadonlySet<string> = new Set(['0.0.0.0', '::']);
