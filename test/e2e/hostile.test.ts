/**
 * Those who may not: on the path, off the path, with a wrong token, a wrong certificate or no grant. Everything is
 * refused and counted, and an ordinary TCP connection beside it notices nothing (its longest gap is asserted).
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Capture } from '../lab/capture.ts';
import type { Attachment } from '../lab/internet.ts';
import type { ExecResult, Host } from '../lab/lab.ts';
import { type MapServer, type Metrics, waitForIncrease } from '../lab/overlay.ts';
import { selfSigned } from '../lab/self-signed.ts';
import { ByteStream } from '../lab/traffic/bytes.ts';
import { startServer, Traffic } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const HOSTILE = fileURLToPath(new URL('../lab/traffic/hostile.js', import.meta.url));
const MARKER = 'the-inner-text-nobody-else-may-read';
const DATA_PORT = 4341;
const CONTROL_PORT = 4342;
const NOTICED_GAP_MS = 2_000;

describe('hostile neighbours', () => {
  let world: World;
  let attacker: Attachment;
  let traffic: Traffic;

  before(async () => {
    world = await World.build({ name: 'hostile', internet: { families: [4] } });
    attacker = await world.internet.attach('attacker', 'b');
    await startServer(world.vm.host, VM_EID);
  });
  after(() => world?.close());

  beforeEach(async () => {
    traffic = await Traffic.start(world.client.host, {
      address: VM_EID,
      url: `http://${VM_EID}`,
      downloadBytes: 400_000,
      downloadRate: 400_000,
      datagramsPerSecond: 100,
    });
  });
  afterEach(async () => {
    const result = await traffic.finish();
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.udpDuplicated, 0);
    assert.ok(result.tcpLongestGapMs < NOTICED_GAP_MS, `TCP gap of ${result.tcpLongestGapMs} ms`);
  });

  // Attack: nothing; every packet between two hosts is captured on the way | at least 40 packets | LISP headers and
  // ciphertext; neither the contents nor an inner address is found
  it('attack: reading the packets on the path', async () => {
    const capture = await Capture.start(world.internet.core, 'to-a');
    const { stdout } = await world.client.host.exec([
      'curl',
      '-sS',
      '--max-time',
      '5',
      `http://${VM_EID}/hello?${MARKER}`,
    ]);
    assert.match(stdout, /^hello from/);
    const seen = () => capture.datagrams().filter(({ destinationPort }) => destinationPort === DATA_PORT);
    await waitFor('40 datagrams captured', () => seen().length >= 40);
    const bytes = await capture.stop();
    assert.equal(bytes.includes(MARKER), false);
    assert.equal(bytes.includes('hello from'), false);
    const protocols = await world.internet.core.exec([
      ...['tshark', '-n', '-r', capture.file, '-Y', `udp.port == ${DATA_PORT}`, '-T', 'fields'],
      ...['-e', 'frame.protocols', '-E', 'occurrence=f'],
    ]);
    const lisp = protocols.stdout.split('\n').filter((line) => line.includes('lisp-data'));
    assert.ok(lisp.length > 20, `${lisp.length} packets that tshark takes for LISP data`);
    for (const { payload } of seen()) assert.equal(payload[0], 0x89, 'N, I and KK are set');
    assert.equal(bytes.includes(Buffer.from(VM_EID.split('.').map(Number))), false, 'an inner address in the clear');
  });

  // Attack: data packets captured at the receiver, from another address | up to 500 | dropped as replays and counted;
  // the session does not move to the sender; traffic goes on
  it('attack: captured packets sent again from elsewhere', async () => {
    const filter = `udp and dst port ${DATA_PORT} and src host ${world.client.at.address4}`;
    const capture = await Capture.start(world.vm.host, 'eth0', { filter });
    await waitFor('100 datagrams captured', () => capture.datagrams().length >= 100);
    await capture.stop();
    const captured = capture.datagrams().map(({ payload }) => payload);
    const before = await world.vm.metrics();
    await throwAt(attacker.host, ['udp', world.vm.at.address4, DATA_PORT], captured.slice(0, 500));
    await grows(world.vm, before, /drops_total\{.*reason="replay"/, 20);
    const { stdout } = await world.vm.stayput(['peers', '--json']);
    assert.equal(stdout.includes(attacker.address4), false);
  });

  // Attack: captured data packets with a counter far ahead | up to 200 | dropped by authentication and counted;
  // traffic goes on
  it('attack: packets forged from captured ones', async () => {
    const filter = `udp and dst port ${DATA_PORT} and src host ${world.client.at.address4}`;
    const capture = await Capture.start(world.vm.host, 'eth0', { filter });
    await waitFor('100 datagrams captured', () => capture.datagrams().length >= 100);
    await capture.stop();
    const forged = capture
      .datagrams()
      .slice(0, 200)
      .map(({ payload }) => {
        const copy = Buffer.from(payload);
        // A counter far ahead, so that only the authentication can tell.
        if (copy.length > 16) copy.writeUInt32BE((copy.readUInt32BE(12) + 100_000) >>> 0, 12);
        return copy;
      });
    const before = await world.vm.metrics();
    await throwAt(attacker.host, ['udp', world.vm.at.address4, DATA_PORT], forged);
    await grows(world.vm, before, /drops_total\{.*reason="auth"/, 20);
  });

  // Attack: random octets, half of them behind a LISP header, to 4341/udp and 4342/udp | 700 | dropped and counted;
  // traffic goes on
  it('attack: random octets on the UDP ports', async () => {
    const before = await world.vm.metrics();
    await throwAt(
      attacker.host,
      ['udp', world.vm.at.address4, DATA_PORT],
      [...garbage(300), ...garbage(300, LISP_HEADER)],
    );
    await throwAt(attacker.host, ['udp', world.vm.at.address4, CONTROL_PORT], garbage(50));
    await throwAt(attacker.host, ['udp', address(world), CONTROL_PORT], garbage(50));
    await grows(world.vm, before, /drops_total\{/, 200);
  });

  // Attack: random octets, TLS headers with garbage, broken HTTP | more than 80 connections | closed and counted; all
  // sessions stay
  it('attack: random octets on the control port', async () => {
    const before = await world.overlay.mapServer.metrics();
    await throwAt(
      attacker.host,
      ['tcp', address(world), CONTROL_PORT],
      [...garbage(40), ...garbage(40, TLS_HEADER), ...HTTP_GARBAGE],
    );
    await waitForIncrease('refusals', () => world.overlay.mapServer.metrics(), before, /rejected_total/);
    const after_ = await world.overlay.mapServer.metrics();
    assert.equal(after_.get('stayput_mapserver_sessions'), before.get('stayput_mapserver_sessions'));
  });

  // Attack: random octets and broken HTTP to DNS, metrics and both Unix sockets | more than 400 | agent and data plane
  // go on and answer
  it('attack: random octets on the local sockets', async () => {
    const { host } = world.client;
    await throwAt(host, ['udp', '127.0.0.1', 53], garbage(200));
    await throwAt(host, ['tcp', '127.0.0.1', 53], garbage(40));
    await throwAt(host, ['tcp', '127.0.0.1', 9341], [...garbage(40), ...HTTP_GARBAGE]);
    await throwAt(host, ['unix', world.client.socket], [...garbage(40), ...HTTP_GARBAGE]);
    await throwAt(host, ['unix', world.client.dataplaneSocket], garbage(40));
    await throwAt(world.overlay.mapServer.host, ['tcp', '127.0.0.1', 9342], [...garbage(40), ...HTTP_GARBAGE]);
    await world.client.ready();
    assert.equal((await host.exec(['dig', '+short', `vm.${world.overlay.zone}`])).stdout.trim(), VM_EID);
    await world.client.stayput(['ping', VM_EID, '-c', '1']);
  });

  // Attack: enrolments with tokens that are spent, changed, malformed, of another CA, or that do not cover the EID | 5
  // | each refused with one line and counted; nobody is enrolled
  it('attack: join tokens that are spent, changed, of another map server or too narrow', async () => {
    const { mapServer } = world.overlay;
    const before = await mapServer.metrics();
    const spent = await mapServer.createToken(['10.77.0.40/32'], []);
    const first = await tryToJoin(attacker.host, 'first', mapServer, spent, '10.77.0.40/32');
    assert.equal(first.code, 0, first.stderr);
    const again = await tryToJoin(attacker.host, 'again', mapServer, spent, '10.77.0.40/32');
    refused(again);
    const parts = JSON.parse(Buffer.from(spent.slice('stp1.'.length), 'base64url').toString()) as {
      f: string;
      s: string;
    };
    const wrongSecret = tokenText({ ...parts, s: Buffer.alloc(24, 7).toString('base64url') });
    refused(await tryToJoin(attacker.host, 'secret', mapServer, wrongSecret, '10.77.0.40/32'));
    const wrongCa = tokenText({ ...parts, f: '00'.repeat(32) });
    refused(await tryToJoin(attacker.host, 'ca', mapServer, wrongCa, '10.77.0.40/32'));
    refused(await tryToJoin(attacker.host, 'text', mapServer, 'stp1.nonsense', '10.77.0.40/32'));
    const narrow = await mapServer.createToken(['10.77.0.41/32'], []);
    refused(await tryToJoin(attacker.host, 'wide', mapServer, narrow, VM_EID));
    await waitForIncrease(
      'refused enrolments',
      () => mapServer.metrics(),
      before,
      /enrolments_total\{result="(?!ok)/,
      3,
    );
  });

  // Attack: `eid attach` of an EID that is owned elsewhere and not granted | 1 | refused as not granted and counted;
  // the owner keeps it and is reached
  it('attack: the EID of another agent', async () => {
    const { mapServer } = world.overlay;
    const before = await mapServer.metrics();
    const attempt = await world.client.stayput(['eid', 'attach', `${VM_EID}/32`], { anyExit: true });
    assert.notEqual(attempt.code, 0, attempt.stdout);
    await waitForIncrease('refusal', () => mapServer.metrics(), before, /registrations_total\{result="not-granted"/);
    await world.client.stayput(['ping', VM_EID, '-c', '1']);
  });

  // Attack: WebSocket upgrades without a client certificate and with one of another CA | 2 | no session; counted
  it('attack: the control channel with no certificate or a foreign one', async () => {
    const { mapServer } = world.overlay;
    const before = await mapServer.metrics();
    const dir = attacker.host.dir;
    const foreign = selfSigned('nobody', [
      { name: 'subjectAltName', altNames: [{ type: 6, value: 'urn:stayput:agent:00000000000000000000000000000001' }] },
    ]);
    writeFileSync(join(dir, 'cert.pem'), foreign.cert);
    writeFileSync(join(dir, 'key.pem'), foreign.key);
    const upgrade = [
      ...[
        'curl',
        '-sk',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        '--http1.1',
        '--max-time',
        '3',
        `${mapServer.url}/lisp`,
      ],
      ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'].flatMap((header) => ['-H', header]),
      ...['-H', 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==', '-H', 'Sec-WebSocket-Protocol: lisp.stayput'],
      ...['-H', 'stayput-capability: 1'],
    ];
    const certificate = ['--cert', join(dir, 'cert.pem'), '--key', join(dir, 'key.pem')];
    for (const credentials of [[], certificate]) {
      const { stdout } = await attacker.host.exec([...upgrade, ...credentials], { anyExit: true });
      assert.equal(stdout, '401');
    }
    await waitForIncrease('refusals', () => mapServer.metrics(), before, /rejected_total/);
    const after_ = await mapServer.metrics();
    assert.equal(after_.get('stayput_mapserver_sessions'), before.get('stayput_mapserver_sessions'));
  });
});

const LISP_HEADER = Buffer.from('8900000000000000', 'hex');
const TLS_HEADER = Buffer.from('1603010200010001fc0303', 'hex');
const HTTP_GARBAGE = [
  Buffer.from('GET /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n'),
  Buffer.from(`GET /${'a'.repeat(60_000)} HTTP/1.1\r\n\r\n`),
  Buffer.from('POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{"a":'),
];

const stream = new ByteStream();

function garbage(count: number, head: Buffer = Buffer.alloc(0)): Buffer[] {
  return Array.from({ length: count }, (_, i) => Buffer.concat([head, stream.next(1 + ((i * 37) % 1200))]));
}

async function throwAt(from: Host, to: readonly (string | number)[], messages: readonly Buffer[]): Promise<void> {
  const input = messages.map((message) => `${message.toString('hex')}\n`).join('');
  await from.exec([process.execPath, HOSTILE, ...to.map(String)], { input });
}

function grows(agent: World['vm'], before: Metrics, series: RegExp, least: number): Promise<number> {
  return waitForIncrease(`${series} to grow by ${least}`, () => agent.metrics(), before, series, least);
}

function address(world: World): string {
  return new URL(world.overlay.mapServer.url).hostname;
}

function tryToJoin(host: Host, name: string, mapServer: MapServer, token: string, eid: string): Promise<ExecResult> {
  const config = join(host.dir, `${name}.json`);
  writeFileSync(config, JSON.stringify({ stateDir: join(host.dir, name) }));
  const main = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
  return host.exec(
    [process.execPath, main, 'agent', 'join', mapServer.url, '--token', token, '--eid', eid, '--config', config],
    { anyExit: true },
  );
}

function refused({ code, stderr }: ExecResult): void {
  assert.ok(code === 1 || code === 2, `exit code ${code}: ${stderr}`);
  assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
  assert.match(stderr, /^stayput: /);
}

function tokenText(parts: { readonly f: string; readonly s: string }): string {
  return `stp1.${Buffer.from(JSON.stringify(parts)).toString('base64url')}`;
}
