/** The native endpoint (docs/control-protocol.md): TLS 1.3, what strangers may ask, and how LISP sessions are refused. */
import { randomBytes } from 'node:crypto';
import { type Check, demand, group } from '../check.ts';
import type { Subject } from '../run.ts';
import { type HttpAnswer, type HttpAsked, NativeStage, type NativeSubject } from './stage.ts';

type Draft = Omit<Check<NativeStage>, 'id'>;

export function nativeRole(subject: NativeSubject): Subject<NativeStage> {
  const settings = { identity: 'none', 'own address': subject.local };
  return { role: 'native', checks: nativeChecks(), settings, stage: async () => new NativeStage(subject) };
}

export function nativeChecks(): readonly Check<NativeStage>[] {
  return [
    ...group('NAT-TLS', [...TLS, ...SUITES.map(suiteCheck), ...GARBAGE.map(garbageCheck)]),
    ...group('NAT-HTTP', [...OPEN, ...HIDDEN.map(hiddenCheck), ...REFUSED.map(refusedCheck)]),
    ...group('NAT-WS', UPGRADES.map(upgradeCheck)),
  ];
}

const SOURCE = 'control-protocol';

const TLS: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 8446',
    title: 'TLS 1.3 is spoken',
    sent: 'A TLS 1.3 handshake without a client certificate.',
    expected: 'A connection, as who joins has no certificate yet.',
    run: async (stage) => {
      const socket = await stage.tls({ minVersion: 'TLSv1.3' });
      demand(socket !== undefined, 'The handshake failed.');
      return `${socket.getProtocol()}, ${socket.getCipher().name}.`;
    },
  },
  {
    level: 'MUST',
    source: SOURCE,
    title: 'TLS 1.2 is refused',
    sent: 'A TLS 1.2 handshake.',
    expected: 'No connection, and newcomers are served afterwards.',
    run: async (stage) => {
      const socket = await stage.tls({ minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' });
      demand(socket === undefined, `A connection with ${socket?.getProtocol()}.`);
      await stage.fence();
      return 'The handshake failed.';
    },
  },
  {
    level: 'MUST',
    source: SOURCE,
    title: 'The certificate is issued by the authority that newcomers are told',
    sent: 'GET /v1/ca, then a TLS 1.3 handshake.',
    expected: 'A certificate that leads to the authority.',
    run: async (stage) => {
      const { body } = await stage.http({ path: '/v1/ca' });
      const { ca } = JSON.parse(body) as { ca: string };
      const socket = await stage.tls({ ca, rejectUnauthorized: true, checkServerIdentity: () => undefined });
      demand(socket?.authorized === true, 'The certificate does not lead to the authority.');
      return 'The certificate leads to the authority.';
    },
  },
];

const SUITES = ['TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256'] as const;

function suiteCheck(suite: (typeof SUITES)[number]): Draft {
  return {
    level: suite === 'TLS_AES_128_GCM_SHA256' ? 'MUST' : 'SHOULD',
    source: 'RFC 8446 9.1',
    title: `${suite} is accepted`,
    sent: `A TLS 1.3 handshake that offers ${suite} only.`,
    expected: 'A connection.',
    run: async (stage) => {
      demand((await stage.tls({ ciphers: suite })) !== undefined, 'The handshake failed.');
      return 'A connection.';
    },
  };
}

/** Stimuli: what is no TLS. */
const GARBAGE: readonly (readonly [string, Buffer])[] = [
  ['plain HTTP', Buffer.from('GET /v1/ca HTTP/1.1\r\nHost: a\r\n\r\n')],
  ['zeros', Buffer.alloc(512)],
  ['a TLS record that says 65,535 octets', Buffer.from('160301ffff010000', 'hex')],
  ['a LISP Map-Request', Buffer.from('10000001887766554433221100010a0101020001c0000214002000010a010101', 'hex')],
  ['SSH', Buffer.from('SSH-2.0-conform\r\n')],
];

function garbageCheck([what, octets]: (typeof GARBAGE)[number]): Draft {
  return {
    level: 'MUST',
    source: SOURCE,
    title: `${capital(what)} instead of TLS gets nothing in clear`,
    sent: `${capital(what)} on a new connection.`,
    expected: 'Nothing but a TLS alert, and newcomers are served afterwards.',
    run: async (stage) => {
      const socket = await stage.tcp();
      let seen = Buffer.alloc(0);
      socket.on('data', (part: Buffer) => {
        seen = Buffer.concat([seen, part]);
      });
      socket.write(octets);
      await stage.fence();
      demand(seen.length === 0 || seen[0] === 0x15, `${seen.length} octets that are no alert.`);
      return seen.length === 0 ? 'Nothing.' : 'A TLS alert.';
    },
  };
}

const OPEN: readonly Draft[] = [
  {
    level: 'MUST',
    source: SOURCE,
    title: 'A newcomer can read the authority',
    sent: 'GET /v1/ca.',
    expected: '200 and JSON with a certificate in PEM.',
    run: async (stage) => {
      const { status, body } = await stage.http({ path: '/v1/ca' });
      demand(status === 200 && /"ca":\s*"-----BEGIN CERTIFICATE/.test(body), `${status} ${body.slice(0, 80)}`);
      return '200 with a certificate.';
    },
  },
  {
    level: 'MUST',
    source: SOURCE,
    title: 'Several questions go over one connection',
    sent: 'GET /v1/ca twice over one connection.',
    expected: '200 twice.',
    run: async (stage) => {
      const socket = await stage.tls();
      const first = await stage.http({ path: '/v1/ca', headers: { connection: 'keep-alive' } }, socket);
      const second = await stage.http({ path: '/v1/ca', headers: { connection: 'keep-alive' } }, socket);
      demand(first.status === 200 && second.status === 200, `${first.status} and ${second.status}.`);
      return '200 twice.';
    },
  },
];

/** Stimuli: what only administrators may ask, on a socket of their own. */
const HIDDEN: readonly (readonly [method: string, path: string])[] = [
  ['GET', '/v1/status'],
  ['GET', '/v1/tokens'],
  ['POST', '/v1/tokens'],
  ['GET', '/v1/agents'],
  ['DELETE', '/v1/agents/00000000000000000000000000000000'],
  ['GET', '/v1/eids'],
  ['POST', '/v1/eids'],
  ['POST', '/v1/moves'],
  ['GET', '/v1/names'],
  ['GET', '/v1/zone'],
  ['GET', '/v1/grants'],
  ['POST', '/v1/grants'],
  ['GET', '/v1/authority'],
  ['POST', '/v1/authority/rotate'],
  ['GET', '/v1/policy'],
  ['POST', '/v1/policy'],
  ['GET', '/v1/sites'],
  ['POST', '/v1/sites'],
  ['GET', '/metrics'],
];

function hiddenCheck([method, path]: (typeof HIDDEN)[number]): Draft {
  return {
    level: 'MUST',
    source: SOURCE,
    title: `${method} ${path} is not there for strangers`,
    sent: `${method} ${path} without a certificate.`,
    expected: '401, 403, 404 or 405.',
    run: (stage) =>
      statusOf(stage, { method, path, ...(method === 'GET' ? {} : { body: '{}' }) }, [401, 403, 404, 405]),
  };
}

interface Refused {
  readonly what: string;
  readonly asked: HttpAsked;
  readonly statuses: readonly number[];
}

const ENROL = { method: 'POST', path: '/v1/enrol' };
const NO_TOKEN = JSON.stringify({
  token: 'stp1.bm90aGluZw',
  csr: 'x',
  tunnelKey: 'x',
  eids: [],
  names: [],
  software: 'x',
});

const REFUSED: readonly Refused[] = [
  { what: 'an unknown path', asked: { path: '/conform' }, statuses: [404] },
  { what: 'the root', asked: { path: '/' }, statuses: [404] },
  { what: 'a path that climbs', asked: { path: '/v1/../../etc/passwd' }, statuses: [400, 404] },
  { what: 'a path with wrong escapes', asked: { path: '/v1/%zz%' }, statuses: [400, 404] },
  { what: 'a path of 8,000 octets', asked: { path: `/v1/${'a'.repeat(8_000)}` }, statuses: [400, 404, 414, 431] },
  { what: 'DELETE of the authority', asked: { method: 'DELETE', path: '/v1/ca' }, statuses: [404, 405] },
  { what: 'an enrolment without a body', asked: ENROL, statuses: [400, 411, 415] },
  { what: 'an enrolment that is no JSON', asked: { ...ENROL, body: '{' }, statuses: [400] },
  { what: 'an enrolment with nothing in it', asked: { ...ENROL, body: '{}' }, statuses: [400, 401] },
  { what: 'an enrolment that is an array', asked: { ...ENROL, body: '[]' }, statuses: [400, 401] },
  { what: 'an enrolment that is nested 10,000 deep', asked: { ...ENROL, body: '['.repeat(10_000) }, statuses: [400] },
  { what: 'an enrolment with a token that there is not', asked: { ...ENROL, body: NO_TOKEN }, statuses: [400, 401] },
  {
    what: 'an enrolment of 70,000 octets',
    asked: { ...ENROL, body: JSON.stringify({ token: 'a'.repeat(70_000) }) },
    statuses: [400, 413],
  },
  { what: 'a renewal without a certificate', asked: { method: 'POST', path: '/v1/renew' }, statuses: [401] },
];

function refusedCheck({ what, asked, statuses }: Refused): Draft {
  return {
    level: 'MUST',
    source: SOURCE,
    title: `${capital(what)} is refused`,
    sent: `${capital(what)}.`,
    expected: `${statuses.join(' or ')}, and newcomers are served afterwards.`,
    run: async (stage) => {
      const seen = await statusOf(stage, asked, statuses);
      await stage.fence();
      return seen;
    },
  };
}

interface Upgrade {
  readonly what: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly without?: string;
  readonly statuses: readonly number[];
}

const UPGRADES: readonly Upgrade[] = [
  { what: 'without a certificate', statuses: [401] },
  {
    what: 'with an incarnation and without a certificate',
    headers: { 'stayput-incarnation': '1.0123456789abcdef.1' },
    statuses: [401],
  },
  { what: 'of another path', path: '/', statuses: [404] },
  { what: 'of a path below', path: '/lisp/x', statuses: [404] },
  { what: 'without a subprotocol', without: 'sec-websocket-protocol', statuses: [400] },
  { what: 'with another subprotocol', headers: { 'sec-websocket-protocol': 'chat' }, statuses: [400] },
  { what: 'without a capability', without: 'stayput-capability', statuses: [426, 400] },
  { what: 'with a capability far ahead', headers: { 'stayput-capability': '9999' }, statuses: [426] },
  { what: 'with a capability that is no number', headers: { 'stayput-capability': 'x' }, statuses: [426, 400] },
  { what: 'with an old version of WebSocket', headers: { 'sec-websocket-version': '7' }, statuses: [400, 401, 426] },
  { what: 'without a key', without: 'sec-websocket-key', statuses: [400, 401] },
  { what: 'to another protocol', headers: { upgrade: 'h2c' }, statuses: [400, 401, 404, 426] },
];

function upgradeCheck({ what, path = '/lisp', headers = {}, without, statuses }: Upgrade): Draft {
  return {
    level: 'MUST',
    source: SOURCE,
    title: `An upgrade ${what} is refused`,
    sent: `A WebSocket upgrade ${what}${what.includes('certificate') ? '' : ', and without a certificate'}.`,
    expected: `${statuses.join(' or ')}, no session, and newcomers are served afterwards.`,
    run: async (stage) => {
      // The server says its capability in each refusal, so a kit of any version asks with the right one.
      const said = (await stage.http(upgrade(path, {}))).headers['stayput-capability'];
      const all = { 'stayput-capability': typeof said === 'string' ? said : '1', ...headers };
      const kept = Object.entries(upgrade(path, all).headers ?? {}).filter(([name]) => name !== without);
      const seen = await statusOf(stage, { path, headers: Object.fromEntries(kept) }, statuses);
      await stage.fence();
      return seen;
    },
  };
}

function upgrade(path: string, headers: Readonly<Record<string, string>>): HttpAsked {
  return {
    path,
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': randomBytes(16).toString('base64'),
      'sec-websocket-protocol': 'lisp.stayput',
      ...headers,
    },
  };
}

async function statusOf(stage: NativeStage, asked: HttpAsked, statuses: readonly number[]): Promise<string> {
  const { status, body }: HttpAnswer = await stage.http(asked);
  demand(statuses.includes(status), `${status} ${body.slice(0, 120)}`);
  return `${status}.`;
}

function capital(text: string): string {
  return `${text[0]?.toUpperCase()}${text.slice(1)}`;
}
