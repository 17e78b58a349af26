/** What a host sees and does at the edge, where workloads are behind its interfaces. Budget: 60 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { parseIpPrefix } from '../../proto/address.ts';
import type { Generation } from '../../proto/mapping.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Host, Lab } from '../lab/lab.ts';
import { waitFor } from '../lab/wait.ts';
import { DataPlane } from './data-plane.ts';
import { requireLab } from './require.ts';

requireLab();

const EID4 = '10.77.0.20';
const EID6 = 'fd77::20';
const OTHER = '10.77.0.21';

describe('a workload that comes to a bridge', () => {
  let lab: Lab;
  let edge: Host;
  let vm: Host;
  let dataplane: DataPlane;
  let foundSettings: string;

  before(async () => {
    const binary = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'workload' });
    edge = await lab.host('edge');
    vm = await lab.host('vm');
    await edge.ip(['link add br0 type bridge forward_delay 0', 'link set br0 up']);
    await lab.cable(vm, 'eth0', edge, 'port0');
    await edge.ip(['link set port0 master br0']);
    await vm.ip([`addr add ${EID4}/32 dev eth0`, `addr add ${EID6}/128 dev eth0`]);
    foundSettings = await settings();
    dataplane = await DataPlane.start(edge, binary, 1);
  });
  after(async () => {
    dataplane?.close();
    await lab?.close();
  });

  const settings = async (): Promise<string> => {
    const files = ['rp_filter', 'proxy_arp', 'send_redirects'].map((name) => `/proc/sys/net/ipv4/conf/br0/${name}`);
    return (await edge.exec(['cat', ...files])).stdout.replaceAll('\n', ' ').trim();
  };
  const watch = async (prefix: string, name = 'br0'): Promise<void> => {
    dataplane.tell({ type: 'workload-watch', prefix: parseIpPrefix(prefix), interface: name });
    await dataplane.done();
  };
  const unwatch = async (prefix: string, name = 'br0'): Promise<void> => {
    dataplane.tell({ type: 'workload-unwatch', prefix: parseIpPrefix(prefix), interface: name });
    await dataplane.done();
    dataplane.events.length = 0;
  };
  const seen = (prefix: string, by: string, name = 'br0') => ({ type: 'workload-seen', prefix, interface: name, by });

  it('is seen by its gratuitous ARP', async () => {
    await vm.sysctl([['net/ipv4/conf/eth0/arp_notify', '1']]);
    await vm.ip(['link set eth0 down']);
    await watch(`${EID4}/32`);
    await watch(`${OTHER}/32`);
    await vm.ip(['link set eth0 up']);
    assert.deepEqual(await dataplane.event('workload-seen'), seen(`${EID4}/32`, 'arp'));
    await unwatch(`${OTHER}/32`);
    await unwatch(`${EID4}/32`);
  });

  it('is seen by its unsolicited neighbour advertisement', async () => {
    await vm.sysctl([['net/ipv6/conf/eth0/ndisc_notify', '1']]);
    await vm.ip(['link set eth0 down']);
    await watch(`${EID6}/128`);
    await vm.ip(['link set eth0 up', `addr replace ${EID6}/128 dev eth0`]);
    assert.deepEqual(await dataplane.event('workload-seen'), seen(`${EID6}/128`, 'nd'));
    await unwatch(`${EID6}/128`);
  });

  it('is seen by any packet, although that goes to the hardware address of its former gateway', async () => {
    // It is asked for when the watch begins.
    await vm.sysctl([['net/ipv4/conf/eth0/arp_ignore', '8']]);
    await vm.ip([
      'route replace 169.254.1.1 dev eth0 scope link',
      'neigh replace 169.254.1.1 lladdr 02:00:00:00:99:99 dev eth0',
      'route replace default via 169.254.1.1 dev eth0 onlink',
    ]);
    await watch(`${EID4}/32`);
    await vm.exec(['ping', '-c', '1', '-W', '1', '-I', EID4, '10.77.0.99'], { anyExit: true });
    assert.deepEqual(await dataplane.event('workload-seen'), seen(`${EID4}/32`, 'packet'));
    await unwatch(`${EID4}/32`);
    await vm.sysctl([['net/ipv4/conf/eth0/arp_ignore', '0']]);
  });

  it('is seen without a word when it is asked for', async () => {
    await watch(`${EID4}/32`);
    assert.deepEqual(await dataplane.event('workload-seen'), seen(`${EID4}/32`, 'arp'));
    await watch(`${EID6}/128`);
    assert.deepEqual(await dataplane.event('workload-seen'), seen(`${EID6}/128`, 'nd'));
    await unwatch(`${EID4}/32`);
    await unwatch(`${EID6}/128`);
  });

  it('learns the new hardware address of its gateway as soon as the EID is here', async () => {
    await vm.ip(['neigh replace 169.254.1.1 lladdr 02:00:00:00:99:99 dev eth0 nud reachable']);
    const eid = { type: 'local-eid-set', generation: 1 as Generation, interface: 'br0', redirectFrom: null } as const;
    dataplane.tell({ ...eid, prefix: parseIpPrefix(`${EID4}/32`) });
    dataplane.tell({ ...eid, prefix: parseIpPrefix(`${EID6}/128`) });
    await dataplane.done();
    const { stdout } = await edge.exec(['cat', '/sys/class/net/br0/address']);
    const mac = stdout.trim();
    const known = (await vm.exec(['ip', 'neigh', 'show', '169.254.1.1'])).stdout;
    assert.ok(known.includes(mac), `${known} does not name ${mac}`);
  });

  it('finds any EID behind that hardware address if it takes the EID space for its link', async () => {
    await vm.ip(['route add 10.77.0.0/16 dev eth0', 'route add fd77::/48 dev eth0']);
    const mac = (await edge.exec(['cat', '/sys/class/net/br0/address'])).stdout.trim();
    for (const [eid, source] of [
      ['10.77.9.9', EID4],
      ['fd77::9:9', EID6],
      ['fe80::1%eth0', EID6],
    ] as const) {
      await vm.exec(['ping', '-c', '1', '-W', '1', '-I', source, eid], { anyExit: true });
      const known = (await vm.exec(['ip', 'neigh', 'show', eid.replace('%eth0', ''), 'dev', 'eth0'])).stdout;
      assert.ok(known.includes(mac), `${eid}: ${known} does not name ${mac}`);
    }
  });

  it('is not told that somebody else has its address', async () => {
    await vm.sysctl([
      ['net/ipv6/conf/all/accept_dad', '1'],
      ['net/ipv6/conf/eth0/accept_dad', '1'],
    ]);
    await vm.ip(['addr add fd77::30/128 dev eth0']);
    const state = await waitFor('the end of duplicate address detection', async () => {
      const { stdout } = await vm.exec(['ip', '-6', 'addr', 'show', 'dev', 'eth0', 'to', 'fd77::30']);
      return /tentative(?! dadfailed)/.test(stdout) ? undefined : stdout;
    });
    assert.doesNotMatch(state, /dadfailed/);
    assert.match(state, /fd77::30/);
  });

  it('is seen on a cable of its own; its neighbours find the way through the host when it has moved on', async () => {
    await lab.cable(vm, 'eth1', edge, 'port1');
    await vm.ip([`addr add ${OTHER}/32 dev eth1`]);
    await watch(`${OTHER}/32`, 'port1');
    assert.deepEqual(await dataplane.event('workload-seen'), seen(`${OTHER}/32`, 'arp', 'port1'));
    await unwatch(`${OTHER}/32`, 'port1');
    const gone = '10.77.0.22';
    const prefix = parseIpPrefix(`${gone}/32`);
    dataplane.tell({
      type: 'local-eid-set',
      prefix,
      generation: 1 as Generation,
      interface: 'port1',
      redirectFrom: null,
    });
    await vm.ip([`neigh replace ${gone} lladdr 02:00:00:00:88:88 dev eth1 nud reachable`]);
    const redirectTo = dataplane.publicKey;
    dataplane.tell({ type: 'local-eid-remove', prefix, generation: 2 as Generation, redirectTo });
    await dataplane.done();
    const mac = (await edge.exec(['cat', '/sys/class/net/port1/address'])).stdout.trim();
    await waitFor('the neighbour knows the way through the host', async () =>
      (await vm.exec(['ip', 'neigh', 'show', gone])).stdout.includes(mac),
    );
  });

  it('leaves the interface as it was found when the EID is detached', async () => {
    assert.equal(await settings(), '0 1 0');
    for (const prefix of [`${EID4}/32`, `${EID6}/128`]) {
      const command = { type: 'local-eid-remove', generation: 1 as Generation, redirectTo: null } as const;
      dataplane.tell({ ...command, prefix: parseIpPrefix(prefix) });
    }
    await dataplane.done();
    assert.equal(await settings(), foundSettings);
    const { stdout } = await edge.exec(['ip', '-o', 'addr', 'show', 'dev', 'br0']);
    assert.doesNotMatch(stdout, /169\.254\.1\.1|fe80::1\/128/);
  });
});

describe('a data plane without CAP_NET_RAW', () => {
  let lab: Lab;
  let dataplane: DataPlane;
  after(async () => {
    dataplane?.close();
    await lab?.close();
  });

  it('says that it cannot look for workloads, and carries those that it is told of', async () => {
    const binary = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'no-raw' });
    const edge = await lab.host('edge');
    const vm = await lab.host('vm');
    await lab.cable(vm, 'eth0', edge, 'port');
    dataplane = await DataPlane.start(edge, binary, 1, ['setpriv', '--bounding-set', '-net_raw']);
    dataplane.tell({ type: 'workload-watch', prefix: parseIpPrefix(`${EID4}/32`), interface: 'port' });
    for (const prefix of [`${EID4}/32`, `${EID6}/128`]) {
      const eid = {
        type: 'local-eid-set',
        generation: 1 as Generation,
        interface: 'port',
        redirectFrom: null,
      } as const;
      dataplane.tell({ ...eid, prefix: parseIpPrefix(prefix) });
    }
    await dataplane.done();
    assert.match(dataplane.process.output(), /not-permitted.*CAP_NET_RAW/);
    await vm.ip([
      `addr add ${EID4}/32 dev eth0`,
      `addr add ${EID6}/128 dev eth0`,
      'route add default via 169.254.1.1 dev eth0 onlink',
      'route add default via fe80::1 dev eth0',
    ]);
    await edge.exec(['ping', '-c', '1', '-W', '30', EID4]);
    await edge.exec(['ping', '-c', '1', '-W', '30', EID6]);
  });
});
