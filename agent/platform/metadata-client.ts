/**
 * HTTP to a metadata service.
 *
 * It is where `serviceHosts` allows, so none of this enters the tunnel. No proxy, no redirect, no name to resolve.
 * Each request has a short time, a reading as a whole too, and each body a bound, since whatever answers at such an
 * address on a bad link is a stranger.
 */
import { Agent, type ClientRequest, type IncomingHttpHeaders, request } from 'node:http';
import type { z } from 'zod';
import { firstIssue } from '../../runtime/json-file.ts';
import { firstReachable, type ServiceHost } from './metadata-service.ts';
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
  private readonly hosts: readonly ServiceHost[];
  private readonly limits: MetadataLimits;
  /** One of its own: Node's shared one can be told to use a proxy by the environment. */
  private readonly connections = new Agent({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  private readonly underway = new Set<ClientRequest>();
  private readonly givenUp = new AbortController();
  private readonly end: number;
  /** Which of them answers: found out once. */
  private reached: Promise<ServiceHost> | null = null;

  /** `hosts`: the service at each of its addresses, by `serviceHosts`. */
  constructor(hosts: readonly ServiceHost[], limits: MetadataLimits = METADATA_LIMITS) {
    this.hosts = hosts;
    this.limits = limits;
    this.end = performance.now() + limits.readingMs;
  }

  /** Any status but a redirect. @throws PlatformError */
  async request(method: 'GET' | 'PUT', path: string, headers: MetadataHeaders = {}): Promise<MetadataAnswer> {
    this.reached ??= firstReachable(this.hosts, this.patience(`${method} ${path}`), this.givenUp.signal);
    return await this.ask(await this.reached, method, path, headers);
  }

  private patience(what: string): number {
    if (this.givenUp.signal.aborted) throw new PlatformError('unreachable', `${what}: given up`);
    const patience = Math.min(this.limits.requestMs, this.end - performance.now());
    if (patience <= 0) throw new PlatformError('timeout', `${what}: the time for asking is used up`);
    return patience;
  }

  private ask({ host, port }: ServiceHost, method: string, path: string, given: MetadataHeaders) {
    const what = `${method} ${path}`;
    const patience = this.patience(what);
    // Which interface it was has no meaning to the other side.
    const headers = host.includes('%') ? { host: `[${host.slice(0, host.indexOf('%'))}]`, ...given } : given;
    return new Promise<MetadataAnswer>((resolve, reject) => {
      const outgoing = request({ host, port, method, path, headers, agent: this.connections });
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
    this.givenUp.abort();
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

export const METADATA_LIMITS: MetadataLimits = { requestMs: 1500, readingMs: 4000, maxOctets: 1 << 20 };
const MAX_CONNECTIONS = 4;
