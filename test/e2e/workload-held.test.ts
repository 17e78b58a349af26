/** Packets for a workload that is on its way are held, and delivered where it goes, each once. Budget: 60 s. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseIpPrefix } from '../../proto/address.ts';
import type { Generation } from '../../proto/mapping.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Host, Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import type { ArrivalsReport } from '../lab/traffic/arrivals.ts';
import type { DatagramsReport } from '../lab/traffic/datagrams.ts';
import { waitFor } from '../lab/wait.ts';
import { DataPlane } from './data-plane.ts';
import { requireLab } from './require.ts';

requireLab();

const SCRIPTS = fileURLToPath(new URL('../lab/traffic/', import.meta.url));
const EIDS = ['10.77.0.20', 'fd77::20'] as const;
const SENDER = ['10.77.0.1', 'fd77::1'] as const;
const PER_SECOND = 1000;
/** More than the kernel keeps, unless told to, for a neighbour that it still looks for. */
const HELD = 1500;

const prefixOf = (address: string) => parseIpPrefix(`${address}/${address.includes(':') ? 128 : 32}`);

describe('packets for a workload that is on its way', () => {
  let lab: Lab;
  let workload: Host;
  let sender: DataPlane;
  let here: DataPlane;
  let there: DataPlane;

  before(async () => {
    const binary = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'held' });
    const underlay = await lab.switch('underlay');
    const dataplanes: DataPlane[] = [];
    for (const [at, name] of ['sender', 'here', 'there'].entries()) {
      const host = await lab.host(name);
      await lab.plug(host, 'eth0', underlay);
      await host.ip([`addr add 192.0.2.${at + 1}/24 dev eth0`]);
      dataplanes.push(await DataPlane.start(host, binary, at + 1));
    }
    [sender, here, there] = dataplanes as [DataPlane, DataPlane, DataPlane];
    for (const one of dataplanes) {
      one.tell({ type: 'sync-begin' });
      for (const [at, other] of dataplanes.entries()) if (other !== one) one.meet(other, `192.0.2.${at + 1}`);
    }
    for (const address of SENDER) {
      sender.tell({ ...local(address, 1), interface: null });
      for (const one of [here, there]) one.tell(mapping(address, 1, sender));
    }
    for (const eid of EIDS) {
      sender.tell(mapping(eid, 1, here));
      here.tell(local(eid, 1));
    }
    here.tell({ type: 'interface-watch', name: 'port' });
    for (const one of dataplanes) {
      one.tell({ type: 'sync-end' });
      await one.done();
    }
    workload = await lab.host('workload');
    await lab.cable(workload, 'eth0', here.host, 'port');
    await workload.ip([
      ...EIDS.map((eid) => `addr add ${prefixOf(eid)} dev eth0`),
      'route add default via 169.254.1.1 dev eth0 onlink',
      'route add default via fe80::1 dev eth0',
    ]);
  });
  after(async () => {
    for (const one of [sender, here, there]) one?.close();
    await lab?.close();
  });

  const mapping = (eid: string, at: number, owner: DataPlane) =>
    ({
      type: 'mapping-set',
      prefix: prefixOf(eid),
      generation: at as Generation,
      action: 'forward',
      publicKey: owner.publicKey,
    }) as const;
  const local = (eid: string, at: number, redirectFrom: DataPlane | null = null) =>
    ({
      type: 'local-eid-set',
      prefix: prefixOf(eid),
      generation: at as Generation,
      interface: 'port',
      redirectFrom: redirectFrom?.publicKey ?? null,
    }) as const;

  /** Datagrams to both addresses of the workload that are sent from when it is away; all arrive, each once. */
  const countThrough = async (away: () => Promise<void>, back: () => Promise<void>): Promise<void> => {
    here.events.length = 0;
    await away();
    // One of an earlier coming may still be on its way.
    await here.event('interface', ({ name, up }) => name === 'port' && !up);
    const flows: { readonly eid: string; readonly arrivals: LabProcess; readonly datagrams: LabProcess }[] = [];
    for (const eid of EIDS) {
      const arrivals = workload.spawn('arrivals', [process.execPath, join(SCRIPTS, 'arrivals.js'), eid, '9']);
      await arrivals.waitUntil('listening', () => arrivals.lastReport('arrivals') !== undefined);
      const argv = [process.execPath, join(SCRIPTS, 'datagrams.js'), eid, '9', String(PER_SECOND)];
      flows.push({ eid, arrivals, datagrams: sender.host.spawn('datagrams', argv) });
    }
    const arrived = (flow: { readonly arrivals: LabProcess }) => flow.arrivals.lastReport<ArrivalsReport>('arrivals');
    await waitFor('so many are held', async () => ((await here.done()).gauges.held_packets ?? 0) >= HELD);
    await back();
    await waitFor('arrivals', () => flows.every((flow) => (arrived(flow)?.received ?? 0) > HELD / 2));
    await Promise.all(flows.map(({ datagrams }) => datagrams.stop()));
    const sums = [];
    for (const flow of flows) {
      const { sent, refused } = flow.datagrams.lastReport<DatagramsReport>('datagrams') ?? { sent: -1, refused: 0 };
      assert.equal(refused, 0);
      await waitFor(`${sent} datagrams to ${flow.eid}`, () => (arrived(flow)?.received ?? 0) >= sent).catch(() => {});
      await flow.arrivals.stop();
      const { received, duplicated } = arrived(flow) ?? { received: 0, duplicated: 0 };
      sums.push({ eid: flow.eid, lost: sent - received, duplicated });
    }
    const { counters } = await here.done();
    const told = Object.entries(counters).filter(([name, count]) => count > 0 && /^drop|held|^tun/.test(name));
    const expected = EIDS.map((eid) => ({ eid, lost: 0, duplicated: 0 }));
    assert.deepEqual(sums, expected, JSON.stringify({ sums, told }));
  };

  it('are delivered when its interface comes back', async () => {
    await countThrough(
      () => here.host.ip([`link set port netns ${lab.wires.namespace}`]),
      async () => {
        await lab.wires.ip([`link set port netns ${here.host.namespace}`]);
        await here.host.ip(['link set port up']);
      },
    );
  });

  it('are delivered when its interface was only down', async () => {
    await countThrough(
      () => here.host.ip(['link set port down']),
      () => here.host.ip(['link set port up']),
    );
  });

  it('are delivered when its interface had another name for a while', async () => {
    await countThrough(
      () => here.host.ip(['link set port down', 'link set port name other', 'link set other up']),
      () => here.host.ip(['link set other down', 'link set other name port', 'link set port up']),
    );
  });

  it('are sent on to its new host, which is spoken to for the first time', async () => {
    await countThrough(
      () => here.host.ip([`link set port netns ${there.host.namespace}`]),
      async () => {
        await there.host.ip(['link set port up']);
        for (const eid of EIDS) {
          there.tell(local(eid, 2, here));
          const left = { type: 'local-eid-remove', prefix: prefixOf(eid), generation: 1 as Generation } as const;
          here.tell({ ...left, redirectTo: there.publicKey });
        }
        await waitFor('late packets are sent on', async () => {
          const { counters, gauges } = await here.done();
          return (counters.redirected_packets ?? 0) > HELD && gauges.held_packets === 0;
        });
        for (const eid of EIDS) sender.tell(mapping(eid, 2, there));
      },
    );
  });
});
