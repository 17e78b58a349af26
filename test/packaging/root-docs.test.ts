/** The commands in pages for users, typed on three fresh Debians in the order in which they are there. */
import { after, before, describe, it } from 'node:test';
import { requireLab } from '../e2e/require.ts';
import { missingDebianRoot } from '../lab/debian-root.ts';
import type { Host } from '../lab/lab.ts';
import { waitFor } from '../lab/wait.ts';
import { commandBlocks, PLAN } from './documented-commands.ts';
import { PageReader } from './page-reader.ts';
import { HOSTS, type HostName, RootWorld, reaches, status } from './root-world.ts';

requireLab();

describe('the commands in the pages', { skip: missingDebianRoot() ?? false }, () => {
  let world: RootWorld;
  let workload: Host;
  let reader: PageReader;

  before(async () => {
    world = await RootWorld.build('docs');
    workload = await world.lab.host('workload');
    await world.lab.cable(workload, 'eth0', world.db.host, WORKLOAD_PORT);
    reader = new PageReader(world, (command) => workload.exec(['sh', '-ec', command]));
  });
  after(() => world?.close());

  for (const [page, treatments] of Object.entries(PLAN)) {
    for (const [i, treatment] of treatments.entries()) {
      if (!('on' in treatment)) continue;
      const block = commandBlocks(page)[i];
      if (block === undefined) continue;
      it(`${page}:${block.line}: ${treatment.begins}`, async () => {
        for (const machine of treatment.on) await reader.type(block, machine);
      });
    }
    if (page === 'docs/quick-start.md') it('and with them the workload moves from db to web', () => moves());
  }

  it('and Prometheus may ask for the agents with the token and the authority that were made', async () => {
    await reader.configureMapServer({ discoveryTokenFile: '/etc/stayput/discovery-token' });
    const isListed = async (): Promise<boolean> => {
      const { code } = await world.mapServer.exec(
        `curl --fail --cacert /root/stayput-ca.pem --header "Authorization: Bearer $(cat /etc/stayput/discovery-token)" \
           https://127.0.0.1:4342/v1/prometheus/targets`,
        { anyExit: true },
      );
      return code === 0;
    };
    await waitFor('the list', isListed);
  });

  it('and everybody is registered at the end', async () => {
    for (const name of Object.keys(HOSTS) as HostName[]) {
      await waitFor(`${name} registered`, async () => (await status(world[name])).healthy);
    }
  });

  async function moves(): Promise<void> {
    await world.web.host.exec(['ping', '-c', '1', '-W', '5', WORKLOAD_EID]);
    await world.db.host.ip([`link set ${WORKLOAD_PORT} netns ${world.web.host.namespace}`]);
    await world.web.host.ip([`link set ${WORKLOAD_PORT} up`]);
    await waitFor('the workload live on web', async () => {
      const { stdout } = await world.web.exec(['stayput', 'eid', 'list', '--json']);
      const eids = JSON.parse(stdout) as { eid: string; state: string }[];
      return eids.some(({ eid, state }) => eid.startsWith(WORKLOAD_EID) && state === 'live');
    });
    await reaches(world.db, WORKLOAD_EID);
  }
});

const WORKLOAD_PORT = 'wl-db';
const WORKLOAD_EID = '10.77.1.20';
