/**
 * JSON over HTTP: a small router for the daemons' APIs (TLS port, admin sockets) and a client for the CLI.
 * Bodies and answers are JSON; errors are `{"error":{"code","message"}}`.
 */
import { request as httpRequest, type IncomingMessage, type RequestOptions, type ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import { StayputError } from '../proto/errors.ts';
import { firstIssue } from './json-file.ts';

const MAX_BODY = 1024 * 1024;
const MAX_ANSWER = 64 * 1024 * 1024;

export class ApiError extends StayputError {
  readonly status: number;

  constructor(status: number, code: string, message: string, options?: ErrorOptions) {
    super(code, message, options);
    this.status = status;
  }
}

export interface ApiRequest {
  /** Values of the `:name` parts of the route, decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** The parsed JSON body; undefined without one. */
  readonly body: unknown;
  readonly raw: IncomingMessage;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** e.g. `/v1/tokens/:id` */
  readonly path: string;
  /** The returned value becomes the JSON answer with status 200. @throws ApiError for any other status */
  readonly handle: (request: ApiRequest) => unknown;
}

/** A request listener for node:http(s) over the routes. Unexpected errors give 500 and go to `onError`. */
export function apiListener(
  routes: readonly Route[],
  onError: (error: unknown) => void,
  maxBody = MAX_BODY,
): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    answer(routes, request, maxBody).then(
      (result) => send(response, 200, result ?? {}),
      (error: unknown) => {
        if (error instanceof ApiError) return send(response, error.status, errorBody(error.code, error.message));
        if (error instanceof StayputError) return send(response, 400, errorBody(error.code, error.message));
        onError(error);
        return send(response, 500, errorBody('STAYPUT_INTERNAL', 'internal error; see the daemon log'));
      },
    );
  };
}

/** Validates a body or query. @throws ApiError 400 naming the field */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new ApiError(400, 'STAYPUT_BAD_REQUEST', firstIssue(parsed.error));
}

/** Where an API is: a Unix socket, or a host and port over TLS. */
export type ApiTarget =
  | { readonly socketPath: string }
  | {
      readonly host: string;
      readonly port: number;
      /** PEM to verify the server with. Without it, the caller must check `onPeer` before it trusts the answer. */
      readonly ca?: string;
      readonly onPeer?: (socket: TLSSocket) => void;
      /** PEM of the caller, for an API that asks who calls. */
      readonly certificate?: string;
      readonly privateKey?: string;
    };

/** One call. @throws ApiError with the server's code and message, or STAYPUT_UNREACHABLE / STAYPUT_TIMEOUT (status 0) */
export function callApi(
  target: ApiTarget,
  method: Route['method'],
  path: string,
  options: { readonly body?: unknown; readonly timeoutMs?: number } = {},
): Promise<unknown> {
  const text = options.body === undefined ? undefined : JSON.stringify(options.body);
  const common: RequestOptions = {
    method,
    path,
    agent: false,
    timeout: options.timeoutMs ?? 10_000,
    headers: {
      accept: 'application/json',
      ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    },
  };
  return new Promise((resolve, reject) => {
    const outgoing =
      'socketPath' in target
        ? httpRequest({ ...common, socketPath: target.socketPath })
        : httpsRequest({
            ...common,
            host: target.host,
            port: target.port,
            minVersion: 'TLSv1.3',
            ...(target.ca === undefined ? { rejectUnauthorized: false } : trusting(target.ca)),
            ...(target.certificate === undefined ? {} : { cert: target.certificate, key: target.privateKey }),
          });
    if (!('socketPath' in target) && target.onPeer !== undefined) {
      const { onPeer } = target;
      outgoing.on('socket', (socket) => {
        socket.once('secureConnect', () => {
          try {
            onPeer(socket as TLSSocket);
          } catch (error) {
            outgoing.destroy(error as Error);
          }
        });
      });
    }
    outgoing.on('timeout', () => outgoing.destroy(new ApiError(0, 'STAYPUT_TIMEOUT', 'no answer in time')));
    outgoing.on('error', (cause) => {
      reject(
        cause instanceof StayputError
          ? cause
          : new ApiError(0, 'STAYPUT_UNREACHABLE', `cannot be reached (${cause.message})`, { cause }),
      );
    });
    outgoing.on('response', (incoming) => {
      readAll(incoming, MAX_ANSWER)
        .then((answerText) => {
          const value = parseAnswer(answerText);
          const status = incoming.statusCode ?? 0;
          if (status >= 200 && status < 300) return resolve(value);
          const error = ERROR_BODY.safeParse(value);
          return reject(
            new ApiError(
              status,
              error.success ? error.data.error.code : 'STAYPUT_HTTP',
              error.success ? error.data.error.message : `HTTP status ${status}`,
            ),
          );
        })
        .catch((error: unknown) => {
          outgoing.destroy();
          reject(error);
        });
    });
    outgoing.end(text);
  });
}

