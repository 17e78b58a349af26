/** The commands in pages for users, typed on three fresh Debians in the order in which they are there. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { requireLab } from '../e2e/require.ts';
import { type DebianRoot, missingDebianRoot } from '../lab/debian-root.ts';
import type { Host } from '../lab/lab.ts';
import { waitFor } from '../lab/wait.ts';
import { type Block, commandBlocks, type Machine, PLAN } from './documented-commands.ts';
import { HOSTS, type HostName, RootWorld, reaches, status } from './root-world.ts';

requireLab();

describe('the commands in the pages', { skip: missingDebianRoot() ?? false }, () => {
  let world: RootWorld;
  let workload: Host;
  const printed = new Map<Block, string>();

  before(async () => {
    world = await RootWorld.build('docs');
    workload = await world.lab.host('workload');
    await world.lab.cable(workload, 'eth0', world.db.host, WORKLOAD_PORT);
    await workload.ip([
      `addr add ${WORKLOAD_EID}/32 dev eth0`,
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1 dev eth0 onlink',
    ]);
  });
  after(() => world?.close());

  for (const [page, treatments] of Object.entries(PLAN)) {
    for (const [i, treatment] of treatments.entries()) {
      if (!('on' in treatment)) continue;
      const block = commandBlocks(page)[i];
      if (block === undefined) continue;
      it(`${page}:${block.line}: ${treatment.begins}`, async () => {
        for (const machine of treatment.on) {
          for (const { text, input } of await typed(block, machine)) {
            const { stdout } = await rootOf(machine).exec(`cd /root\n${text}`, { input, timeoutMs: 120_000 });
            printed.set(block, `${printed.get(block) ?? ''}${stdout}`);
          }
        }
      });
    }
  }

  it('and with them the workload moves from db to web, and is reached there', async () => {
    await world.web.host.exec(['ping', '-c', '1', '-W', '5', WORKLOAD_EID]);
    await world.db.host.ip([`link set ${WORKLOAD_PORT} netns ${world.web.host.namespace}`]);
    await world.web.host.ip([`link set ${WORKLOAD_PORT} up`]);
    await waitFor('the workload live on web', async () => {
      const { stdout } = await world.web.exec(['stayput', 'eid', 'list', '--json']);
      const eids = JSON.parse(stdout) as { eid: string; state: string }[];
      return eids.some(({ eid, state }) => eid.startsWith(WORKLOAD_EID) && state === 'live');
    });
    await reaches(world.db, WORKLOAD_EID);
  });

  it('and everybody is registered at the end', async () => {
    for (const name of Object.keys(HOSTS) as HostName[]) {
      await waitFor(`${name} registered`, async () => (await status(world[name])).healthy);
    }
  });

  function rootOf(machine: Machine): DebianRoot {
    return machine === 'map server' ? world.mapServer : world[machine];
  }

  /** What the reader puts in for the names of the example, and what is asked for on standard input. */
  async function typed({ text }: Block, machine: Machine): Promise<{ text: string; input: string }[]> {
    if (text.includes(' agents grant AGENT ')) {
      const { stdout } = await world.mapServer.exec('sudo -u stayput-mapserver stayput agents list --json');
      const agents = JSON.parse(stdout) as { xtrId: string }[];
      assert.equal(agents.length, 2);
      return agents.map(({ xtrId }) => ({ text: text.replace('AGENT', xtrId.slice(0, 8)), input: '' }));
    }
    if (text.includes('agent join') && machine !== 'map server') {
      const tokens = [...printed.values()].flatMap((output) => output.match(/^stp1\.\S+$/gm) ?? []);
      const token = tokens[machine === 'db' ? 0 : 1] ?? '';
      const own = machine === 'db' ? text : text.replace(HOSTS.db, HOSTS.web).replace('--name db', '--name web');
      return [{ text: own, input: token }];
    }
    if (text.includes('mapserver restore')) {
      await world.mapServer.exec('umask 077; echo a passphrase that is long > /root/backup-passphrase');
      return [{ text: text.replace(/stayput-\d{4}-\d\d-\d\d\.backup/, 'stayput-$(date +%F).backup'), input: '' }];
    }
    return [{ text, input: '' }];
  }
});

const WORKLOAD_PORT = 'wl-db';
const WORKLOAD_EID = '10.77.1.20';
