import { isIpAddress } from '../proto/address.ts';
import { UsageError } from '../proto/errors.ts';

interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `127.0.0.1:53`, `[::1]:53`, `host:53`. @throws UsageError */
export function parseHostPort(text: string): HostPort {
  const parsed = read(text);
  if (parsed === null) throw new UsageError(`"${text}" is not HOST:PORT (an IPv6 address in brackets)`);
  return parsed;
}

export function isHostPort(text: string): boolean {
  return read(text) !== null;
}

function read(text: string): HostPort | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535) return null;
  // No name ends in a number, so what does is meant as an address.
  const isMeantAsAddress = match?.[1] !== undefined || /(^|\.)\d+$/.test(host);
  return isMeantAsAddress && !isIpAddress(host) ? null : { host, port };
}

export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
