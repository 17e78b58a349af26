/** What a policy lets through between two hosts, with the programs that people use. The tests are the agents. Budget: 60 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { parseIpPrefix } from '../../proto/address.ts';
import type { Generation } from '../../proto/mapping.ts';
import type { PolicyAction, PolicyRule } from '../../proto/policy.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startHeartbeat, startServer } from '../lab/traffic.ts';
import { DataPlane } from './data-plane.ts';
import { requireLab } from './require.ts';

requireLab();

const FAMILIES = [
  { family: 4, client: '10.77.0.1', server: '10.77.0.2', prohibited: /No route to host/, filtered: /Packet filtered/ },
  {
    family: 6,
    client: 'fd77::1',
    server: 'fd77::2',
    prohibited: /Permission denied/,
    filtered: /[Aa]dministratively prohibited/,
  },
] as const;
const TCP = 6;
const UDP = 17;
const ICMP = 1;
/** curl: failed to connect, and timed out. */
const REFUSED = 7;
const TIMED_OUT = 28;

describe('two hosts with a policy', () => {
  let lab: Lab;
  let client: DataPlane;
  let server: DataPlane;
  let version = 0;

  before(async () => {
    const binary = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'policy' });
    const [a, b] = [await lab.host('client'), await lab.host('server')];
    await lab.cable(a, 'eth0', b, 'eth0');
    await a.ip(['addr add 192.0.2.1/24 dev eth0']);
    await b.ip(['addr add 192.0.2.2/24 dev eth0']);
    [client, server] = await Promise.all([DataPlane.start(a, binary, 1), DataPlane.start(b, binary, 2)]);
    client.meet(server, '192.0.2.2');
    server.meet(client, '192.0.2.1');
    const generation = 1 as Generation;
    for (const [own, other, side] of [
      [client, server, 'client'],
      [server, client, 'server'],
    ] as const) {
      for (const { [side]: here, [side === 'client' ? 'server' : 'client']: there } of FAMILIES) {
        const local = { prefix: parseIpPrefix(here), generation, interface: null, redirectFrom: null } as const;
        own.tell({ type: 'local-eid-set', ...local });
        const mapping = { prefix: parseIpPrefix(there), generation, action: 'forward' } as const;
        own.tell({ type: 'mapping-set', ...mapping, publicKey: other.publicKey });
      }
      await own.done();
    }
    for (const { client: address } of FAMILIES) await startServer(a, address);
    for (const { server: address } of FAMILIES) await startServer(b, address);
  });
  after(async () => {
    client?.close();
    server?.close();
    await lab?.close();
  });

  const enforce = async (where: readonly DataPlane[], byDefault: PolicyAction, rules: readonly PolicyRule[]) => {
    version += 1;
    for (const each of where) each.tell({ type: 'policy-set', version, default: byDefault, rules });
    for (const each of where) assert.equal((await each.done()).gauges.policy_version, version);
  };
  /** From the client to the server, in both families. */
  const allow = (protocol: number, ...ports: number[]): PolicyRule => ({
    action: 'allow',
    source: FAMILIES.map((each) => parseIpPrefix(each.client)),
    destination: FAMILIES.map((each) => parseIpPrefix(each.server)),
    protocol,
    ports: ports.map((port) => [port, port] as const),
  });
  const drops = async (of: DataPlane, reason: string) => (await of.done()).counters[`drop.${reason}`] ?? 0;
  const curl = async (from: DataPlane, address: string, path = '/hello', port = 80) => {
    const host = address.includes(':') ? `[${address}]` : address;
    const argv = ['curl', '-sS', '--globoff', '--connect-timeout', '5', `http://${host}:${port}${path}`];
    return await from.host.exec(argv, { anyExit: true });
  };

  for (const { family, client: here, server: there, prohibited, filtered } of FAMILIES) {
    it(`lets through what it allows and says at once what it prohibits, in IPv${family}`, async () => {
      await enforce([client, server], 'deny', [allow(TCP, 80)]);
      const allowed = await curl(client, there);
      assert.equal(allowed.stdout, `hello from ${there}\n`);
      const before = await drops(client, 'policy');
      const denied = await curl(client, there, '/hello', 7);
      assert.equal(denied.code, REFUSED, denied.stderr);
      const connect = ['bash', '-c', `exec 3<>/dev/tcp/${there}/7`];
      assert.match((await client.host.exec(connect, { anyExit: true })).stderr, prohibited);
      const ping = await client.host.exec(['ping', '-c', '1', '-W', '5', there], { anyExit: true });
      assert.notEqual(ping.code, 0);
      assert.match(ping.stdout, filtered);
      assert.ok((await drops(client, 'policy')) >= before + 2);
      assert.equal((await curl(server, here)).code, REFUSED);
      await enforce([client, server], 'deny', [allow(TCP, 80), allow(ICMP)]);
      await client.host.exec(['ping', '-c', '2', '-i', '0.1', '-W', '5', there]);
      assert.equal((await server.host.exec(['ping', '-c', '1', '-W', '5', here], { anyExit: true })).code, 1);
    });

    it(`answers datagrams and passes those that are cut into fragments, in IPv${family}`, async () => {
      await enforce([client, server], 'deny', [allow(UDP, 7)]);
      for (const size of [100, 5000]) {
        const { stdout } = await client.host.exec([process.execPath, '-e', ECHO, there, '7', String(size)]);
        assert.equal(stdout.trim(), `answered ${size}`);
      }
      const before = await drops(server, 'policy');
      const unasked = await server.host.exec([process.execPath, '-e', ECHO, here, '7', '100'], { anyExit: true });
      assert.notEqual(unasked.code, 0);
      assert.ok((await drops(server, 'policy')) > before);
    });
  }

  it('is enforced by one side alone as well', async () => {
    const [{ server: there }] = FAMILIES;
    await enforce([client], 'allow', []);
    await enforce([server], 'deny', [allow(TCP, 80)]);
    assert.equal((await curl(client, there)).code, 0);
    const before = await drops(server, 'policy_in');
    assert.equal((await curl(client, there, '/hello', 7)).code, TIMED_OUT);
    assert.ok((await drops(server, 'policy_in')) > before);
    await enforce([server], 'allow', []);
    await enforce([client], 'deny', [allow(TCP, 80)]);
    const unseen = await drops(client, 'policy_in');
    assert.equal((await curl(server, FAMILIES[0].client)).code, TIMED_OUT);
    assert.ok((await drops(client, 'policy_in')) > unseen);
  });

  it('passes superpackets whole', async () => {
    await enforce([client, server], 'deny', [allow(TCP, 80)]);
    for (const { server: there } of FAMILIES) {
      const host = there.includes(':') ? `[${there}]` : there;
      const url = `http://${host}/bytes?size=20000000`;
      const argv = ['curl', '-sS', '--globoff', '-o', '/dev/null', '-w', '%{size_download}', url];
      assert.equal((await client.host.exec(argv)).stdout, '20000000');
    }
  });

  it('cuts a connection that is open when it no longer allows it', async () => {
    await enforce([client, server], 'deny', [allow(TCP, 7)]);
    const heartbeat = await startHeartbeat(client.host, FAMILIES[0].server);
    await enforce([client, server], 'deny', [allow(TCP, 80)]);
    await heartbeat.waitUntil('nothing comes any more', () => (report(heartbeat)?.silentMs ?? 0) > 1000);
    const received = beats(heartbeat);
    await enforce([client, server], 'deny', [allow(TCP, 7)]);
    await heartbeat.waitUntil('the connection goes on', () => beats(heartbeat) > received + 20);
    await heartbeat.stop();
    assert.equal(report(heartbeat)?.resets, 0);
  });
});

function report(heartbeat: LabProcess): HeartbeatReport | undefined {
  return heartbeat.lastReport<HeartbeatReport>('heartbeat');
}

function beats(heartbeat: LabProcess): number {
  return report(heartbeat)?.received ?? 0;
}

/** `node -e ECHO ADDRESS PORT OCTETS`: one datagram, again each 200 ms until its echo comes, for 3 s. */
const ECHO = `
const [address, port, size] = process.argv.slice(1);
const socket = require('node:dgram').createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' });
const ask = () => socket.send(Buffer.alloc(Number(size), 1), Number(port), address, () => undefined);
socket.on('error', () => undefined);
socket.on('message', (message) => { console.log('answered', message.length); process.exit(0); });
ask();
setInterval(ask, 200);
setTimeout(() => process.exit(1), 3000);
`;
