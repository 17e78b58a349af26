/**
 * Two VMs in one data centre with private addresses behind one NAT, a client outside, and another data centre with the
 * same private addresses. Budget of each story: 20 s.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Capture } from '../lab/capture.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { startServer, Traffic } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const EIDS = { first: '10.77.0.11', second: '10.77.0.12', outside: '10.77.0.13', elsewhere: '10.77.0.14' } as const;
type Name = keyof typeof EIDS;
/** Longer is no handover any more. */
const LONGEST_GAP_MS = 2_000;

describe('hosts with private addresses behind one NAT', () => {
  let lab: Lab;
  let internet: Internet;
  let overlay: Overlay;
  const agents = {} as Record<Name, Agent>;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'private' });
    internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    await internet.addPrivateCloud('home', '10.9.0');
    await internet.addPrivateCloud('office', '10.9.0');
    overlay = await Overlay.start(await internet.attach('mapserver', 'a'), { dataplane });
    const join = async (name: Name, cloud: string): Promise<void> => {
      const at: Attachment = await internet.attach(name, cloud);
      agents[name] = await overlay.join(at, { eids: [`${EIDS[name]}/32`] });
    };
    await Promise.all([join('first', 'home'), join('second', 'home'), join('outside', 'a')]);
    // Has the private address of the first one, in a network of its own.
    const taken = agents.first.at.address4;
    const at = await internet.attach('elsewhere', 'office');
    await at.host.ip([
      `addr del ${at.address4}/24 dev eth0`,
      `addr add ${taken}/24 dev eth0`,
      'route add default via 10.9.0.1',
    ]);
    agents.elsewhere = await overlay.join({ ...at, address4: taken }, { eids: [`${EIDS.elsewhere}/32`] });
  });
  after(() => lab?.close());

  it('learn that there is a NAT, of which kind it is, and that UDP passes', async () => {
    const { router } = internet.cloud('home');
    const udp = async (): Promise<string> => {
      const config = `${agents.first.host.dir}/agent.json`;
      const { stdout } = await agents.first.stayput(['doctor', 'udp', '--config', config], { anyExit: true });
      return stdout;
    };
    assert.match(await udp(), /UDP passes; behind a NAT, seen from 198\.19\.\d+\.2 with one port for all/);
    assert.match((await agents.first.stayput(['status'])).stdout, /^UDP +seen from 198\.19\.\d+\.2, behind a NAT/m);
    const nat = ['POSTROUTING', '-o', 'wan0', '-p', 'udp', '--dport', '4343:4344', '-j', 'MASQUERADE', '--random'];
    await router.exec(['iptables', '-t', 'nat', '-I', ...nat]);
    assert.match(await udp(), /seen from 198\.19\.\d+\.2 with another port by each peer/);
    await router.exec(['iptables', '-t', 'nat', '-D', ...nat]);
    const lost = ['FORWARD', '-p', 'udp', '-j', 'DROP'];
    await router.exec(['iptables', '-I', ...lost]);
    assert.match(await udp(), /nothing comes back from the map server's reflector/);
    await router.exec(['iptables', '-D', ...lost]);
  });

  it('reach each other by their private addresses: nothing between them passes the NAT', async () => {
    const capture = await Capture.start(internet.cloud('home').router, 'wan0', { filter: 'udp port 4341' });
    await ping(agents.first, EIDS.second);
    await agents.first.host.exec(['ping', '-c', '20', '-i', '0.02', '-W', '2', EIDS.second]);
    const { stdout } = await agents.first.stayput(['peers', '--json']);
    const peers = JSON.parse(stdout) as { endpoint: { address: string } | null; eids: string[] }[];
    const peer = peers.find(({ eids }) => eids.includes(`${EIDS.second}/32`));
    assert.equal(peer?.endpoint?.address, agents.second.at.address4);
    await capture.stop();
    assert.deepEqual(capture.datagrams(), []);
  });

  it('reach a host outside when they speak first, and are reached by it from then on', async () => {
    await ping(agents.second, EIDS.outside);
    await agents.outside.host.exec(['ping', '-c', '3', '-i', '0.2', '-W', '2', EIDS.second]);
  });

  it('a host elsewhere with the same private address captures nothing and is not in the way', async () => {
    await ping(agents.elsewhere, EIDS.outside);
    // It tries the private address that is its own and finds itself; the first and the second go on as before.
    await agents.elsewhere.stayput(['ping', EIDS.first, '-c', '1'], { anyExit: true });
    await ping(agents.second, EIDS.first);
    await ping(agents.first, EIDS.outside);
  });

  it('a move to another address of the subnet is as fast as one between clouds', async (t) => {
    const server = await startServer(agents.second.host, EIDS.second);
    const gaps: number[] = [];
    for (let i = 0; i < 3; i++) {
      const traffic = await Traffic.start(agents.first.host, {
        address: EIDS.second,
        url: `http://${EIDS.second}`,
        downloadBytes: 6_000_000,
        downloadRate: 3_000_000,
        datagramsPerSecond: 200,
      });
      await traffic.waitForBytes(2_000_000);
      await internet.prepareRoam(agents.second.at, 'home')();
      const result = await traffic.finish();
      t.diagnostic(`TCP gap ${result.tcpLongestGapMs} ms, lost ${result.udpLost}, duplicated ${result.udpDuplicated}`);
      assert.equal(result.sha256Match, true);
      assert.equal(result.tcpResets, 0);
      assert.equal(result.udpDuplicated, 0);
      gaps.push(result.tcpLongestGapMs);
    }
    await server.stop();
    assert.ok(Math.max(...gaps) <= LONGEST_GAP_MS, `TCP gaps of ${gaps.join(', ')} ms`);
    await ping(agents.second, EIDS.outside);
  });
});

/** The first one waits for the resolution and the handshake. */
async function ping(from: Agent, eid: string): Promise<void> {
  await waitFor(`${from.host.name} reaches ${eid}`, async () => {
    const { code } = await from.host.exec(['ping', '-c', '1', '-W', '2', eid], { anyExit: true });
    return code === 0;
  });
}
