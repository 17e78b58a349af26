/** A workload comes to a bridge that is up all the time: it moves when it is seen there. Budget: 30 s. */
import { after, before, describe, it } from 'node:test';
import { waitFor } from '../lab/wait.ts';
import { DB_EID, DB_EID6, WORKLOAD_PORT, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const GATEWAY = '169.254.1.1';

describe('a workload that comes to a bridge on another host', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'move-seen', internet: { roundTripMs: 1 }, workload: true });
    const { here, there } = world.workload;
    for (const { host } of [here, there]) {
      await host.ip(['link add br0 type bridge forward_delay 0', 'link set br0 up']);
      // A port that keeps the bridge up while the workload is away.
      await host.ip([
        'link add stub type veth peer name stub-peer',
        'link set stub master br0 up',
        'link set stub-peer up',
      ]);
    }
    await world.db.ip([`addr add ${DB_EID6}/128 dev eth0`, 'route add default via fe80::1 dev eth0']);
  });
  after(() => world?.close());

  /** The workload, which answers no question for its addresses before it has spoken, is carried over. */
  const carryOver = async (eid: string, speak: () => Promise<void>): Promise<void> => {
    const { here, there } = world.workload;
    await there.stayput(['eid', 'attach', eid, '--interface', 'br0', '--when', 'seen']);
    await waitFor(`${eid} is a target`, async () => (await there.eidState(eid)) === 'target');
    await world.db.sysctl([['net/ipv4/conf/eth0/arp_ignore', '8']]);
    await here.host.ip([`link set ${WORKLOAD_PORT} netns ${there.host.namespace}`]);
    await there.host.ip([`link set ${WORKLOAD_PORT} master br0 up`]);
    await speak();
    await waitFor(`${eid} is live`, async () => (await there.eidState(eid)) === 'live');
    await world.db.sysctl([['net/ipv4/conf/eth0/arp_ignore', '0']]);
    await world.client.host.exec(['ping', '-c', '1', '-W', '30', eid]);
    Object.assign(world.workload, { here: there, there: here });
  };

  it('is seen by its first packet, which goes to the gateway of the host it has left', async () => {
    await world.db.ip([`neigh replace ${GATEWAY} lladdr 02:00:00:00:99:99 dev eth0 nud reachable`]);
    await carryOver(DB_EID, async () => {
      await world.db.exec(['ping', '-c', '1', '-W', '1', '10.77.0.1'], { anyExit: true });
    });
  });

  // The kernel announces a new hardware address. When a link comes up it does as well, but before the bridge forwards.
  it('is seen by its gratuitous ARP', async () => {
    await world.db.sysctl([['net/ipv4/conf/eth0/arp_notify', '1']]);
    await carryOver(DB_EID, () => world.db.ip(['link set eth0 address 02:00:00:00:00:01']));
  });

  it('is seen by its unsolicited neighbour advertisement', async () => {
    await world.db.sysctl([['net/ipv6/conf/eth0/ndisc_notify', '1']]);
    await world.workload.here.stayput(['eid', 'attach', DB_EID6, '--interface', 'br0']);
    await waitFor('the IPv6 EID is live', async () => (await world.workload.here.eidState(DB_EID6)) === 'live');
    await carryOver(DB_EID6, () => world.db.ip(['link set eth0 address 02:00:00:00:00:02']));
  });
});
