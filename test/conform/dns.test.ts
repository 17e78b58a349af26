/** The kit against our two name servers, which pass, and against a relay in front of one that spoils its answers. */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { describe, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { startDnsServer } from '../../agent/shell/dns-server.ts';
import type { NameResolver } from '../../agent/shell/name-resolver.ts';
import { dnsRole } from '../../conform/dns/subject.ts';
import type { Verdict } from '../../conform/engine.ts';
import { Pacer } from '../../conform/pacer.ts';
import type { Report } from '../../conform/report/report.ts';
import { runConformance } from '../../conform/run.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { InheritedSockets } from '../../runtime/inherited-sockets.ts';
import { TestOverlay } from '../mapserver/overlay.ts';

const ZONE = 'stayput.internal';

test('the agent’s name server passes the full profile', async (t) => {
  const report = await examine(await startAgentDns(t));
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome !== 'passed').map(line), []);
  assert.ok(report.checks.length >= 130, `${report.checks.length}`);
});

test('the map server’s zone passes the full profile', async (t) => {
  const overlay = new TestOverlay({ zone: { listen: [ZONE_LISTEN], transferAddresses: ['127.0.0.1/32'] } });
  await overlay.start();
  t.after(() => overlay.remove());
  await overlay.admin('POST', '/v1/zone/names', { name: 'db', addresses: ['10.77.0.5'] });
  // It answers an address 100 times a second.
  const report = await examine(parseHostPort(ZONE_LISTEN).port, [], 90, parseHostPort(ZONE_LISTEN).host);
  assert.deepEqual(report.checks.filter(({ outcome }) => outcome !== 'passed').map(line), []);
});

interface Fault {
  readonly what: string;
  /** What becomes of an answer; undefined: it is lost. */
  readonly spoil: (answer: Buffer, query: Buffer) => Buffer | undefined;
  readonly only: readonly string[];
  readonly fails: readonly string[];
}

const FAULTS: readonly Fault[] = [
  {
    what: 'answers in small letters',
    spoil: (answer) => mapped(answer, (octet, at) => (at >= 12 && octet >= 0x41 && octet <= 0x5a ? octet + 32 : octet)),
    only: ['DNS-ANS-01', 'DNS-ANS-02'],
    fails: ['DNS-ANS-017', 'DNS-ANS-019', 'DNS-ANS-020'],
  },
  {
    what: 'sends back the reserved bit',
    spoil: (answer, query) => mapped(answer, (octet, at) => (at === 3 ? octet | ((query[3] ?? 0) & 0x40) : octet)),
    only: ['DNS-ANS-00'],
    fails: ['DNS-ANS-009'],
  },
  {
    what: 'says NOERROR for names that do not exist',
    spoil: (answer) => mapped(answer, (octet, at) => (at === 3 && (octet & 0xf) === 3 ? octet & 0xf0 : octet)),
    only: ['DNS-ANS-02', 'DNS-ANS-03'],
    fails: [...Array.from({ length: 9 }, (_, at) => `DNS-ANS-0${21 + at}`), 'DNS-ANS-030'],
  },
  {
    what: 'answers what is an answer',
    spoil: (answer) => answer,
    only: ['DNS-ROB-00'],
    fails: ['DNS-ROB-004', 'DNS-ROB-005', 'DNS-ROB-006'],
  },
];

describe('a name server with one fault fails the checks of that and no others:', () => {
  for (const { what, spoil, only, fails } of FAULTS) {
    test(`it ${what}`, async (t) => {
      const relay = await Relay.start(await startAgentDns(t), spoil, what === 'answers what is an answer');
      t.after(() => relay.close());
      const report = await examine(relay.port, only);
      const failed = report.checks.filter(({ outcome }) => outcome !== 'passed');
      assert.deepEqual(
        failed.map(({ id }) => id),
        fails,
        failed.map(line).join('\n'),
      );
    });
  }
});

async function examine(
  port: number,
  only: readonly string[] = [],
  rate = 5_000,
  address = '127.0.0.1',
): Promise<Report> {
  const target = { address, port, family: 4 } as const;
  const pacer = new Pacer(rate);
  const common = { target, local: '127.0.0.1', zone: ZONE, name: `db.${ZONE}`, pacer, answerMs: 1_000, graceMs: 40 };
  return runConformance(dnsRole(common), { target, pacer, parallel: 8, only });
}

async function startAgentDns(t: TestContext): Promise<number> {
  const server = await startDnsServer({
    resolver: RESOLVER,
    inherited: new InheritedSockets([]),
    resolvConf: '/nonexistent/resolv.conf',
    cacheEntries: 100,
    zones: [],
    tlsAuthorities: null,
    queryLog: null,
    mapServer: 'ms.example',
    registry: new Registry(),
    log: pino({ level: 'silent' }),
    listen: ['127.0.0.1:0'],
    upstreams: [],
  });
  t.after(() => server.close());
  return parseHostPort(server.addresses[0] ?? '').port;
}

/** Hands each datagram on to a name server, and spoils what comes back. */
class Relay {
  readonly port: number;
  private readonly front: Socket;

  private constructor(front: Socket) {
    this.front = front;
    this.port = front.address().port;
  }

  static async start(server: number, spoil: Fault['spoil'], turnAnswers: boolean): Promise<Relay> {
    const front = createSocket('udp4');
    front.on('message', (query, client) => {
      const back = createSocket('udp4').unref();
      back.on('message', (answer) => {
        const spoilt = spoil(answer, query);
        if (spoilt !== undefined) front.send(spoilt, client.port, client.address);
        back.close();
      });
      const asked = turnAnswers ? mapped(query, (octet, at) => (at === 2 ? octet & 0x7f : octet)) : query;
      back.send(asked, server, '127.0.0.1');
    });
    front.bind(0, '127.0.0.1');
    await once(front, 'listening');
    return new Relay(front);
  }

  close(): void {
    this.front.close();
  }
}

function mapped(octets: Buffer, change: (octet: number, at: number) => number): Buffer {
  return Buffer.from([...octets].map(change));
}

function line({ id, title, outcome, seen }: Verdict): string {
  return `${id} ${title}: ${outcome}: ${seen}`;
}

const RESOLVER: NameResolver = {
  zone: ZONE,
  overlay: [],
  version: 1,
  resolveName: async (name) =>
    name === 'db' ? { kind: 'found', addresses: [parseIpAddress('10.77.0.5')], stale: false } : { kind: 'absent' },
  resolvePointer: async () => ({ kind: 'absent' }),
};

const ZONE_LISTEN = '127.77.44.1:15399';
