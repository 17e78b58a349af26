/**
 * A program: the metadata service of one platform after the other, on port 80 of every address of its namespace. Which,
 * with which fault and with which answers changed, is told on port 8080 (`POST`, JSON); what was asked is listed there.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type Server as AnyServer, createServer as createSocketServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { answerOf, type EmulatedPlatform, FAULTS, type Route } from './emulator.ts';
import { PLATFORMS } from './platforms.ts';

/** What is served from now on. */
export interface Told {
  readonly platform: string;
  readonly fault?: keyof typeof FAULTS;
  readonly routes?: Readonly<Record<string, string>>;
}

let platform: EmulatedPlatform = {};
let routes: Readonly<Record<string, Route>> = {};
let faulty: AnyServer | null = null;
let version = 0;
let requests: string[] = [];
const waiting: (() => void)[] = [];

const service = createServer((request, response) => {
  requests.push(`${request.method} ${request.url} ${request.headers.host}`);
  const url = new URL(request.url ?? '/', 'http://service');
  if (url.searchParams.get('last_etag') !== String(version)) answer(request, response);
  else waiting.push(() => answer(request, response));
});

/** That of Google says in what version its answer is, and waits for another where it is asked to. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  request.url = request.url?.replace(/&wait_for_change=.*$/, '') ?? '/';
  const { status, headers, body } = answerOf(routes, request);
  response.writeHead(status, headers.etag === undefined ? headers : { ...headers, etag: String(version) });
  response.end(body);
}

const control = createServer((request, response) => {
  if (request.method === 'GET') {
    response.end(JSON.stringify(requests));
    return;
  }
  void text(request).then((body) => {
    const told = JSON.parse(body) as Told;
    platform = PLATFORMS[told.platform] ?? {};
    routes = { ...platform.routes, ...Object.fromEntries(Object.entries(told.routes ?? {}).map(changed)) };
    faulty = told.fault === undefined ? null : FAULTS[told.fault]();
    version += 1;
    requests = [];
    for (const go of waiting.splice(0)) go();
    response.end('{}');
  });
});

/** Another body where the service goes on to want the same of a request. */
function changed([path, body]: [string, string]): [string, Route] {
  const before = platform.routes?.[path];
  if (typeof before !== 'function') return [path, body];
  return [
    path,
    (request) => {
      const was = before(request);
      if (typeof was !== 'object') return was === undefined ? undefined : body;
      return was.status === undefined || was.status === 200 ? { ...was, body } : was;
    },
  ];
}

createSocketServer((socket) => {
  socket.on('error', () => undefined);
  (faulty ?? service).emit('connection', socket);
}).listen(80, '::', () => {
  control.listen(8080, '127.0.0.1', () => process.stdout.write('serving\n'));
});