/** Each certificate in `ca` is trusted itself, also one that is not self-signed. The types do not know the option yet. */
function trusting(ca: string): RequestOptions & { readonly ca: string } {
  return { ca, allowPartialTrustChain: true } as RequestOptions & { readonly ca: string };
}

const ERROR_BODY = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

async function answer(routes: readonly Route[], request: IncomingMessage, maxBody: number): Promise<unknown> {
  const url = parseUrl(request.url ?? '/');
  const candidates = routes
    .map((route) => ({ route, params: matchPath(route.path, url.pathname) }))
    .filter((candidate) => candidate.params !== undefined);
  if (candidates.length === 0)
    throw new ApiError(404, 'STAYPUT_NOT_FOUND', `there is no ${url.pathname.slice(0, 100)}`);
  const match = candidates.find((candidate) => candidate.route.method === request.method);
  if (match?.params === undefined) throw new ApiError(405, 'STAYPUT_METHOD', `${request.method} is not possible here`);
  const text = await readAll(request, maxBody);
  let body: unknown;
  try {
    body = text === '' ? undefined : JSON.parse(text);
  } catch (cause) {
    throw new ApiError(400, 'STAYPUT_BAD_REQUEST', 'the body is not JSON', { cause });
  }
  return match.route.handle({ params: match.params, query: url.searchParams, body, raw: request });
}

function matchPath(pattern: string, path: string): Record<string, string> | undefined {
  const wanted = pattern.split('/');
  const got = path.split('/');
  if (wanted.length !== got.length) return undefined;
  const params: Record<string, string> = {};
  for (const [i, part] of wanted.entries()) {
    const value = got[i] ?? '';
    if (!part.startsWith(':')) {
      if (part !== value) return undefined;
      continue;
    }
    try {
      params[part.slice(1)] = decodeURIComponent(value);
    } catch {
      return undefined;
    }
  }
  return params;
}

function parseUrl(text: string): URL {
  try {
    return new URL(text, 'http://localhost');
  } catch (cause) {
    throw new ApiError(400, 'STAYPUT_BAD_REQUEST', 'the address is not a URL', { cause });
  }
}

function parseAnswer(text: string): unknown {
  try {
    return text === '' ? {} : JSON.parse(text);
  } catch (cause) {
    throw new ApiError(0, 'STAYPUT_HTTP', 'the answer is not JSON: is it the right port?', { cause });
  }
}

async function readAll(incoming: IncomingMessage, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    // Not destroyed when there is too much: the refusal still has to go out on the same connection.
    for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
      const bytes = chunk as Buffer;
      size += bytes.length;
      if (size > limit) throw new ApiError(413, 'STAYPUT_TOO_LARGE', `more than ${limit} octets`);
      chunks.push(bytes);
    }
  } catch (cause) {
    if (cause instanceof StayputError) throw cause;
    throw new ApiError(400, 'STAYPUT_BROKEN_OFF', 'the other end broke off', { cause });
  }
  return Buffer.concat(chunks).toString('utf8');
}

function send(response: ServerResponse, status: number, value: unknown): void {
  if (response.headersSent || response.destroyed) return;
  const text = `${JSON.stringify(value)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    ...(status === 413 ? { connection: 'close' } : {}),
  });
  response.end(text);
}

function errorBody(code: string, message: string): unknown {
  return { error: { code, message } };
}
