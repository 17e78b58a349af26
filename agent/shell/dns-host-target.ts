/** What the host is to be told: the zones that the agent answers, and where. The agent says so over its socket. */
import { networkInterfaces } from 'node:os';
import { z } from 'zod';
import { isIpAddress } from '../../proto/address.ts';
import type { Millis } from '../../proto/time.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import { callApi } from '../../runtime/http-api.ts';

/** For files and command lines of programs of root: nothing but names and addresses, and nothing that is an option. */
const DOMAIN = z.string().regex(/^(?!-)(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/i, 'is not a domain');
const ADDRESS = z.string().max(64).refine(isIpAddress, 'is not an address');

/** `GET /v1/dns` of the agent. */
const DNS_STATUS = z.object({
  zone: DOMAIN,
  reverseZones: z.array(DOMAIN).max(1024),
  /** `HOST:PORT` of each listener. */
  listen: z.array(z.string().max(80)).max(16),
  /** The resolvers that all other names are asked of, as in `dns.upstreams`. */
  upstreams: z.array(z.string().max(400)).max(16),
  /** The agent's address and the EIDs of the host itself: the interface that has one of them is the tunnel's. */
  addresses: z.array(ADDRESS).max(4096),
});

export type DnsStatus = z.output<typeof DNS_STATUS>;

export interface DnsServerAddress {
  readonly host: string;
  readonly port: number;
}

/** @throws StayputError, ZodError when the agent does not answer, or not with this */
export async function readDnsStatus(socketPath: string, timeoutMs: Millis): Promise<DnsStatus> {
  return DNS_STATUS.parse(await callApi({ socketPath }, 'GET', '/v1/dns', { timeoutMs }));
}

/** Where programs of this host reach the agent's DNS. */
export function serversOf(status: DnsStatus): DnsServerAddress[] {
  return status.listen
    .map((listen) => parseHostPort(listen))
    .map(({ host, port }) => ({ host: host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host, port }))
    .filter(({ host }) => isIpAddress(host));
}

/** For resolv.conf, which knows no ports. */
export function plainServersOf(status: DnsStatus): string[] {
  return serversOf(status)
    .filter(({ port }) => port === 53)
    .map(({ host }) => host);
}

export function serverText({ host, port }: DnsServerAddress): string {
  return port === 53 ? host : formatHostPort(host, port);
}

/** The name of the tunnel's interface; undefined while it has none of the addresses. */
export function tunnelInterface(status: DnsStatus): string | undefined {
  const wanted = new Set(status.addresses);
  return Object.entries(networkInterfaces()).find(([, addresses]) =>
    addresses?.some(({ address }) => wanted.has(address)),
  )?.[0];
}
