/** A platform as a machine on it sees it: files below a folder that stands for `/`, and HTTP services by their address. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import {
  type AccessTo,
  type Examination,
  type ExaminationOptions,
  examinePlatform,
  openAccess,
} from '../../agent/platform/examination.ts';
import { readLocalFacts } from '../../agent/platform/local-facts.ts';
import type { MetadataLimits } from '../../agent/platform/metadata-client.ts';
import type { ServiceHost } from '../../agent/platform/metadata-service.ts';
import { type PlatformAccess, PlatformError } from '../../agent/platform/platform.ts';

/** What is at a path: a body, or what depends on the request; undefined: 404. */
export type Route = string | ((request: IncomingMessage) => Answered | string | undefined);

export interface Answered {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface EmulatedPlatform {
  /** Below `/`; octets or text. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** By path with query, of the service at `address`. */
  readonly routes?: Readonly<Record<string, Route>>;
  /** Where it is; by itself 169.254.169.254. `*`: wherever anybody asks. */
  readonly address?: string;
  readonly architecture?: string;
  /** Programs of the guest tools: null says that they refuse. */
  readonly programs?: Readonly<Record<string, (args: readonly string[]) => string | null>>;
}

/** In the place of a service that works. */
export const FAULTS = {
  'accepts and is silent': hang,
  'says nothing is there': answering(404, ''),
  'is broken': answering(500, 'Internal Server Error'),
  forbids: answering(403, 'Forbidden'),
  'wants to know who asks': answering(401, 'Unauthorized', { 'www-authenticate': 'Basic' }),
  'is asked too often': answering(429, 'Too Many Requests', { 'retry-after': '3600' }),
  'answers another type of content': answering(200, '\u0000\u0001\u0002\ufffd', { 'content-type': 'image/png' }),
  'redirects elsewhere': answering(302, '', { location: 'http://192.0.2.1/latest/meta-data/' }),
  'answers an HTML page to everything': answering(200, '<html>Welcome\u001b[2J to the hotel</html>'),
  'answers with endless text': answering(200, 'x'.repeat(10 << 20)),
  'answers JSON of another kind': answering(200, '{"networks": 7, "uuid": [], "interfaces": {"public": 1}}'),
  'answers with nothing': answering(200, ''),
  'does not speak HTTP': raw((socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n')),
  'breaks off': raw((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf')),
  'drips an octet at a time': raw((socket) => {
    const timer = setInterval(() => socket.write('H'), 20);
    socket.on('close', () => clearInterval(timer));
  }),
} as const;

export class PlatformEmulator {
  readonly root: string;
  /** `METHOD path` of all requests. */
  readonly requests: string[] = [];
  /** So that a test of what does not answer is short. */
  limits: MetadataLimits = { requestMs: 5000, readingMs: 10_000, maxOctets: 1 << 20 };
  private readonly platform: EmulatedPlatform;
  private port = 0;

  private constructor(platform: EmulatedPlatform) {
    this.platform = platform;
    this.root = mkdtempSync(join(tmpdir(), 'platform-'));
    for (const [name, content] of Object.entries(platform.files ?? {})) {
      mkdirSync(dirname(join(this.root, name)), { recursive: true });
      writeFileSync(join(this.root, name), content);
    }
  }

  static async start(t: TestContext, platform: EmulatedPlatform, server?: () => Server): Promise<PlatformEmulator> {
    const emulator = new PlatformEmulator(platform);
    t.after(() => rmSync(emulator.root, { recursive: true, force: true }));
    const started = server?.() ?? createHttpServer(emulator.listener());
    const sockets = new Set<Socket>();
    started.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    });
    await new Promise<void>((resolve) => started.listen(0, '127.0.0.1', resolve));
    t.after(() => {
      for (const socket of sockets) socket.destroy();
      started.close();
    });
    emulator.port = (started.address() as AddressInfo).port;
    return emulator;
  }

  examine(wanted = 'auto', options: ExaminationOptions = {}): Promise<Examination> {
    return examinePlatform(wanted, { ...options, access: this.access });
  }

  readonly access: AccessTo = () => {
    const facts = readLocalFacts(this.root, this.platform.architecture ?? 'x64');
    return {
      facts,
      open: () => {
        const { access, close } = openAccess(this.root, facts, (address) => this.reach(address), this.limits);
        return { access: this.withPrograms(access), close };
      },
    };
  };

  private reach(address: string): readonly ServiceHost[] {
    const { address: own = '169.254.169.254' } = this.platform;
    if (own !== '*' && address !== own) {
      throw new PlatformError('unreachable', `no service at ${address}`);
    }
    return [{ host: '127.0.0.1', port: this.port }];
  }

  private withPrograms(access: PlatformAccess): PlatformAccess {
    const { programs = {} } = this.platform;
    return { ...access, run: (program, args) => Promise.resolve(programs[program]?.(args) ?? null) };
  }

  private listener(): RequestListener {
    return (request, response) => {
      this.requests.push(`${request.method} ${request.url}`);
      const { status, headers, body } = answerOf(this.platform.routes ?? {}, request);
      response.writeHead(status, { 'content-type': 'text/plain', ...headers });
      response.end(body);
    };
  }
}

/** What is there, or 404. */
export function answerOf(routes: Readonly<Record<string, Route>>, request: IncomingMessage): Required<Answered> {
  const route = routes[request.url ?? ''];
  const answer = typeof route === 'function' ? route(request) : route;
  if (answer === undefined) return { status: 404, headers: {}, body: 'Not Found' };
  const { status = 200, headers = {}, body = '' }: Answered = typeof answer === 'string' ? { body: answer } : answer;
  return { status, headers, body };
}

/** Only for requests that carry this header; 401 otherwise. */
export function needing(name: string, value: string, body: string): Route {
  return ({ headers }) => (headers[name] === value ? body : { status: 401 });
}

export function addresses({ facts }: Examination, scope: 'local' | 'public'): string[] {
  return (facts?.locators ?? []).filter((locator) => locator.scope === scope).map(({ address }) => address);
}

/** As /proc/net/route shows them. */
export function routeTable(
  ...list: readonly (readonly [device: string, to: string, via: string, length: number])[]
): string {
  const hex = (address: string): string =>
    Buffer.from(address.split('.').map(Number)).reverse().toString('hex').toUpperCase();
  const mask = (length: number): string => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(Number((0xffff_ffffn << BigInt(32 - length)) & 0xffff_ffffn));
    return hex([...bytes].reverse().join('.'));
  };
  return [
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
    ...list.map(([device, to, via, length]) =>
      [device, hex(to), hex(via), via === '0.0.0.0' ? '0001' : '0003', 0, 0, 0, mask(length), 0, 0, 0].join('\t'),
    ),
  ].join('\n');
}

function hang(): Server {
  return createHttpServer(() => undefined);
}

function answering(status: number, body: string, headers: Readonly<Record<string, string>> = {}): () => Server {
  return () =>
    createHttpServer((_, response) => {
      response.writeHead(status, headers);
      response.end(body);
    });
}

function raw(answer: (socket: Socket) => void): () => Server {
  return () => createServer((socket) => socket.once('data', () => answer(socket)));
}
