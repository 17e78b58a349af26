/** How resolvers are written: `ADDRESS`, `ADDRESS:PORT`, or `tls://ADDRESS[:PORT][#NAME]` for DNS over TLS. */
import { isIpAddress } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import type { Upstream } from '../core/dns-upstreams.ts';

/** @throws UsageError */
export function parseUpstream(text: string): Upstream {
  const [, scheme, place = '', name] = /^(tls:\/\/)?([^#]*)(?:#([\w.-]{1,253}))?$/.exec(text) ?? [];
  if (scheme === undefined && name !== undefined)
    throw new UsageError(`upstream resolver "${text}": #NAME is for tls://`);
  const bare = place.startsWith('[') && place.endsWith(']') ? place.slice(1, -1) : place;
  const upstream = isLiteral(bare)
    ? { host: bare, port: scheme === undefined ? DNS_PORT : TLS_PORT }
    : parseHostPort(place);
  if (isLiteral(upstream.host) && upstream.port > 0) {
    return scheme === undefined ? upstream : { ...upstream, tls: { name: name ?? '' } };
  }
  throw new UsageError(
    `upstream resolver "${text}" is not ADDRESS, ADDRESS:PORT or tls://ADDRESS[:PORT]#NAME ` +
      '(a name would have to be resolved first)',
  );
}

export function formatUpstream({ host, port, tls }: Upstream): string {
  const place = formatHostPort(host, port);
  if (tls === undefined) return place;
  return `tls://${place}${tls.name === '' ? '' : `#${tls.name}`}`;
}

function isLiteral(host: string): boolean {
  return isIpAddress(host.split('%', 1)[0] ?? '');
}

const DNS_PORT = 53;
const TLS_PORT = 853;
