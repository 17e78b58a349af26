/**
 * HTTP to a metadata service.
 *
 * Only to link-local addresses, and to a router on this link that a driver names: the overlay never includes
 * 169.254.0.0/16 or a default route, so none of this enters the tunnel. No proxy, no redirect, no name to resolve.
 * Each request has a short time, a reading as a whole too, and each body a bound, since whatever answers at such an
 * address on a bad link is a stranger.
 */
import { Agent, type ClientRequest, type IncomingHttpHeaders, request } from 'node:http';
import type { z } from 'zod';
import { type IpAddress, type IpPrefix, parseIpAddress, prefixContains } from '../../proto/address.ts';
import { firstIssue } from '../../runtime/json-file.ts';
import { PlatformError } from './platform.ts';

export type MetadataHeaders = Readonly<Record<string, string>>;

export interface MetadataAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface MetadataLimits {
  readonly requestMs: number;
  /** For all requests of a client together. */
  readonly readingMs: number;
  readonly maxOctets: number;
}

export class MetadataClient {
  private readonly host: string;
  private readonly port: number;
  private readonly limits: MetadataLimits;
  /** One of its own: Node's shared one can be told to use a proxy by the environment. */
  private readonly connections = new Agent({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  private readonly underway = new Set<ClientRequest>();
  private readonly end: number;

  /** `host`: a literal address, checked by `linkLocalAddress`. */
  constructor(host: string, port: number, limits: MetadataLimits = METADATA_LIMITS) {
    this.host = host;
    this.port = port;
    this.limits = limits;
    this.end = performance.now() + limits.readingMs;
  }

  /** Any status but a redirect. @throws PlatformError */
  request(method: 'GET' | 'PUT', path: string, headers: MetadataHeaders = {}): Promise<MetadataAnswer> {
    const what = `${method} ${path}`;
    const patience = Math.min(this.limits.requestMs, this.end - performance.now());
    if (patience <= 0) return Promise.reject(new PlatformError('timeout', `${what}: the time for asking is used up`));
    return new Promise((resolve, reject) => {
      const outgoing = request({ host: this.host, port: this.port, method, path, headers, agent: this.connections });
      this.underway.add(outgoing);
      outgoing.on('close', () => this.underway.delete(outgoing));
      const fail = (error: PlatformError): void => {
        clearTimeout(timer);
        reject(error);
        outgoing.destroy();
      };
      const timer = setTimeout(
        () => fail(new PlatformError('timeout', `${what}: no answer within ${Math.round(patience)} ms`)),
        patience,
      );
      outgoing.on('error', (cause) =>
        fail(
          'code' in cause && String(cause.code).startsWith('HPE_')
            ? new PlatformError('malformed', `${what}: the answer is not HTTP`, { cause })
            : new PlatformError('unreachable', `${what}: ${cause.message}`, { cause }),
        ),
      );
      outgoing.on('response', (incoming) => {
        const status = incoming.statusCode ?? 0;
        if (status >= 300 && status < 400) {
          fail(new PlatformError('redirect', `${what}: a metadata service does not redirect (${status})`));
          return;
        }
        const chunks: Buffer[] = [];
        let octets = 0;
        incoming.on('data', (chunk: Buffer) => {
          octets += chunk.length;
          if (octets > this.limits.maxOctets) {
            fail(new PlatformError('too-large', `${what}: more than ${this.limits.maxOctets} octets`));
          } else chunks.push(chunk);
        });
        incoming.on('error', (cause) =>
          fail(new PlatformError('unreachable', `${what}: the answer broke off`, { cause })),
        );
        incoming.on('end', () => {
          clearTimeout(timer);
          resolve({ status, headers: incoming.headers, body: Buffer.concat(chunks).toString('utf8') });
        });
      });
      outgoing.end();
    });
  }

  /** The body without surrounding space; null when there is nothing (404, 410, or an empty body). @throws PlatformError */
  async text(path: string, headers: MetadataHeaders = {}): Promise<string | null> {
    const { status, body } = await this.request('GET', path, headers);
    if (status === 404 || status === 410) return null;
    if (status !== 200) throw new PlatformError('status', `GET ${path}: status ${status}`);
    const text = body.trim();
    return text === '' ? null : text;
  }

  /** Null when there is nothing. @throws PlatformError */
  async json<T extends z.ZodType>(path: string, schema: T, headers: MetadataHeaders = {}): Promise<z.output<T> | null> {
    const text = await this.text(path, headers);
    return text === null ? null : parseJson(schema, text, `GET ${path}`);
  }

  /** Ends what is under way. */
  close(): void {
    for (const outgoing of this.underway) outgoing.destroy(new Error('given up'));
    this.connections.destroy();
  }
}

/** @throws PlatformError */
export function parseJson<T extends z.ZodType>(schema: T, text: string, what: string): z.output<T> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new PlatformError('malformed', `${what}: not JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new PlatformError('malformed', `${what}: ${firstIssue(parsed.error)}`);
}

/** @throws PlatformError for an address that is neither link-local nor one of `onLink` */
export function linkLocalAddress(text: string, onLink: readonly string[] = []): IpAddress {
  const address = parseIpAddress(text);
  if (LINK_LOCAL.some((prefix) => prefixContains(prefix, address)) || onLink.includes(address)) return address;
  throw new PlatformError('refused', `${address} is not on this link: a metadata service is`);
}

export const METADATA_LIMITS: MetadataLimits = { requestMs: 1500, readingMs: 4000, maxOctets: 1 << 20 };
const LINK_LOCAL = ['169.254.0.0/16', 'fe80::/10'] as IpPrefix[];
const MAX_CONNECTIONS = 4;
